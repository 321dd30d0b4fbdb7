"""Sending: one transfer for each batch, accepted or refused as one."""

from __future__ import annotations

from collections.abc import Sequence
from time import time

from cloudevents_bridge.driver import Done, Fault, Outbound, SendTraits
from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_azure.servicebus import sdk, wire
from cloudevents_bridge_azure.servicebus.links import Pool
from cloudevents_bridge_azure.servicebus.names import Entity
from cloudevents_bridge_azure.servicebus.sdk import Client
from cloudevents_bridge_azure.servicebus.watch import Watch

BATCH_COUNT = 500
BATCH_BYTES = 256 * 1024
"""Bytes of a batch, at most: what every tier takes."""
ENVELOPE = 512
"""Bytes of a batch that the SDK may put around the messages: the ids of the first of them."""
SENDS = 4
"""Links, each with one transfer under way: opened only while as many are."""


class Publisher:
    """Sends to one entity.

    Args:
        keyed: ordering keys count: each message gets a session id, and a batch holds those of one.
        message_bytes: of one message, at most.
        window: seconds within which a second message of the same id is dropped; 0: it is not.
    """

    def __init__(
        self, client: Client, watch: Watch, to: Entity, *, keyed: bool, message_bytes: int, window: float
    ) -> None:
        self.traits = SendTraits(
            batch_count=BATCH_COUNT,
            batch_bytes=min(message_bytes, BATCH_BYTES) - ENVELOPE,
            message_bytes=message_bytes,
            keys="one_key" if keyed else "mixed",
            sends=SENDS,
            dedup_window=window,
        )
        self._to = to
        self._keyed = keyed
        self.closed = False
        self._links = Pool(lambda: client.sender(to), watch, SENDS)

    def size(self, message: Outbound) -> int:
        """Raises:
        InvalidArgumentError: if Service Bus would refuse the message; it names the attribute.
        """
        return wire.size(message, self._session(message))

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        if self.closed:
            raise ClosedError(f"this publisher of {self._to.path} was closed: ask the broker for another")
        session, now = self._session(batch[0]), time()
        first = wire.native(batch[0], session, now=now)
        others = [wire.encode(each, session, now=now) for each in batch[1:]]
        with self._links.one(timeout) as link, link.use(timeout) as sender:
            whole = sdk.batch(sender, first, [each for _, each in others]) if others else first
            sender.send_messages(whole, timeout=timeout)
        return [Done(str(first.message_id)), *(Done(each) for each, _ in others)]

    def close(self) -> None:
        self.closed = True
        self._links.close()

    def _session(self, message: Outbound) -> str | None:
        """The session of a message, and of those beside it in a batch."""
        return wire.session_of(message.key) if self._keyed else None
