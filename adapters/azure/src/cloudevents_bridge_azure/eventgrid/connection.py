"""One namespace of Event Grid, as one process sees it."""

from __future__ import annotations

from typing import Any

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.driver import Capability, DeadLetters, Fault, Subscription, Topic
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_azure.eventgrid import errors, settings, wire
from cloudevents_bridge_azure.eventgrid.client import Client
from cloudevents_bridge_azure.eventgrid.letters import Letters
from cloudevents_bridge_azure.eventgrid.names import Source, source, topic_name
from cloudevents_bridge_azure.eventgrid.options import Options
from cloudevents_bridge_azure.eventgrid.publisher import Publisher
from cloudevents_bridge_azure.eventgrid.subscriber import Subscriber, consuming
from cloudevents_bridge_azure.eventgrid.topology import Topology

_PING = consuming(Source("ceb-ping", "ceb-ping"), "acknowledge")
_KNOWN = (ErrorCode.INVALID_ARGUMENT, ErrorCode.PERMISSION_DENIED, ErrorCode.NOT_FOUND)


class Native:
    """Makes the SDK's own clients of this namespace. They retry as they always do; the program closes them."""

    def __init__(self, client: Client, endpoint: str) -> None:
        self._client, self._endpoint = client, endpoint

    def publisher(self, topic: str, **options: Any) -> Any:
        """An `azure.eventgrid.EventGridPublisherClient` of a topic."""
        from azure.eventgrid import EventGridPublisherClient

        return EventGridPublisherClient(self._endpoint, self._client.credential(), namespace_topic=topic, **options)

    def consumer(self, topic: str, subscription: str, **options: Any) -> Any:
        """An `azure.eventgrid.EventGridConsumerClient` of a subscription."""
        from azure.eventgrid import EventGridConsumerClient

        return EventGridConsumerClient(
            self._endpoint, self._client.credential(), namespace_topic=topic, subscription=subscription, **options
        )


class Connection:
    """The driver's connection. A subscription is reached by its topic only, so a replay is marked for its one."""

    capabilities = frozenset({Capability.EXTEND, Capability.REPLAY})
    direct = False

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = Client(options)
        self.topology = Topology(options, self._client)
        self.native = Native(self._client, options.endpoint)
        self.wire: Wire = wire.WIRE

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> Publisher:
        settings.check(to)
        return Publisher(self._client, topic_name(to))

    def open_subscriber(self, of: Subscription | DeadLetters) -> Subscriber:
        settings.check(of)
        declared = of.of if isinstance(of, DeadLetters) else of
        lease, wait = settings.lease(declared, local=self._options.local), self._options.wait
        if isinstance(of, DeadLetters):
            return Letters(self._client, source(of), lease=lease, wait=wait)
        return Subscriber(self._client, source(of), lease=lease, wait=wait)

    def classify(self, error: BaseException) -> Fault:
        return errors.classify(error)

    def ping(self, *, timeout: float) -> None:
        try:
            self._client.post(_PING, b'{"lockTokens":["ceb-ping"]}', {}, timeout=timeout)
        except errors.RequestError as error:
            # Each of these comes from the service itself, and to somebody whom it knows.
            if errors.classify(error).code not in _KNOWN:
                raise

    def close(self) -> None:
        self._client.close()
