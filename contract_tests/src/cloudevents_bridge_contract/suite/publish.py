"""What `publish`, `publish_many` and `submit` promise."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType

import msgspec
import pytest

from cloudevents_bridge import BridgeError, Capability, CloudEvent, PublishError, Receipt, RetryPolicy
from cloudevents_bridge.driver import Outbound, PublisherDriver, SendTraits
from cloudevents_bridge.errors import (
    ClosedError,
    DeadlineExceededError,
    ErrorCode,
    EventTooLargeError,
    NotFoundError,
    PermissionDeniedError,
)
from cloudevents_bridge_contract.bench import ONCE, Bench, keys, place, together
from cloudevents_bridge_contract.faulty import InjectedError, Outcomes, Shim, To, refused, unknown
from cloudevents_bridge_contract.outcomes import NotRun

QUICK = RetryPolicy(attempts=5, initial=0.01, maximum=0.05)


class Limited(Shim):
    """A broker with limits that are easy to meet exactly."""

    def __init__(self, *, count: int = 10, total: int | None = None) -> None:
        super().__init__()
        self.count, self.total = count, total

    def send_traits(self, traits: SendTraits) -> SendTraits:
        return msgspec.structs.replace(
            traits,
            batch_count=min(self.count, traits.batch_count),
            batch_bytes=traits.batch_bytes if self.total is None else self.total,
            message_bytes=traits.message_bytes if self.total is None else min(self.total, traits.message_bytes),
        )


class Stuck(Shim):
    """A broker that never answers: each send lasts as long as it was given, then its outcome is unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.leave = threading.Event()

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        self.entered.set()
        self.leave.wait(timeout)
        raise InjectedError(unknown("no answer in time"))


class PublishCases:
    def test_one_event_arrives_equal(self, bench: Bench) -> None:
        topic = bench.topic()
        event = bench.event(subject="order/7", time=datetime(2024, 2, 29, 23, 59, 59, 123456, UTC), data={"id": 7})
        receipt = bench.publisher(topic).publish(event)
        assert receipt.event_id == event.id
        subscriber = bench.subscriber(topic)
        delivery = bench.one(subscriber, event)
        assert (delivery.topic, delivery.subscription) == (topic.name, topic.subscriptions[0].name)
        delivery.ack()

    def test_thousand_events_all_arrive(self, bench: Bench) -> None:
        topic = bench.topic()
        events = bench.events(bench.many(1000))
        receipts = bench.publisher(topic).publish_many(iter(events))
        assert [r.event_id for r in receipts] == keys(events)
        arrived = bench.gather(bench.subscriber(topic), len(events), patience=3 * bench.rig.patience)
        assert sorted(keys(arrived)) == sorted(keys(events))

    def test_count_limit_is_met_exactly(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Limited(count=10)
        broker = bench.broker(topic, shim=shim)
        broker.publish_many(topic.name, events := bench.events(10))
        limit = min(10, bench.driver().open_publisher(place(topic)).traits.batch_count)
        assert sorted(map(len, shim.sends)) == _cut(10, limit), "ten events were not cut at the limit"
        shim.sends.clear()
        broker.publish_many(topic.name, more := bench.events(11))
        assert sorted(map(len, shim.sends)) == _cut(11, limit), "eleven events were not cut at the limit"
        bench.gather(bench.subscriber(topic), len(events) + len(more))

    def test_byte_limit_is_met_exactly(self, bench: Bench) -> None:
        topic = bench.topic()
        publisher = bench.driver().open_publisher(place(topic))
        if publisher.traits.batch_count < 5:
            raise NotRun("the broker's batches are smaller than five messages")
        events = [bench.event(id=f"{bench.mark}-{n:04}", data="x" * 100) for n in range(11)]
        probe = Shim()
        bench.broker(topic, shim=probe).publish(topic.name, events.pop())
        size = publisher.size(probe.sends[0][0])
        exact, short = Limited(count=100, total=5 * size), Limited(count=100, total=5 * size - 1)
        bench.broker(topic, shim=exact).publish_many(topic.name, events[:5])
        assert [len(b) for b in exact.sends] == [5], "five events that fit exactly were cut"
        bench.broker(topic, shim=short).publish_many(topic.name, events[5:])
        assert sorted(len(b) for b in short.sends) == [1, 4], "five events that are one byte too many were not cut"
        bench.gather(bench.subscriber(topic), 11)

    def test_native_limit_and_one_over(self, bench: Bench) -> None:
        topic = bench.topic()
        limit = bench.driver().open_publisher(place(topic)).traits.batch_count
        count = limit + 1 if limit <= bench.many(1000) else bench.many(1001)
        bench.publish(topic, *bench.events(min(limit, count)))
        bench.publish(topic, *bench.events(count))
        bench.gather(bench.subscriber(topic), min(limit, count) + count, patience=3 * bench.rig.patience)

    def test_batch_that_is_too_large_is_halved(self, bench: Bench) -> None:
        class Shrinking(Shim):
            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                if len(batch) > 3:
                    raise InjectedError(refused(ErrorCode.TOO_LARGE, "the batch is too large"))
                return inner.send(batch, timeout=timeout)

        topic = bench.topic()
        events = bench.events(20)
        receipts = bench.broker(topic, shim=Shrinking(), retry=QUICK).publish_many(topic.name, events)
        assert [r.event_id for r in receipts] == keys(events)
        bench.gather(bench.subscriber(topic), len(events))

    def test_oversize_event_among_good_ones(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Limited(count=100, total=20_000)
        good = bench.events(6)
        big = bench.event(data="x" * 20_000)
        with pytest.raises(PublishError) as caught:
            bench.broker(topic, shim=shim).publish_many(topic.name, [*good[:3], big, *good[3:]])
        _only_failed(caught.value, big, EventTooLargeError, 7)
        assert big.id in str(caught.value.failed[0][1]) or big.id in str(caught.value), "the error names no event"
        bench.gather(bench.subscriber(topic), len(good))

    def test_partial_failure_is_reported_per_event(self, bench: Bench) -> None:
        class Partial(Shim):
            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                good = [m for m in batch if b"poison" not in m.body]
                done = iter(inner.send(good, timeout=timeout)) if good else iter(())
                return [next(done) if m in good else refused(ErrorCode.INVALID_ARGUMENT, "no poison") for m in batch]

        topic = bench.topic()
        events = bench.events(9)
        events[4] = bad = bench.event(data="poison")
        with pytest.raises(PublishError) as caught:
            bench.broker(topic, shim=Partial(), retry=QUICK).publish_many(topic.name, events)
        _only_failed(caught.value, bad, BridgeError, 9)
        assert caught.value.failed[0][1].code == ErrorCode.INVALID_ARGUMENT
        bench.gather(bench.subscriber(topic), 8)

    def test_only_what_failed_is_sent_again(self, bench: Bench) -> None:
        class Flaky(Shim):
            refusals = 0

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                with self.lock:
                    refuse, self.refusals = self.refusals < 2, self.refusals + 1
                if not refuse:
                    return inner.send(batch, timeout=timeout)
                done = inner.send(batch[:-1], timeout=timeout) if batch[:-1] else ()
                return [*done, refused(ErrorCode.UNAVAILABLE, "busy", retryable=True)]

        topic = bench.topic()
        events = bench.events(9)
        receipts = bench.broker(topic, shim=Flaky(), retry=QUICK).publish_many(topic.name, events)
        assert [r.event_id for r in receipts] == keys(events)
        subscriber = bench.subscriber(topic)
        bench.gather(subscriber, len(events))
        bench.nothing(subscriber, 0.3, "it was sent again although it had been accepted")

    def test_unknown_outcome_is_reported_as_unknown(self, bench: Bench) -> None:
        class Mute(Shim):
            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                inner.send(batch, timeout=timeout)
                return [unknown() for _ in batch]

        topic = bench.topic()
        event = bench.event()
        with pytest.raises(BridgeError) as caught:
            bench.broker(topic, shim=Mute(), retry=ONCE).publish(topic.name, event)
        assert caught.value.maybe_applied, "the event may have been accepted, and the error does not say so"
        bench.one(bench.subscriber(topic), event).ack()

    def test_concurrent_publishers_lose_nothing(self, bench: Bench) -> None:
        topic = bench.topic()
        publisher = bench.publisher(topic)
        each = max(bench.many(400) // 8, 1)
        batches = [bench.events(each) for _ in range(8)]

        def run(number: int) -> None:
            if number % 2:
                publisher.publish_many(batches[number])
            else:
                for event in batches[number]:
                    publisher.publish(event)

        together([lambda n=n: run(n) for n in range(8)])  # type: ignore[misc]
        bench.gather(bench.subscriber(topic), 8 * each, patience=3 * bench.rig.patience)

    def test_submit_flush_close_lose_nothing(self, bench: Bench) -> None:
        topic = bench.topic()
        publisher = bench.publisher(topic)
        half = bench.many(500) // 2
        first = bench.events(half)
        futures = [publisher.submit(e) for e in first]
        publisher.flush()
        assert all(f.done() for f in futures), "flush returned before every event was accepted"
        assert [f.result().event_id for f in futures] == keys(first)
        rest = bench.events(half)
        futures = [publisher.submit(e) for e in rest]
        publisher.close()
        assert [f.result(timeout=0).event_id for f in futures] == keys(rest)
        bench.gather(bench.subscriber(topic), 2 * half, patience=3 * bench.rig.patience)

    def test_submit_puts_events_together(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Shim()
        publisher = bench.broker(topic, shim=shim).publisher(topic.name, linger=0.2)
        events = bench.events(20)
        for event in events:
            publisher.submit(event)
        publisher.flush()
        limit = bench.driver().open_publisher(place(topic)).traits.batch_count
        assert len(shim.sends) <= max(len(events) // limit + 1, 4), f"{len(shim.sends)} sends for {len(events)} events"
        bench.gather(bench.subscriber(topic), len(events))

    def test_submit_that_fails_is_raised_by_flush(self, bench: Bench) -> None:
        class Refusing(Shim):
            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                return [
                    refused(ErrorCode.INVALID_ARGUMENT, "no poison")
                    if b"poison" in m.body
                    else inner.send([m], timeout=timeout)[0]
                    for m in batch
                ]

        topic = bench.topic()
        publisher = bench.broker(topic, shim=Refusing(), retry=QUICK).publisher(topic.name)
        good, bad = bench.event(), bench.event(data="poison")
        futures = [publisher.submit(good), publisher.submit(bad)]
        with pytest.raises(PublishError) as caught:
            publisher.flush()
        assert [e.id for e, _ in caught.value.failed] == [bad.id]
        assert futures[0].result(timeout=0).event_id == good.id
        assert isinstance(futures[1].exception(timeout=0), BridgeError)
        publisher.flush()
        bench.one(bench.subscriber(topic), good).ack()

    def test_missing_topic_is_not_found_on_use(self, bench: Bench) -> None:
        topic = bench.declare(0)
        publisher = bench.publishing(topic, create_missing=False).publisher(topic.name)
        uses: list[Callable[[], object]] = [
            lambda: publisher.publish(bench.event()),
            lambda: publisher.submit(bench.event()).result(timeout=bench.rig.patience),
        ]
        for use in uses:
            with pytest.raises(NotFoundError) as caught:
                use()
            assert topic.name in str(caught.value)
        with pytest.raises(PublishError) as several:
            publisher.publish_many(bench.events(3))
        assert {error.code for _, error in several.value.failed} == {ErrorCode.NOT_FOUND}
        assert len(several.value.failed) == 3
        with pytest.raises(PublishError):
            publisher.flush()

    def test_publish_after_close_is_closed(self, bench: Bench) -> None:
        topic = bench.topic()
        broker = bench.publishing(topic)
        publisher = broker.publisher(topic.name)
        publisher.publish(bench.event())
        publisher.close()
        for use in (publisher.publish, publisher.submit, lambda e: publisher.publish_many([e])):
            with pytest.raises(ClosedError):
                _settled(use(bench.event()))
        broker.close()
        with pytest.raises(ClosedError):
            broker.publish(topic.name, bench.event())

    def test_empty_list_is_a_no_op(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Shim()
        broker = bench.broker(topic, shim=shim)
        assert broker.publish_many(topic.name, []) == []
        assert broker.publisher(topic.name).publish_many(iter(())) == []
        broker.publisher(topic.name).flush()
        assert shim.sends == []
        with bench.broker(topic).subscriber(topic.name, topic.subscriptions[0].name) as subscriber:
            subscriber.ack_many([])

    def test_silent_broker_ends_in_deadline_exceeded(self, bench: Bench) -> None:
        topic = bench.topic()
        publisher = bench.broker(topic, shim=Stuck(), retry=QUICK).publisher(topic.name)
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            publisher.publish(bench.event(), timeout=0.5)
        assert 0.4 < time.monotonic() - began < 2.5, "the time-out of the call was not kept"
        assert topic.name in str(caught.value)

    def test_silent_broker_lets_go_of_close(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Stuck()
        publisher = bench.broker(topic, shim=shim).publisher(topic.name)
        event = bench.event()
        future = publisher.submit(event)
        assert shim.entered.wait(bench.rig.patience)
        began = time.monotonic()
        with pytest.raises(BridgeError) as caught:
            publisher.close(timeout=0.5)
        assert time.monotonic() - began < 2.5, "close did not keep its time-out"
        assert isinstance(caught.value, PublishError), repr(caught.value)
        assert [e.id for e, _ in caught.value.failed] == [event.id], "the event that may be lost is not named"
        shim.leave.set()
        assert isinstance(future.exception(timeout=bench.rig.patience), BridgeError)

    def test_silent_broker_can_be_interrupted(self, bench: Bench) -> None:
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_kill"):
            raise NotRun("a signal reaches the main thread only")
        topic = bench.topic()
        shim = Stuck()
        publisher = bench.broker(topic, shim=shim).publisher(topic.name)
        began = time.monotonic()
        with _interrupted_when(shim.entered), pytest.raises(KeyboardInterrupt):
            publisher.publish(bench.event(), timeout=20)
        assert time.monotonic() - began < 10, "the interrupt had to wait for the broker"
        shim.leave.set()

    def test_broker_that_stops_answering(self, bench: Bench) -> None:
        topic = bench.topic()
        broker = bench.publishing(topic)
        broker.publish(topic.name, before := bench.event())
        with bench.rig.stuck():
            began = time.monotonic()
            with pytest.raises(BridgeError) as caught:
                broker.publish(topic.name, bench.event(), timeout=0.5)
            assert caught.value.code == ErrorCode.DEADLINE_EXCEEDED, repr(caught.value)
            assert time.monotonic() - began < 3
        broker.publish(topic.name, after := bench.event())
        arrived: set[str] = set()
        subscriber = bench.subscriber(topic)

        def both() -> bool:  # the event that timed out may have been applied
            for delivery in subscriber.receive(wait=1):
                arrived.add(delivery.event.id)
                delivery.ack()
            return {before.id, after.id} <= arrived

        bench.eventually(both, "the events around the silence arrive")

    def test_missing_right_is_permission_denied(self, bench: Bench) -> None:
        topic = bench.topic()
        with (
            bench.rig.denied(bench.url, topic) as (url, action),
            bench.rig.publishing_broker(url, topics=[topic]) as broker,
            pytest.raises(PermissionDeniedError) as caught,
        ):
            broker.publish(topic.name, bench.event())
        assert action in str(caught.value), f"the error does not name {action}: {caught.value}"

    def test_delay(self, bench: Bench) -> None:
        topic = bench.topic()
        late, early = bench.event(), bench.event()
        publisher = bench.publisher(topic)
        bench.requires(Capability.DELAY, lambda: publisher.publish(late, delay=1.0))
        began = time.monotonic()
        publisher.publish(late, delay=1.0)
        publisher.publish(early)
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, early).ack()
        delivery = bench.one(subscriber, late)
        assert time.monotonic() - began >= 0.95, "the delayed event came early"
        delivery.ack()

    def test_deduplication(self, bench: Bench) -> None:
        bench.requires(Capability.DEDUPLICATION, lambda: bench.broker(requires=[Capability.DEDUPLICATION]))
        topic = bench.topic(native_for=Capability.DEDUPLICATION)
        event, last = bench.event(), bench.event()
        receipts = [bench.publisher(topic).publish(event) for _ in range(2)]
        assert [r.event_id for r in receipts] == [event.id] * 2
        bench.publish(topic, event)
        bench.publish(topic, last)
        subscriber = bench.subscriber(topic)
        bench.gather(subscriber, 2)
        bench.nothing(subscriber, 0.3, "it was published twice within the window")

    def test_expiry(self, bench: Bench) -> None:
        bench.requires(Capability.EXPIRY, lambda: bench.broker(requires=[Capability.EXPIRY]))
        topic = bench.topic()
        soon = datetime.now(UTC) + timedelta(seconds=0.5)
        late = datetime.now(UTC) + timedelta(hours=1)
        expiring = bench.event(extensions={"expirytime": soon})
        lasting = bench.event(extensions={"expirytime": late})
        bench.publish(topic, expiring, lasting)
        bench.eventually(lambda: datetime.now(UTC) > soon + timedelta(seconds=0.1), "the event's end")
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, lasting).ack()
        bench.nothing(subscriber, 0.3, "it had expired")


def _cut(count: int, limit: int) -> list[int]:
    """The sizes of the batches that so many events make."""
    return sorted([limit] * (count // limit) + [count % limit] * bool(count % limit))


def _only_failed(error: PublishError, event: CloudEvent, kind: type[BridgeError], count: int) -> None:
    assert [(e.id, isinstance(fault, kind)) for e, fault in error.failed] == [(event.id, True)], error.failed
    assert len(error.outcomes) == count
    refused_at = [n for n, outcome in enumerate(error.outcomes) if isinstance(outcome, BridgeError)]
    assert len(refused_at) == 1
    receipts = [outcome for outcome in error.outcomes if isinstance(outcome, Receipt)]
    assert len(receipts) == count - 1
    assert event.id not in {r.event_id for r in receipts}


def _settled(value: object) -> object:
    """The result, if it is a future's."""
    return value.result(timeout=10) if isinstance(value, Future) else value


@contextmanager
def _interrupted_when(ready: threading.Event) -> Iterator[None]:
    """Interrupt the main thread once, as Ctrl-C does, when it is ready."""
    done = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not done.is_set():
            done.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        ready.wait(20)
        while not done.wait(0.05):  # a signal that comes just before a lock is waited for does not end the wait
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        done.set()
        ready.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
