"""Custom topics of one region, and the Service Bus namespace of their queues, as one process sees them."""

from __future__ import annotations

from typing import Any

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.driver import (
    Capability,
    DeadLetters,
    Fault,
    PublisherDriver,
    SubscriberDriver,
    Subscription,
    Topic,
)
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_azure.eventgrid import errors, wire
from cloudevents_bridge_azure.eventgrid.client import TopicClient
from cloudevents_bridge_azure.eventgrid.custom import settings
from cloudevents_bridge_azure.eventgrid.custom.names import endpoint, queue
from cloudevents_bridge_azure.eventgrid.custom.options import TopicOptions
from cloudevents_bridge_azure.eventgrid.custom.publisher import TopicPublisher
from cloudevents_bridge_azure.eventgrid.custom.subscriber import QueueSubscriber
from cloudevents_bridge_azure.eventgrid.custom.topology import Topology
from cloudevents_bridge_azure.servicebus import connection as servicebus
from cloudevents_bridge_azure.servicebus import errors as servicebus_errors
from cloudevents_bridge_azure.servicebus.settings import deliveries, lock


class Connection:
    """The driver's connection. A queue is reached by itself, so a replay goes to its own subscription only."""

    capabilities = frozenset({Capability.EXTEND, Capability.REPLAY})
    direct = True

    def __init__(self, options: TopicOptions) -> None:
        self._options = options
        self._client = TopicClient(options.grid, options.keys)
        self._bus = servicebus.Connection(options.bus)
        self.topology = Topology(options, self._client, self._bus.administration)
        self.native: Any = self._bus.native
        self.wire: Wire = wire.WIRE

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> PublisherDriver:
        settings.check(to)
        if isinstance(to, DeadLetters):
            raise UnsupportedError(
                f"{place_name(to)} on {self._options.grid.url} cannot be published to: Service Bus moves to its "
                "dead-letter queues by itself"
            )
        if isinstance(to, Subscription):
            return self._bus.publisher(queue(to), keyed=False, window=0.0)
        return TopicPublisher(
            self._client, to.name, endpoint(to, self._options.grid), queued=self._options.bus.message_bytes
        )

    def open_subscriber(self, of: Subscription | DeadLetters) -> SubscriberDriver:
        settings.check(of)
        subscription = of.of if isinstance(of, DeadLetters) else of
        removes_after = deliveries(subscription) if isinstance(of, Subscription) else None
        inner = self._bus.subscriber(queue(of), keyed=False, lock=lock(subscription), removes_after=removes_after)
        return QueueSubscriber(inner)

    def classify(self, error: BaseException) -> Fault:
        """By the table of Event Grid what its requests raised, by that of Service Bus all else."""
        if isinstance(error, errors.RequestError):
            return errors.classify(error)
        return servicebus_errors.classify(error)

    def ping(self, *, timeout: float) -> None:
        """Of the queues' namespace: each topic has a host of its own."""
        self._bus.ping(timeout=timeout)

    def close(self) -> None:
        self._client.close()
        self._bus.close()
