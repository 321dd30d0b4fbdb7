"""Sending: one publish request for each batch, accepted or refused as one."""

from __future__ import annotations

from collections.abc import Sequence

from cloudevents_bridge.driver import Done, Fault, Outbound, SendTraits
from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_azure.eventgrid import wire
from cloudevents_bridge_azure.eventgrid.client import Act, Client

BATCH_COUNT = 1000
MAX_REQUEST = 1024 * 1024
"""Bytes of one publish request, at most."""
MEDIA = "application/cloudevents-batch+json; charset=utf-8"
ROLE = "EventGrid Data Sender"
SENDS = 4
_BRACKETS = 1  # two, and each event counts a comma, which the last has not


def publishing(topic: str) -> Act:
    """A request that publishes to a topic of the namespace."""
    return Act(f"/topics/{topic}:publish", MEDIA, ROLE)


class Publisher:
    """Sends to one topic of a namespace, which may be the one of a subscription's dead letters."""

    traits = SendTraits(
        batch_count=BATCH_COUNT,
        batch_bytes=MAX_REQUEST - _BRACKETS,
        message_bytes=MAX_REQUEST - _BRACKETS,
        keys="mixed",
        sends=SENDS,
    )

    def __init__(self, client: Client, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._act = publishing(topic)
        self._closed = False

    def size(self, message: Outbound) -> int:
        return len(wire.pack(message.body, message.attributes)) + 1

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        if self._closed:
            raise ClosedError(f"this publisher of {self._topic} was closed: ask the broker for another")
        events = [wire.pack(message.body, message.attributes) for message in batch]
        self._client.post(self._act, b"[" + b",".join(events) + b"]", {}, timeout=timeout)
        return [Done()] * len(batch)

    def close(self) -> None:
        self._closed = True
