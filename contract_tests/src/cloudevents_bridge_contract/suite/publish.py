"""What `publish`, `publish_many` and `submit` promise."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cloudevents_bridge import BridgeError, Capability, CloudEvent, PublishError, Receipt
from cloudevents_bridge.driver import SendTraits
from cloudevents_bridge.errors import (
    ClosedError,
    ErrorCode,
    EventTooLargeError,
    NotFoundError,
)
from cloudevents_bridge_contract.bench import Bench, keys, native_place, together
from cloudevents_bridge_contract.faulty import Shim
from cloudevents_bridge_contract.outcomes import NotRun


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


def length_at(limit: int, size: Callable[[int], int]) -> int:
    """The greatest length of data with which a message is not over the limit. `size`, its bytes, grows with the length,
    and not always by as much: there is base64, and there are lengths before what they measure.
    """
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= limit else (low, middle - 1)
    return low


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
        limit = min(10, bench.driver().open_publisher(native_place(topic)).traits.batch_count)
        assert sorted(map(len, shim.sends)) == _cut(10, limit), "ten events were not cut at the limit"
        shim.sends.clear()
        broker.publish_many(topic.name, more := bench.events(11))
        assert sorted(map(len, shim.sends)) == _cut(11, limit), "eleven events were not cut at the limit"
        bench.gather(bench.subscriber(topic), len(events) + len(more))

    def test_byte_limit_is_met_exactly(self, bench: Bench) -> None:
        topic = bench.topic()
        publisher = bench.driver().open_publisher(native_place(topic))
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
        limit = bench.driver().open_publisher(native_place(topic)).traits.batch_count
        count = limit + 1 if limit <= bench.many(1000) else bench.many(1001)
        bench.publish(topic, *bench.events(min(limit, count)))
        bench.publish(topic, *bench.events(count))
        bench.gather(bench.subscriber(topic), min(limit, count) + count, patience=3 * bench.rig.patience)

    def test_oversize_event_among_good_ones(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Limited(count=100, total=20_000)
        good = bench.events(6)
        big = bench.event(data="x" * 20_000)
        with pytest.raises(PublishError) as caught:
            bench.broker(topic, shim=shim).publish_many(topic.name, [*good[:3], big, *good[3:]])
        only_failed(caught.value, big, EventTooLargeError, 7)
        assert big.id in str(caught.value.failed[0][1]) or big.id in str(caught.value), "the error names no event"
        bench.gather(bench.subscriber(topic), len(good))

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
        limit = bench.driver().open_publisher(native_place(topic)).traits.batch_count
        most = max(len(events) // limit + 1, len(events) // 2)  # what comes while sends are under way is sent soon
        assert len(shim.sends) <= most, f"{len(shim.sends)} sends for {len(events)} events"
        bench.gather(bench.subscriber(topic), len(events))

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


def only_failed(error: PublishError, event: CloudEvent, kind: type[BridgeError], count: int) -> None:
    """The one event, and no other, was refused with an error of that kind."""
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
