"""What is known to go wrong with dead letters and their replay."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from cloudevents_bridge import BridgeError, Capability, CloudEvent, Topic
from cloudevents_bridge.driver import (
    Connection,
    DeadLetters,
    Inbound,
    Outbound,
    PublisherDriver,
    Received,
    ReceiveTraits,
    SendTraits,
    SubscriberDriver,
    Verb,
)
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_contract.bench import ONCE, Bench, native_place
from cloudevents_bridge_contract.faulty import InjectedError, Of, Outcomes, Shim, To, refused
from cloudevents_bridge_contract.suite.publish import length_at

REASON = "r\u00e9ason " * 4096
"""More than 32 KiB."""


class NoDeadSettle(Shim):
    """A broker without "dead-letter now": the portable layer publishes a copy to the dead-letter place, then acks."""

    def receive_traits(self, traits: ReceiveTraits) -> ReceiveTraits:
        return msgspec.structs.replace(traits, dead=False)

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
        assert verb != "dead", "a driver that cannot dead-letter was asked to"
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)


class NoDeadPlace(NoDeadSettle):
    """A broker on which the dead-letter place was never made."""

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        if isinstance(to, DeadLetters):
            raise InjectedError(refused(ErrorCode.NOT_FOUND, "no dead-letter place"))
        return inner.send(batch, timeout=timeout)


def at_the_limit(bench: Bench, topic: Topic, shim: type[Shim]) -> tuple[CloudEvent, CloudEvent, Shim]:
    """A small event and one exactly at a limit of size, both published, and a broker that keeps to this limit."""
    limit = min(bench.driver().open_publisher(native_place(topic)).traits.message_bytes, 256 * 1024)
    size = bench.sizes(topic)
    small, event = bench.event(data="x"), bench.event(data="")
    event = event.replace(data="x" * length_at(limit, lambda n: size(event.replace(data="x" * n))))
    assert size(event) == limit, "the case does not meet the limit exactly"
    bench.publish(topic, small)
    bench.publish(topic, event)

    class Tight(shim):  # type: ignore[misc, valid-type]
        def send_traits(self, traits: SendTraits) -> SendTraits:
            return msgspec.structs.replace(traits, message_bytes=limit, batch_bytes=limit)

        def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
            if any(inner.size(m) > limit for m in batch):
                raise InjectedError(refused(ErrorCode.TOO_LARGE, f"over {limit} bytes"))
            return inner.send(batch, timeout=timeout)

    return small, event, Tight()


class Dying(NoDeadSettle):
    """The consumer's process is killed before it can settle anything: its end gives nothing back either.

    Attributes:
        dead: it tried to settle, after the copy to the dead-letter place.
    """

    dead = False

    def settle(
        self, inner: SubscriberDriver, of: Of, verb: Verb, messages: Sequence[Inbound], **how: object
    ) -> Outcomes:
        self.dead = True
        raise InjectedError(refused(ErrorCode.UNAVAILABLE, "this process is as good as dead"))

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return _Abandoned(inner.open_subscriber(of))


class DeadLetterTrapCases:
    def test_replay_within_the_deduplication_window(self, bench: Bench) -> None:
        bench.requires(Capability.DEDUPLICATION, lambda: bench.broker(requires=[Capability.DEDUPLICATION]))
        topic = bench.topic(native_for=Capability.DEDUPLICATION)
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, event).dead_letter("the case wants it dead")
        letters = bench.letters(topic, 1)
        dead_letters = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        bench.requires(Capability.REPLAY, lambda: dead_letters.replay(letters))
        dead_letters.replay(letters)
        bench.one(subscriber, event).ack()
        assert bench.letters(topic, 0) == []

    def test_replay_reaches_its_own_subscription_only(self, bench: Bench) -> None:
        topic = bench.topic(2)
        bench.publish(topic, event := bench.event(data={"\u00fc": [1, None]}, extensions={"myextension": 7}))
        rejecting, other = bench.subscriber(topic), bench.subscriber(topic, 1)
        bench.one(rejecting, event).dead_letter("the case wants it dead")
        bench.one(other, event).ack()
        letters = bench.letters(topic, 1)
        dead_letters = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        bench.requires(Capability.REPLAY, lambda: dead_letters.replay(letters))
        dead_letters.replay(letters)
        bench.one(rejecting, event).ack()
        bench.nothing(other, 0.3, "it was replayed for the other subscription")
        assert bench.letters(topic, 0) == []

    def test_replay_that_gets_no_receipt_keeps_the_dead_letter(self, bench: Bench) -> None:
        class Full(Shim):
            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                raise InjectedError(refused(ErrorCode.RESOURCE_EXHAUSTED, "full"))

        topic = bench.topic()
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, event).dead_letter("the case wants it dead")
        letters = bench.letters(topic, 1)
        broker = bench.broker(topic, shim=Full(), retry=ONCE)
        dead_letters = broker.dead_letters(topic.name, topic.subscriptions[0].name)
        bench.requires(Capability.REPLAY, lambda: dead_letters.replay(letters))
        with pytest.raises(BridgeError):
            dead_letters.replay(letters)
        bench.nothing(subscriber, 0.2, "the replay failed")
        assert [letter.event for letter in bench.letters(topic, 1)] == [event]

    @pytest.mark.parametrize("how", ["dead_letter", "max_attempts"])
    def test_without_a_dead_letter_place_nothing_is_lost(self, bench: Bench, how: str) -> None:
        topic = bench.topic(max_attempts=2, lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, event := bench.event())
        broker = bench.broker(topic, shim=NoDeadPlace(), retry=ONCE)
        subscriber = bench.subscriber(topic, broker=broker)
        delivery = bench.one(subscriber, event)
        if how == "dead_letter":
            with pytest.raises(BridgeError):
                delivery.dead_letter("of no use")
        else:
            delivery.nack(delay=0)
            last = bench.one(subscriber, event)
            with pytest.raises(BridgeError):
                last.nack(delay=0)
        broker.close()
        bench.one(bench.subscriber(topic), event, patience=2 * lease + bench.rig.patience).ack()

    @pytest.mark.parametrize("shim", [Shim, NoDeadSettle], ids=["native", "copied"])
    def test_largest_event_with_a_long_reason(self, bench: Bench, shim: type[Shim]) -> None:
        topic = bench.topic()
        small, event, tight = at_the_limit(bench, topic, shim)
        subscriber = bench.subscriber(topic, broker=bench.broker(topic, shim=tight, retry=ONCE))
        bench.one(subscriber, small).ack()
        bench.one(subscriber, event).dead_letter(REASON)
        [letter] = bench.letters(topic, 1)
        assert letter.event == event
        native = bench.driver().open_subscriber(native_place(topic, 0)).traits.dead
        if native and shim is Shim:  # in a copy there is no room for it
            assert letter.reason[:20] == REASON[:20], "nothing of the reason was kept"

    @pytest.mark.parametrize("shim", [Shim, NoDeadSettle], ids=["native", "copied"])
    def test_undecodable_bytes_die_intact(self, bench: Bench, shim: type[Shim]) -> None:
        topic = bench.topic()
        garbage = bytes(range(256)) * 4
        bench.put(topic, garbage, {"content-type": "application/cloudevents+json", "odd": "\u00fc'\""})
        broker = bench.broker(topic, shim=shim())
        assert bench.subscriber(topic, broker=broker).receive(wait=0.3) == []
        [letter] = bench.letters(topic, 1)
        assert (letter.event, letter.raw.body) == (None, garbage)
        assert letter.raw.attributes["odd"] == "\u00fc'\""

    def test_killed_between_the_copy_and_the_ack(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, event := bench.event())
        shim = Dying()
        first = bench.subscriber(topic, broker=bench.broker(topic, shim=shim, retry=ONCE))
        with pytest.raises(BridgeError):
            bench.one(first, event).dead_letter("once")
        assert shim.dead, "no copy was acked"
        assert len(bench.letters(topic, 1)) == 1, "it is not there after the copy"
        second = bench.subscriber(topic, broker=bench.broker(topic, shim=NoDeadSettle()))
        bench.one(second, event, patience=lease + bench.rig.patience).dead_letter("twice")
        [letter] = bench.letters(topic, 1)
        assert letter.event == event
        dead_letters = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        dead_letters.purge([letter.id])
        assert bench.letters(topic, 0) == [], "its twin came up when it was purged"


class _Abandoned:
    """A subscriber driver of a process that was killed: whatever it holds stays leased until the lease ends."""

    def __init__(self, inner: SubscriberDriver) -> None:
        self._inner = inner
        self.traits = inner.traits

    def receive(self, max_messages: int, wait: float) -> Received:
        return self._inner.receive(max_messages, wait)

    def settle(self, verb: Verb, messages: Sequence[Inbound], **options: object) -> Outcomes:
        return self._inner.settle(verb, messages, **options)  # type: ignore[arg-type]

    def stop(self) -> None:
        self._inner.stop()

    def close(self) -> None:
        return None
