"""One project of Pub/Sub, as one process sees it."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

from cloudevents_bridge import bindings
from cloudevents_bridge.driver import Capability, DeadLetters, Fault, Subscription, Topic
from cloudevents_bridge_gcp import errors, native, pb, rpc, settings
from cloudevents_bridge_gcp.names import subscription_name, topic_name
from cloudevents_bridge_gcp.options import Options
from cloudevents_bridge_gcp.publisher import Publisher
from cloudevents_bridge_gcp.subscriber import Subscriber
from cloudevents_bridge_gcp.topology import Topology

_CAPABILITIES = frozenset(Capability) - {Capability.DELAY, Capability.EXPIRY, Capability.DEDUPLICATION}


class Native:
    """Google's own clients, on the connection of the library."""

    def __init__(self, connection: rpc.Rpc) -> None:
        self._rpc = connection

    @cached_property
    def publisher(self) -> Any:
        """A `google.pubsub_v1.PublisherClient`."""
        from google.pubsub_v1 import PublisherClient
        from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

        return PublisherClient(transport=PublisherGrpcTransport(channel=self._rpc.channel()))

    @cached_property
    def subscriber(self) -> Any:
        """A `google.pubsub_v1.SubscriberClient`."""
        from google.pubsub_v1 import SubscriberClient
        from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

        return SubscriberClient(transport=SubscriberGrpcTransport(channel=self._rpc.channel()))


class Connection:
    """The driver's connection. A subscription is reached by its topic only, so a replay is marked for its one."""

    capabilities = _CAPABILITIES
    direct = False

    def __init__(self, options: Options) -> None:
        self._options = options
        self._rpc = rpc.Rpc(options)
        self.topology = Topology(self._rpc, options)
        self.native = Native(self._rpc)
        self.wire: bindings.Wire = dataclasses.replace(bindings.PUBSUB, mode=options.mode)

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> Publisher:
        native.check(to, self._options.manners)
        place = to.topic if isinstance(to, Subscription) else to
        topic = place.of.topic if isinstance(place, DeadLetters) else place
        return Publisher(
            self._rpc,
            topic_name(self._options.project, place),
            keyed=topic.ordered,
            letters=isinstance(place, DeadLetters),
            batch_bytes=self._options.batch_bytes,
        )

    def open_subscriber(self, of: Subscription | DeadLetters) -> Subscriber:
        native.check(of, self._options.manners)
        subscription = of.of if isinstance(of, DeadLetters) else of
        counts = isinstance(of, Subscription) and settings.has_dead_letters(of)
        return Subscriber(
            self._rpc,
            subscription_name(self._options.project, of),
            lease=native.lease(subscription, self._options.manners),
            removes_after=native.deliveries(subscription) if counts else None,
            keyed=subscription.topic.ordered and not isinstance(of, DeadLetters),
            keyed_nack=self._options.manners.keyed_nack,
            letters=isinstance(of, DeadLetters),
        )

    def classify(self, error: BaseException) -> Fault:
        return errors.classify(error)

    def ping(self, *, timeout: float) -> None:
        request = pb.GetTopicRequest(topic=f"projects/{self._options.project}/topics/ceb-ping")
        try:
            self._rpc.call(rpc.GET_TOPIC, request, timeout=timeout)
        except pb.GoogleAPICallError as error:
            # Either answer comes from the service itself, and to somebody whom it knows.
            if errors.status_of(error) not in ("NOT_FOUND", "PERMISSION_DENIED"):
                raise

    def close(self) -> None:
        self._rpc.close()
