"""Sending: one publish request for each batch, accepted or refused as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudevents_bridge.driver import Done, Fault, Outbound, SendTraits
from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_gcp import pb, wire
from cloudevents_bridge_gcp.options import MAX_REQUEST
from cloudevents_bridge_gcp.rpc import PUBLISH, Rpc

BATCH_COUNT = 1000
SENDS = 4
"""Requests in flight at once, for what each waits on a network. Beside the emulator one to eight are as fast."""


class Publisher:
    """Sends to one topic, which may be the one of a subscription's dead letters.

    Args:
        topic: its resource name.
        keyed: the ordering keys count. A request holds the messages of one key, or some without.
        letters: it is a dead-letter place.
        batch_bytes: of a request with several messages, at most.
    """

    def __init__(self, rpc: Rpc, topic: str, *, keyed: bool, letters: bool, batch_bytes: int) -> None:
        self._rpc = rpc
        self._topic = topic
        self._keyed = keyed
        self._letters = letters
        self._closed = False
        overhead = pb.PublishRequest(topic=topic).ByteSize()
        self.traits = SendTraits(
            batch_count=BATCH_COUNT,
            batch_bytes=min(batch_bytes, MAX_REQUEST) - overhead,
            message_bytes=MAX_REQUEST - overhead,
            keys="one_key",
            sends=SENDS,
        )

    def size(self, message: Outbound) -> int:
        """Raises:
        InvalidArgumentError: if Pub/Sub would refuse the message; it names the attribute.
        """
        if self._letters and not wire.reason_fits(message):
            return self.traits.message_bytes + 1
        return wire.entry_size(self._native(message))

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        if self._closed:
            raise ClosedError(f"this publisher of {self._topic} was closed: ask the broker for another")
        request = pb.PublishRequest(topic=self._topic, messages=[self._native(message) for message in batch])
        response = self._rpc.call(PUBLISH, request, timeout=timeout)
        return [Done(id) for id in response.message_ids]

    def close(self) -> None:
        self._closed = True

    def _native(self, message: Outbound) -> Any:
        return wire.encode(message, message.key if self._keyed else None, letter=self._letters)
