"""Azure Event Grid: namespace topics with pull delivery, `azure-eventgrid://NAMESPACE-HOST`.

- URL: the host name of the namespace, with `?endpoint=…` and `?wait=…`. Options: those, and `credential`.
- Names: topic `orders`; subscription `billing`; its dead letters, topic `orders--billing--dlq`, subscription `dlq`.
- Delivery semantics: receive in long polls that are not cut short; leases are locks; a retry with a delay is a release
  after 10, 60, 600 or 3,600 seconds; attempts are counted by the service, which ends at 10.
- Wire form: the service's own, CloudEvents as JSON.
- Limits: 1 MB and 1,000 events in a request; extension names of 20 characters.
- Permissions: `ceb topology policy ROLE` prints the commands that grant them.
- Native access: `broker.native` makes the SDK's own clients.
- Quirks: see the page of the documentation.
"""
