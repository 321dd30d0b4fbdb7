"""What brokers and libraries are known to get wrong, each as one small story."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import msgspec
import pytest

from cloudevents_bridge import Capability, Delivery, LeaseLostError, PublishError, Subscriber, Topic
from cloudevents_bridge.driver import (
    Done,
    Outbound,
    PublisherDriver,
    SendTraits,
)
from cloudevents_bridge.errors import ClosedError, ErrorCode
from cloudevents_bridge_contract.bench import QUICK, Bench, keys, native_place
from cloudevents_bridge_contract.faulty import InjectedError, Outcomes, Shim, To, refused, unknown
from cloudevents_bridge_contract.outcomes import NotRun
from cloudevents_bridge_contract.suite.life import start_program
from cloudevents_bridge_contract.suite.order import Seen, _consume


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
        _consume(bench, topic, seen, len(events))
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
        topic = often_given_back(bench, lease=60.0)
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
                given_up = threading.Thread(target=receive_unless_closed, args=(subscriber, 5.0))
                given_up.start()
                subscriber.close()
                given_up.join()
            subscriber.close()
        publishing.join()
        broker.close()
        fresh = bench.subscriber(topic)
        began = last = time.monotonic()
        while len(set(got)) < count and time.monotonic() < min(last + 2 + bench.rig.wakeup, began + 30):
            deliveries = fresh.receive(100, wait=0.5)
            if deliveries:  # some brokers give one at a time; what waits for its lease comes after a minute
                last = time.monotonic()
            fresh.ack_many(deliveries)
            got += keys(deliveries)
        bench.each_once(got + too_often_given_back(bench, topic), keys(events))

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
            with extending(bench, taken, lease):
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


def receive_unless_closed(subscriber: Subscriber, wait: float) -> None:
    """A receive under which the subscriber is closed, or just before it."""
    with suppress(ClosedError):
        subscriber.receive(20, wait=wait)


def often_given_back(bench: Bench, *, lease: float) -> Topic:
    """A topic whose events may be given back often; only where each counts must they be allowed more of them."""
    probe = Topic("orders", subscriptions=["billing"])
    free = bench.driver().open_subscriber(native_place(probe, 0)).traits.free_release
    return bench.topic(lease=lease) if free else bench.topic(lease=lease, max_attempts=30)


def too_often_given_back(bench: Bench, topic: Topic) -> list[str]:
    """The events that were given back so often that no more was allowed: they are dead letters, and not lost."""
    if not bench.rig.most_attempts:
        return []
    letters = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
    return [letter.event.id for letter in letters.find() if letter.event is not None]


@contextmanager
def extending(bench: Bench, delivery: Delivery, lease: float) -> Iterator[None]:
    """Keep a delivery while the block lasts, where the broker can. A lease that is lost all the same is its error."""
    if Capability.EXTEND not in bench.capabilities:
        yield
        return
    over = threading.Event()

    def extend() -> None:
        while not over.wait(lease / 4):
            delivery.extend(lease)

    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(extend)
        try:
            yield
        finally:
            over.set()
    kept.result()
