"""What brokers and libraries are known to get wrong, each as one small story."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Sequence

import msgspec
import pytest

from cloudevents_bridge import BridgeError, Capability, LeaseLostError, PublishError, RetryPolicy
from cloudevents_bridge.driver import (
    Connection,
    DeadLetters,
    Done,
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
from cloudevents_bridge_contract.bench import ONCE, Bench, keys, place
from cloudevents_bridge_contract.faulty import InjectedError, Of, Outcomes, Shim, To, refused, unknown
from cloudevents_bridge_contract.outcomes import NotRun
from cloudevents_bridge_contract.suite.life import start_program
from cloudevents_bridge_contract.suite.order import Seen
from cloudevents_bridge_contract.suite.publish import Limited

QUICK = RetryPolicy(attempts=5, initial=0.01, maximum=0.05)
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


class TrapCases:
    def test_head_that_fails_takes_nobody_along(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True, max_attempts=3)
        events = [bench.event(partitionkey="one") for _ in range(10)]
        bench.publish(topic, *events)
        subscriber = bench.subscriber(topic)
        for _ in range(3):
            with pytest.raises(ValueError, match="always"), bench.one(subscriber, events[0]):
                raise ValueError("always")
        for event in events[1:]:
            delivery = bench.one(subscriber, event)
            assert delivery.attempt == 1
            delivery.ack()
        assert [letter.event for letter in bench.letters(topic, 1)] == events[:1]
        bench.publish(topic, later := bench.event(partitionkey="one"))
        bench.one(subscriber, later).ack()

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

    def test_send_applied_after_its_time_out(self, bench: Bench) -> None:
        """The first send of a key's second event is given up, and takes effect later than its retry may."""

        class Late(Shim):
            def __init__(self) -> None:
                super().__init__()
                self.late: list[threading.Thread] = []
                self.applied = threading.Event()

            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, keys="one_each", sends=4)

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                with self.lock:
                    first = not self.late and any(b"second" in m.body for m in batch)
                    if first:
                        self.late.append(threading.Thread(target=self._apply, args=(inner, list(batch))))
                if not first:
                    return inner.send(batch, timeout=timeout)
                self.late[0].start()
                raise InjectedError(unknown("the request timed out"))

            def _apply(self, inner: PublisherDriver, batch: list[Outbound]) -> None:
                self.applied.wait(2.0)
                inner.send(batch, timeout=5)

        topic = bench.topic(ordered=True)
        words = ["first", "second", "third", "fourth"]
        events = [bench.event(partitionkey="one", data={"word": word}) for word in words]
        shim = Late()
        bench.broker(topic, shim=shim, retry=QUICK).publish_many(topic.name, events)
        shim.applied.set()
        shim.late[0].join()
        seen = Seen()
        subscriber = bench.subscriber(topic)
        while deliveries := subscriber.receive(10, wait=0.5):
            seen.note([d.event for d in deliveries])
            subscriber.ack_many(deliveries)
        seen.expect(events)

    def test_send_with_unknown_outcome_stops_its_key(self, bench: Bench) -> None:
        """Where retries are spent on an unknown outcome, nothing after it may be sent: it may yet be applied."""

        class Mute(Shim):
            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, keys="one_each", sends=4)

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                return [unknown() if b"second" in m.body else inner.send([m], timeout=timeout)[0] for m in batch]

        topic = bench.topic(ordered=True)
        events = [bench.event(partitionkey="one", data={"word": word}) for word in ("first", "second", "third")]
        other = bench.event(partitionkey="other")
        with pytest.raises(PublishError) as caught:
            bench.broker(topic, shim=Mute(), retry=QUICK).publish_many(topic.name, [*events, other])
        failed = {e.id: error.maybe_applied for e, error in caught.value.failed}
        assert failed == {events[1].id: True, events[2].id: False}
        assert sorted(keys(bench.gather(bench.subscriber(topic), 2))) == sorted([events[0].id, other.id])

    def test_throttled_entry_is_not_overtaken_by_its_key(self, bench: Bench) -> None:
        """Entry 2 of a batch is throttled; entry 3, of the same key, must not be first."""

        class Throttling(Shim):
            throttled = False

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                outcomes: list[Done | object] = []
                for message in batch:
                    if b"second" in message.body and not self.throttled:
                        self.throttled = True
                        outcomes.append(refused(ErrorCode.RESOURCE_EXHAUSTED, "slow down", retryable=True))
                    else:
                        outcomes.append(inner.send([message], timeout=timeout)[0])
                return outcomes  # type: ignore[return-value]

            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, keys="one_each")

        topic = bench.topic(ordered=True)
        events = [bench.event(partitionkey="one", data={"word": word}) for word in ("first", "second", "third")]
        bench.broker(topic, shim=Throttling(), retry=QUICK).publish_many(topic.name, events)
        subscriber = bench.subscriber(topic)
        for event in events:
            bench.one(subscriber, event).ack()

    def test_receive_given_up_at_any_instant_loses_nothing(self, bench: Bench) -> None:
        topic = bench.topic(lease=60.0)
        count = bench.many(300)
        events = bench.events(count)
        publisher = bench.publisher(topic)
        ended = threading.Event()

        def publish() -> None:
            try:
                for event in events:
                    publisher.publish(event)
            finally:
                ended.set()

        publishing = threading.Thread(target=publish)
        publishing.start()
        rng = random.Random(7)
        got: list[str] = []
        broker = bench.broker(topic)
        instants = 0
        until = time.monotonic() + 5  # a thousand, or as many as a slow broker has in five seconds
        while not ended.is_set() or (instants < 1000 and time.monotonic() < until):
            subscriber = broker.subscriber(topic.name, topic.subscriptions[0].name)
            for _ in range(rng.randrange(1, 4)):
                instants += 1
                deliveries = subscriber.receive(rng.randrange(1, 20), wait=rng.choice([0.0, 0.0005, 0.002, 0.005]))
                if rng.random() < 0.5:
                    subscriber.ack_many(deliveries)
                    got += keys(deliveries)
            if rng.random() < 0.5:
                instants += 1
                given_up = threading.Thread(target=subscriber.receive, kwargs={"max_events": 20, "wait": 5})
                given_up.start()
                subscriber.close()
                given_up.join()
            subscriber.close()
        publishing.join()
        broker.close()
        fresh = bench.gather(bench.subscriber(topic), count - len(got), patience=2 + bench.rig.wakeup)
        assert sorted([*got, *keys(fresh)]) == sorted(keys(events))

    @pytest.mark.parametrize("how", ["dead_letter", "max_attempts"])
    def test_without_a_dead_letter_place_nothing_is_lost(self, bench: Bench, how: str) -> None:
        topic = bench.topic(max_attempts=2, lease=bench.lease)
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
        bench.one(bench.subscriber(topic), event, patience=2 * bench.lease + bench.rig.patience).ack()

    @pytest.mark.parametrize("shim", [Shim, NoDeadSettle], ids=["native", "copied"])
    def test_largest_event_with_a_long_reason(self, bench: Bench, shim: type[Shim]) -> None:
        topic = bench.topic()
        driver = bench.driver().open_publisher(place(topic))
        limit = min(driver.traits.message_bytes, 256 * 1024)
        probe = Limited(count=1)
        bench.broker(topic, shim=probe).publish(topic.name, small := bench.event(data="x"))
        room = limit - driver.size(probe.sends[0][0])
        event = bench.event(data="x" * (room + 1))
        bench.broker(topic, shim=probe).publish(topic.name, event)
        assert driver.size(probe.sends[1][0]) == limit, "the case does not meet the limit exactly"

        class Tight(shim):  # type: ignore[misc, valid-type]
            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, message_bytes=limit, batch_bytes=limit)

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                if any(inner.size(m) > limit for m in batch):
                    raise InjectedError(refused(ErrorCode.TOO_LARGE, f"over {limit} bytes"))
                return inner.send(batch, timeout=timeout)

        subscriber = bench.subscriber(topic, broker=bench.broker(topic, shim=Tight(), retry=ONCE))
        bench.one(subscriber, small).ack()
        bench.one(subscriber, event).dead_letter(REASON)
        [letter] = bench.letters(topic, 1)
        assert letter.event == event
        native = bench.driver().open_subscriber(place(topic, 0)).traits.dead
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
        class Dying(NoDeadSettle):
            dead = False

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
                self.dead = True
                raise InjectedError(refused(ErrorCode.UNAVAILABLE, "this process is as good as dead"))

            def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
                return _Abandoned(inner.open_subscriber(of))  # its end gives nothing back: it was killed

        topic = bench.topic(lease=bench.lease)
        bench.publish(topic, event := bench.event())
        shim = Dying()
        first = bench.subscriber(topic, broker=bench.broker(topic, shim=shim, retry=ONCE))
        with pytest.raises(BridgeError):
            bench.one(first, event).dead_letter("once")
        assert shim.dead, "no copy was acked"
        assert len(bench.letters(topic, 1)) == 1, "it is not there after the copy"
        second = bench.subscriber(topic, broker=bench.broker(topic, shim=NoDeadSettle()))
        bench.one(second, event, patience=bench.lease + bench.rig.patience).dead_letter("twice")
        [letter] = bench.letters(topic, 1)
        assert letter.event == event
        dead_letters = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        dead_letters.purge([letter.id])
        assert bench.letters(topic, 0) == [], "its twin came up when it was purged"

    @pytest.mark.parametrize("clock", [0, 3600, -3600])
    def test_consumer_stopped_past_its_lease(self, bench: Bench, clock: int) -> None:
        if not hasattr(signal, "SIGSTOP"):
            raise NotRun("no process can be stopped here")
        lease = max(bench.lease, 1.0)
        topic = bench.topic(lease=lease)
        bench.publish(topic, event := bench.event())
        with start_program(bench, "fall_asleep_with_a_delivery", topic, clock=clock) as program:
            assert program.said(bench.rig.patience) == event.id
            program.process.send_signal(signal.SIGSTOP)
            subscriber = bench.subscriber(topic)
            taken = bench.one(subscriber, event, patience=lease + bench.rig.patience)
            assert taken.attempt == 2
            program.process.send_signal(signal.SIGCONT)
            program.tell("go on")
            report = program.said(bench.rig.patience)
            assert report == {"lease_lost": True, "ack": ErrorCode.LEASE_LOST}
            if Capability.EXTEND in bench.capabilities:
                taken.extend(lease)
            taken.nack(delay=0)
        again = bench.one(subscriber, event)
        assert again.attempt == 3, "the stopped consumer's ack took the second one's delivery"
        again.ack()

    def test_moved_clock_loses_no_lease(self, bench: Bench) -> None:
        topic = bench.topic(lease=max(5.0, bench.lease))
        bench.publish(topic, event := bench.event())
        for shift in (3600, -3600):
            with start_program(bench, "fall_asleep_with_a_delivery", topic, clock=shift) as program:
                assert program.said(bench.rig.patience) == event.id
                program.tell("go on")
                assert program.said(bench.rig.patience) == {"lease_lost": False, "ack": "done"}
                program.ended(bench.rig.patience)
            bench.publish(topic, event := bench.event())
        bench.one(bench.subscriber(topic), event).ack()

    def test_same_receipt_twice_in_a_batch(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *bench.events(2))
        subscriber = bench.subscriber(topic)
        one, two = bench.gather(subscriber, 2, ack=False)
        subscriber.ack_many([one, two, one, two])
        bench.nothing(subscriber, 0.2, "both were acked")

    def test_lease_lost_is_said_in_words(self, bench: Bench) -> None:
        topic = bench.topic(lease=bench.lease)
        bench.publish(topic, event := bench.event())
        stale = bench.one(bench.subscriber(topic), event)
        bench.eventually(lambda: stale.lease_lost, "the lease ends", patience=bench.lease + bench.rig.patience)
        with pytest.raises(LeaseLostError) as caught:
            stale.ack()
        assert event.id in str(caught.value)
        assert topic.name in str(caught.value)


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
