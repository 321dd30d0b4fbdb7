"""Custom topics of Event Grid, whose subscriptions deliver to queues of Service Bus:
`azure-eventgrid-topic://HOST?servicebus=NAMESPACE-HOST`.

A custom topic has an endpoint of its own, `https://TOPIC.HOST/api/events`. A subscription is a queue, which is received
from as Service Bus's own, and which a replay goes to.
"""
