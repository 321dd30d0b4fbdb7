"""Receiving what Event Grid has put into a queue of Service Bus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from cloudevents_bridge.driver import Done, Fault, Inbound, Received, SubscriberDriver, Verb
from cloudevents_bridge.formats.json import CONTENT_TYPE
from cloudevents_bridge_azure.eventgrid import wire

_OURS = "aeg-"
"""Start of the properties that Event Grid writes beside an event."""


class QueueSubscriber:
    """A subscriber of a queue, whose messages are read as Event Grid writes them.

    Args:
        inner: that of Service Bus.
    """

    def __init__(self, inner: SubscriberDriver) -> None:
        self._inner = inner
        self.traits = inner.traits

    def receive(self, max_messages: int, wait: float) -> Received:
        received = self._inner.receive(max_messages, wait)
        return Received([_read(each) for each in received.messages], received.lost)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        return self._inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)

    def stop(self) -> None:
        self._inner.stop()

    def close(self) -> None:
        self._inner.close()


def _read(inbound: Inbound) -> Inbound:
    beside = {name: value for name, value in inbound.attributes.items() if not name.startswith(_OURS)}
    if beside.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
        return replace(inbound, attributes=beside)
    found: Mapping[str, str]
    found, body = wire.unpack(inbound.body)
    del beside["content-type"]
    return replace(inbound, body=body, attributes={**beside, **found} if beside else found)
