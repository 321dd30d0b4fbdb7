"""Drivers that are broken on the way out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from cloudevents_bridge.driver import (
    Connection,
    DeadLetters,
    Done,
    Outbound,
    PublisherDriver,
    ReceiveTraits,
    SendTraits,
    Subscription,
    Topic,
)
from cloudevents_bridge_contract.broken.base import Broken
from cloudevents_bridge_contract.faulty import Outcomes, To

replace = msgspec.structs.replace


class LosesOneInFifty(Broken):
    """Accepts an event now and then and stores nothing."""

    caught_by = "publish.thousand_events_all_arrive"

    def __init__(self) -> None:
        super().__init__()
        self._count = itertools.count(1)

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return [Done("lost") if next(self._count) % 50 == 0 else inner.send([m], timeout=timeout)[0] for m in batch]


class SendsHalfABatch(Broken):
    """Sends the first half of a batch and says that all of it was accepted."""

    caught_by = "publish.native_limit_and_one_over"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        half = (len(batch) + 1) // 2
        done = inner.send(batch[:half], timeout=timeout)
        return [*done, *(Done("never sent") for _ in batch[half:])]


class SwallowsErrors(Broken):
    """Says of a send that failed that it was accepted."""

    caught_by = "publish.missing_topic_is_not_found_on_use"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        try:
            return inner.send(batch, timeout=timeout)
        except Exception:  # noqa: BLE001  this is the fault
            return [Done("swallowed") for _ in batch]


class CountsHalfTheBytes(Broken):
    """Takes events for smaller than they are."""

    caught_by = "envelope.at_the_size_limit_and_one_over"

    def size(self, inner: PublisherDriver, message: Outbound) -> int:
        return len(message.body) // 2


class IgnoresDelay(Broken):
    """Delivers a delayed event at once."""

    caught_by = "publish.delay"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return inner.send([replace(m, delay=0.0) for m in batch], timeout=timeout)


class IgnoresExpiry(Broken):
    """Delivers what has expired."""

    caught_by = "publish.expiry"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return inner.send([replace(m, ttl=None) for m in batch], timeout=timeout)


class IgnoresDeduplication(Broken):
    """Declares deduplication and does none."""

    caught_by = "publish.deduplication"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return inner.send([replace(m, dedup=os.urandom(8).hex()) for m in batch], timeout=timeout)


class LeaksOtherTopics(Broken):
    """Publishes into every topic that was ever published to."""

    caught_by = "consume.no_topic_leaks_into_another"
    _known: ClassVar[dict[str, PublisherDriver]] = {}

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        if isinstance(to, Topic):
            for name, other in list(self._known.items()):
                if name != to.name and (name.startswith(to.name) or to.name.startswith(name)):
                    other.send(batch, timeout=timeout)
            self._known[to.name] = inner
        return inner.send(batch, timeout=timeout)


class DeliversTwice(Broken):
    """Publishes every tenth event twice."""

    caught_by = "consume.consumers_of_one_subscription_share"

    def __init__(self) -> None:
        super().__init__()
        self._count = itertools.count(1)

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        for message in batch:
            if next(self._count) % 10 == 0:
                inner.send([message], timeout=timeout)
        return inner.send(batch, timeout=timeout)


class ReordersKeys(Broken):
    """Sends each batch from its end."""

    caught_by = "order.order_per_key_with_concurrent_consumers"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return list(reversed(inner.send(list(reversed(batch)), timeout=timeout)))


class ForgetsKeys(Broken):
    """Stores the events of an ordered topic without their key: consumers take them side by side."""

    caught_by = "order.key_in_hand_is_held_from_others"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return inner.send([replace(m, key=None) for m in batch], timeout=timeout)


class OneKeyForAll(Broken):
    """Puts every event of an ordered topic under the same key: one that is nacked stops all."""

    caught_by = "order.nacked_key_holds_only_its_own"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return inner.send([replace(m, key="all" if m.key is not None else None) for m in batch], timeout=timeout)


class KeysTheKeyless(Broken):
    """Puts the events without a key under one key."""

    caught_by = "order.events_without_a_key_run_in_parallel"

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return inner.send([replace(m, key=m.key or "none") for m in batch], timeout=timeout)


class ReplaysToAll(Broken):
    """Puts what is for one subscription into the topic."""

    caught_by = "traps.replay_reaches_its_own_subscription_only"

    def open_publisher(self, inner: Connection, to: To) -> PublisherDriver:
        return inner.open_publisher(to.topic if isinstance(to, Subscription) else to)


class ReplayIsADuplicate(Broken):
    """Sends a replay with the deduplication id of the first publish, into the topic: a receipt, and no delivery."""

    caught_by = "traps.replay_within_the_deduplication_window"

    _sent: ClassVar[dict[bytes, str | None]] = {}

    def open_publisher(self, inner: Connection, to: To) -> PublisherDriver:
        return inner.open_publisher(to.topic if isinstance(to, Subscription) else to)

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return inner.send([replace(m, dedup=self._sent.setdefault(m.body, m.dedup)) for m in batch], timeout=timeout)


class CopiesPastTheLimit(Broken):
    """Cannot dead-letter itself, and cuts the copy of a large event."""

    caught_by = "traps.largest_event_with_a_long_reason[native]"

    def receive_traits(self, traits: ReceiveTraits) -> ReceiveTraits:
        return replace(traits, dead=False)

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        if isinstance(to, DeadLetters):
            batch = [replace(m, body=m.body[: 128 * 1024]) for m in batch]
        return inner.send(batch, timeout=timeout)

    def send_traits(self, traits: SendTraits) -> SendTraits:
        return traits
