"""Drivers that are broken on purpose. Each names the case that must catch it: this is how the suite is tested.

`faulty://loses-one-in-fifty?over=memory://x` is such a broker; `ceb contract` on it shows what a failure looks like.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from cloudevents_bridge.driver import (
    DEAD_LETTER,
    Capability,
    Change,
    Connection,
    DeadLetters,
    Done,
    Fault,
    Inbound,
    Outbound,
    PublisherDriver,
    Received,
    ReceiveTraits,
    SendTraits,
    SubscriberDriver,
    Subscription,
    Topic,
    TopologyDriver,
    Verb,
)
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_contract.faulty import Of, Outcomes, Shim, To, register

replace = msgspec.structs.replace


class Broken(Shim):
    """A driver with one fault.

    Attributes:
        caught_by: the case that must fail on it, with its parameters.
    """

    caught_by: ClassVar[str]


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


class DeclaresTooMuch(Broken):
    """Declares filters and delivers everything."""

    caught_by = "consume.filter"

    def capabilities(self, declared: frozenset[Capability]) -> frozenset[Capability]:
        return declared | {Capability.FILTER}

    def diff(self, inner: TopologyDriver, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        return inner.diff([replace(each, filter=None) if isinstance(each, Subscription) else each for each in wanted])


class RefusesToExtend(Broken):
    """Declares that it extends leases, and refuses to."""

    caught_by = "consume.iteration_extends_the_one_in_hand"

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        if verb == "extend":
            return [Fault(ErrorCode.UNSUPPORTED, retryable=False, maybe_applied=False)] * len(messages)
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)


class MangledBytes(Broken):
    """Reads every message as Latin-1."""

    caught_by = "envelope.text_data[astral]"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, body=m.body.decode("latin-1").encode("utf-8")) for m in got.messages])


class LosesTheContentType(Broken):
    """Drops the content type, so that nobody can tell the form."""

    caught_by = "publish.one_event_arrives_equal"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, attributes={"content-type": "text/plain"}) for m in got.messages])


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


class SharesOneQueue(Broken):
    """Every subscription of a topic consumes from the same queue."""

    caught_by = "consume.two_subscriptions_each_get_all"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return inner.open_subscriber(replace(of, name="alpha") if isinstance(of, Subscription) else of)


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


class SleepsThrough(Broken):
    """Looks for events when its wait is over, not when they come."""

    caught_by = "consume.wait_blocks_and_returns_soon"

    def __init__(self) -> None:
        super().__init__()
        self._never = threading.Event()

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        self._never.wait(min(wait, 2.0))
        return inner.receive(max_messages, 0.0)

    def stop(self, inner: SubscriberDriver) -> None:
        self._never.set()
        inner.stop()


class Spins(Broken):
    """Never waits."""

    caught_by = "consume.empty_wait_is_kept_without_spinning"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        return inner.receive(max_messages, 0.0)


class NeverCounts(Broken):
    """Says of every delivery that it is the first."""

    caught_by = "consume.attempt_is_one_then_two"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, attempt=1) for m in got.messages])


class EatsGarbage(Broken):
    """Acks what it cannot read itself."""

    caught_by = "consume.undecodable_message_is_dead_lettered[1]"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        bad = [m for m in got.messages if not m.body.startswith(b"{")]
        if bad:
            inner.settle("ack", bad, timeout=5)
        return replace(got, messages=[m for m in got.messages if m not in bad])


class Settling(Broken):
    """A driver that is broken in one verb of `settle`."""

    verb: ClassVar[Verb]
    instead: ClassVar[Verb | None] = None

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        if verb != self.verb:
            return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)
        if self.instead is None:
            return [Done(lease=seconds) for _ in messages]
        return inner.settle(self.instead, messages, seconds=0.0, reason="", timeout=timeout)


class AcksNothing(Settling):
    """Says that it acked."""

    caught_by = "settle.ack_is_final"
    verb = "ack"


class NackDrops(Settling):
    """Acks what was nacked."""

    caught_by = "settle.nack_comes_back"
    verb = "nack"
    instead = "ack"


class NackIgnoresDelay(Settling):
    """Gives back at once whatever delay was asked."""

    caught_by = "settle.nack_with_delay_comes_back_no_earlier"
    verb = "nack"
    instead = "nack"


class NeverExtends(Settling):
    """Says that it extended the lease."""

    caught_by = "settle.extend_keeps_it_away"
    verb = "extend"


class DeadLetterDrops(Settling):
    """Acks what shall be dead-lettered."""

    caught_by = "settle.explicit_dead_letter"
    verb = "dead"
    instead = "ack"


class LosesTheReason(Broken):
    """Keeps dead letters without their reason."""

    caught_by = "settle.dead_letter_after_max_attempts"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, attributes=_without(m.attributes, DEAD_LETTER)) for m in got.messages])


class LeasesAreShort(Broken):
    """Promises the declared lease and gives a quarter of it."""

    caught_by = "settle.unsettled_comes_back_after_the_lease"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return inner.open_subscriber(of)

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        if got.messages:
            inner.settle("extend", got.messages, seconds=got.messages[0].lease / 4, timeout=5)
        return got


class OneBadSpoilsAll(Broken):
    """Fails a whole settle for one stale receipt."""

    caught_by = "settle.one_bad_receipt_does_not_spoil_the_batch"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, lease=m.lease * 100) for m in got.messages])

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        outcomes = inner.settle("extend", messages, seconds=1.0, timeout=timeout)
        if verb == "ack" and any(isinstance(o, Fault) for o in outcomes):
            return [Fault(ErrorCode.LEASE_LOST, retryable=False, maybe_applied=False)] * len(messages)
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)


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


class AlwaysDiffers(Broken):
    """Finds a difference however often it is applied."""

    caught_by = "topology.second_apply_is_a_no_op"

    def diff(self, inner: TopologyDriver, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        return [*inner.diff(wanted), *(Change(place, "colour", "red", "blue") for place in wanted[:1])]

    def apply(self, inner: TopologyDriver, changes: Sequence[Change]) -> None:
        inner.apply([change for change in changes if change.setting != "colour"])


class NeverDiffers(Broken):
    """Does not see that a setting changed."""

    caught_by = "topology.difference_is_shown_and_applied"

    def diff(self, inner: TopologyDriver, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        return [change for change in inner.diff(wanted) if change.have is None]


class DeletesNothing(Broken):
    """Says that it deleted."""

    caught_by = "topology.delete_removes"

    def delete(self, inner: TopologyDriver, place: To) -> None:
        return None


class CreatesOnUse(Broken):
    """Makes a topic because somebody publishes to it."""

    caught_by = "topology.plan_apply_verify_delete"

    def open_publisher(self, inner: Connection, to: To) -> PublisherDriver:
        if isinstance(to, Topic):
            inner.topology.apply(inner.topology.diff([to]))
        return inner.open_publisher(to)


class LeavesThreads(Broken):
    """Starts a thread per subscriber, and forgets it."""

    caught_by = "life.closing_leaves_nothing"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        threading.Thread(target=threading.Event().wait, args=(20,), daemon=True).start()
        return inner.open_subscriber(of)


class LeavesFiles(Broken):
    """Opens a file per publisher, and forgets it."""

    caught_by = "life.closing_leaves_nothing"

    def open_publisher(self, inner: Connection, to: To) -> PublisherDriver:
        os.open(os.devnull, os.O_RDONLY)
        return inner.open_publisher(to)


class ConnectsAtOnce(Broken):
    """Starts its threads when it is opened."""

    caught_by = "life.connecting_does_no_io"

    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=threading.Event().wait, args=(5,), daemon=True).start()


class KeepsOnClose(Broken):
    """Gives nothing back when it is closed: what was received waits for its lease."""

    caught_by = "life.unsettled_deliveries_are_given_back_on_close"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return _NeverCloses(inner.open_subscriber(of))

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        if verb == "release":
            return [Done() for _ in messages]
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)

    def close(self, inner: Connection) -> None:
        return None


class DropsWhatNobodyWaitsFor(Broken):
    """Forgets what a short receive brought, until its lease ends."""

    caught_by = "traps.receive_given_up_at_any_instant_loses_nothing"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return _NeverCloses(inner.open_subscriber(of))

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return Received() if wait < 0.001 else got


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


class _NeverCloses:
    def __init__(self, inner: SubscriberDriver) -> None:
        self._inner = inner
        self.traits = inner.traits

    def receive(self, max_messages: int, wait: float) -> Received:
        return self._inner.receive(max_messages, wait)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Outcomes:
        return self._inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)

    def stop(self) -> None:
        self._inner.stop()

    def close(self) -> None:
        return None


def _without(attributes: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in attributes.items() if key != name}


def _hyphenated(kind: type[Broken]) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__).strip("-")


def _leaves(kind: type[Broken]) -> list[type[Broken]]:
    below = kind.__subclasses__()
    return [leaf for each in below for leaf in _leaves(each)] if below else [kind]


BROKEN: dict[str, type[Broken]] = {_hyphenated(kind): kind for kind in _leaves(Broken)}
"""The name in URLs to the driver."""

_make: Callable[[], Shim]
for _name, _make in BROKEN.items():
    register(_name, _make)
