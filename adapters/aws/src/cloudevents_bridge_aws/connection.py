"""SNS and SQS of one region, as one process sees them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.driver import Capability, DeadLetters, Fault, Subscription, Topic
from cloudevents_bridge_aws import errors, settings, wire
from cloudevents_bridge_aws.clients import Clients
from cloudevents_bridge_aws.names import Names, check, fifo
from cloudevents_bridge_aws.options import Options
from cloudevents_bridge_aws.publisher import Publisher
from cloudevents_bridge_aws.subscriber import Subscriber
from cloudevents_bridge_aws.topology import Topology

_TOPICS = frozenset(Capability) - {Capability.DELAY, Capability.EXPIRY, Capability.FILTER}
_QUEUES = _TOPICS - {Capability.TAIL} | {Capability.DELAY}


class Native:
    """boto3's own session and clients, those that the library uses. They do not retry."""

    def __init__(self, clients: Clients, region: str) -> None:
        self._clients, self._region = clients, region

    @property
    def session(self) -> Any:
        """The `boto3.Session`."""
        return self._clients.session()

    @property
    def sns(self) -> Any:
        """A client of SNS."""
        return self._clients.get("sns", self._region, math.inf)

    @property
    def sqs(self) -> Any:
        """A client of SQS."""
        return self._clients.get("sqs", self._region, math.inf)


class Connection:
    """The driver's connection. A queue is reached by itself, so a replay goes to its own subscription only."""

    direct = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clients = Clients(options)
        self._names = Names(options, self._clients.account)
        self.capabilities = _TOPICS if options.fan_out else _QUEUES
        self.topology = Topology(self._clients, self._names, options)
        self.native = Native(self._clients, options.region)
        self.wire: Wire = wire.WIRES[options.mode]

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> Publisher:
        check(to, fan_out=self._options.fan_out)
        subscription = to.of if isinstance(to, DeadLetters) else to
        topic = subscription if isinstance(subscription, Topic) else subscription.topic
        to_topic = isinstance(to, Topic) and self._options.fan_out
        return Publisher(
            self._clients,
            partial(self._names.topic if to_topic else self._names.queue, to),  # type: ignore[arg-type]
            self._names.url,
            limit=self._options.topic_bytes if to_topic else self._options.queue_bytes,
            fifo=fifo(topic),
            keyed=topic.ordered,
        )

    def open_subscriber(self, of: Subscription | DeadLetters) -> Subscriber:
        check(of, fan_out=self._options.fan_out)
        subscription = of.of if isinstance(of, DeadLetters) else of
        return Subscriber(
            self._clients,
            partial(self._names.queue, of),
            self._names.url,
            lease=settings.lease(subscription),
            poll=self._options.poll,
            keyed=subscription.topic.ordered,
            removes_after=settings.receives(subscription) if isinstance(of, Subscription) else None,
        )

    def queue_arn(self, of: Subscription | DeadLetters) -> str:
        """The ARN of a queue."""
        return self._names.queue(of).arn

    def classify(self, error: BaseException) -> Fault:
        return errors.classify(error)

    def ping(self, *, timeout: float) -> None:
        self._clients.get("sts", self._options.region, timeout).get_caller_identity()

    def close(self) -> None:
        self._clients.close()
