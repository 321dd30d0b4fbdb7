"""Azure Service Bus: `azure-servicebus://NAMESPACE-HOST`.

- URL: `azure-servicebus://shop.servicebus.windows.net`, with `?mode=structured`, `?message_bytes=…`, `?endpoint=…` and
  `?administration=…`. Options: these and `credential`. `AZURE_SERVICEBUS_CONNECTION_STRING` is obeyed where it names
  that host.
- Names: topic `orders`; subscription `billing`; its dead letters are the subscription's own dead-letter queue.
- Delivery semantics: a lease is a lock, of a message or, where the topic is ordered, of a session; a retry with a delay
  is held by the library, since Service Bus has no such delay.
- Wire form: binary, `cloudEvents_` properties and `content-type`, as the AMQP binding says; both modes are read.
- Limits: 256 KiB in a message and in a batch, or as `message_bytes` says.
- Permissions: `ceb topology policy ROLE` prints the commands that grant them.
- Native access: `broker.native` has Azure's own clients.
- Quirks: see the page of the documentation.
"""
