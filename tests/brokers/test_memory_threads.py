"""The memory broker with real threads and the machine's clock: who is woken, when, and that nothing is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from cloudevents_bridge.brokers.memory import MemoryAdapter, MemoryConnection, VirtualClock
from cloudevents_bridge.driver import Outbound, Received, Subscription, Topic, Url
from cloudevents_bridge.errors import ErrorCode

TOPIC = Topic("orders")
LONG = 60.0
SOON = 5.0


def connect(*places: Topic | Subscription, **options: Any) -> MemoryConnection:
    connection = MemoryAdapter()(Url("memory://", "memory", "", "", {}), options)
    connection.topology.apply(connection.topology.diff(places))
    return connection


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Waiting:
    """A receive that blocks in a thread of its own."""

    def __init__(self, connection: MemoryConnection, of: Subscription, pool: ThreadPoolExecutor, most: int = 1) -> None:
        self.driver = connection.open_subscriber(of)
        feed = connection.native.feed(of)
        before = feed.waiters
        self.result: Future[Received] = pool.submit(self.driver.receive, most, LONG)
        until(lambda: feed.waiters > before)

    def bodies(self) -> list[bytes]:
        return [message.body for message in self.result.result(SOON).messages]


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_a_send_wakes_one_consumer_for_one_event(pool: ThreadPoolExecutor) -> None:
    of = Subscription(TOPIC, "billing")
    connection = connect(TOPIC, of)
    both = [Waiting(connection, of, pool), Waiting(connection, of, pool)]
    publisher = connection.open_publisher(TOPIC)
    publisher.send([Outbound(b"1", {})], timeout=1.0)
    until(lambda: any(each.result.done() for each in both))
    assert connection.native.feed(of).waiters == 1
    publisher.send([Outbound(b"2", {})], timeout=1.0)
    assert sorted(each.bodies()[0] for each in both) == [b"1", b"2"]
    connection.close()


@pytest.mark.parametrize("what", ["delay", "nack", "lease", "extend", "release", "ack of the key", "close"])
def test_a_consumer_wakes_when_something_becomes_ready(pool: ThreadPoolExecutor, what: str) -> None:
    topic = Topic("orders", ordered=True)
    of = Subscription(topic, "billing", lease=0.2 if what == "lease" else 30.0)
    connection = connect(topic, of)
    publisher, holder = connection.open_publisher(topic), connection.open_subscriber(of)
    publisher.send([Outbound(b"1", {}, "a", delay=0.2 if what == "delay" else 0.0)], timeout=1.0)
    held = holder.receive(1, 0.0).messages if what != "delay" else ()
    if what == "ack of the key":
        publisher.send([Outbound(b"1", {}, "a")], timeout=1.0)
    waiting = Waiting(connection, of, pool)
    started = time.monotonic()
    if what == "close":
        holder.close()
    elif what in {"nack", "extend", "release"}:
        holder.settle(what, held, seconds=0.1, timeout=1.0)  # type: ignore[arg-type]
    elif what == "ack of the key":
        holder.settle("ack", held, timeout=1.0)
    assert waiting.bodies() == [b"1"]
    assert time.monotonic() - started < SOON
    connection.close()


def test_a_shorter_lease_wakes_a_consumer_that_slept_for_a_longer_one(pool: ThreadPoolExecutor) -> None:
    of = Subscription(TOPIC, "billing", lease=30.0)
    connection = connect(TOPIC, of)
    holder = connection.open_subscriber(of)
    connection.open_publisher(TOPIC).send([Outbound(b"1", {})], timeout=1.0)
    waiting_for = holder.receive(1, 0.0).messages
    waiting = Waiting(connection, of, pool)
    holder.settle("extend", waiting_for, seconds=0.05, timeout=1.0)
    assert waiting.bodies() == [b"1"]
    connection.close()


def test_stop_wakes_a_blocked_receive_within_its_promise_and_passes_its_event_on(pool: ThreadPoolExecutor) -> None:
    of = Subscription(TOPIC, "billing")
    connection = connect(TOPIC, of)
    one, two = Waiting(connection, of, pool), Waiting(connection, of, pool)
    with connection.native.lock:
        connection.open_publisher(TOPIC).send([Outbound(b"1", {})], timeout=1.0)
        one.driver.stop()
    assert one.bodies() == []
    assert two.bodies() == [b"1"]
    connection.close()


@pytest.mark.parametrize("end", ["close", "delete"])
def test_a_receive_ends_when_what_it_reads_goes(pool: ThreadPoolExecutor, end: str) -> None:
    of = Subscription(TOPIC, "billing")
    connection = connect(TOPIC, of)
    waiting = Waiting(connection, of, pool)
    if end == "close":
        connection.close()
    else:
        connection.topology.delete(TOPIC)
    error = waiting.result.exception(SOON)
    assert error is not None
    assert connection.classify(error).code is (ErrorCode.CLOSED if end == "close" else ErrorCode.NOT_FOUND)


def test_a_wait_that_is_over_brings_nothing() -> None:
    of = Subscription(TOPIC, "billing")
    connection = connect(TOPIC, of)
    started = time.monotonic()
    assert connection.open_subscriber(of).receive(1, 0.05) == Received([])
    assert 0.04 < time.monotonic() - started < SOON


def test_an_idle_wait_is_not_woken_by_what_was_acked(pool: ThreadPoolExecutor) -> None:
    """A timer of a settled delivery is forgotten: the next wake-up is the one that counts."""
    of = Subscription(TOPIC, "billing", lease=30.0)
    connection = connect(TOPIC, of)
    subscriber = connection.open_subscriber(of)
    connection.open_publisher(TOPIC).send([Outbound(b"1", {}), Outbound(b"2", {})], timeout=1.0)
    first, second = subscriber.receive(1, 0.0).messages, subscriber.receive(1, 0.0).messages
    subscriber.settle("extend", second, seconds=500.0, timeout=1.0)
    subscriber.settle("ack", first, timeout=1.0)
    feed = connection.native.feed(of)
    due = feed.next_due()
    assert due is not None
    assert due - connection.native.clock.now() > 400.0
    connection.close()


def test_a_subscription_does_not_expire_while_a_receive_waits_on_it(pool: ThreadPoolExecutor) -> None:
    of = Subscription(TOPIC, "tail", expires=30.0)
    clock = VirtualClock()
    connection = connect(TOPIC, of, clock=clock)
    waiting = Waiting(connection, of, pool)
    clock.advance(31.0)
    connection.open_publisher(TOPIC).send([Outbound(b"1", {})], timeout=1.0)
    assert waiting.bodies() == [b"1"]
    connection.close()


def test_many_threads_lose_nothing_and_deliver_nothing_twice() -> None:
    topic = Topic("orders", ordered=True)
    of = Subscription(topic, "billing")
    connection = connect(topic, of)
    publishers, each, consumers = 4, 500, 4
    got: Counter[bytes] = Counter()
    order: dict[str, list[int]] = {}
    taken = threading.Lock()

    def publish(number: int) -> None:
        publisher = connection.open_publisher(topic)
        for event in range(0, each, 10):
            batch = [Outbound(f"{number}:{event + n}".encode(), {}, f"key-{number}") for n in range(10)]
            publisher.send(batch, timeout=1.0)

    def consume() -> None:
        subscriber = connection.open_subscriber(of)
        while sum(got.values()) < publishers * each:
            messages = subscriber.receive(7, 0.05).messages
            with taken:
                got.update(message.body for message in messages)
                for message in messages:
                    order.setdefault(message.key or "", []).append(int(message.body.split(b":")[1]))
            subscriber.settle("ack", messages, timeout=1.0)

    with ThreadPoolExecutor(publishers + consumers) as pool:
        done = [pool.submit(consume) for _ in range(consumers)]
        done += [pool.submit(publish, number) for number in range(publishers)]
        for future in done:
            future.result(30.0)
    assert len(got) == publishers * each
    assert set(got.values()) == {1}
    assert all(numbers == sorted(numbers) for numbers in order.values())
    connection.close()


class TestVirtualClock:
    OF = Subscription(TOPIC, "billing", lease=30.0)

    def test_a_receive_that_waits_jumps_to_the_next_delay(self) -> None:
        clock = VirtualClock(0.0)
        connection = connect(TOPIC, self.OF, clock=clock)
        connection.open_publisher(TOPIC).send([Outbound(b"1", {}, delay=3_000.0)], timeout=1.0)
        subscriber = connection.open_subscriber(self.OF)
        assert subscriber.receive(1, 0.0).messages == []
        started = time.monotonic()
        assert len(subscriber.receive(1, 3_600.0).messages) == 1
        assert time.monotonic() - started < SOON
        assert clock.now() == 3_000.0

    def test_it_does_not_jump_past_the_wait(self) -> None:
        clock = VirtualClock(0.0)
        connection = connect(TOPIC, self.OF, clock=clock)
        connection.open_publisher(TOPIC).send([Outbound(b"1", {}, delay=3_000.0)], timeout=1.0)
        assert connection.open_subscriber(self.OF).receive(1, 0.01).messages == []
        assert clock.now() == 0.0

    def test_it_does_not_jump_while_a_delivery_is_out_and_does_once_it_is_settled(
        self, pool: ThreadPoolExecutor
    ) -> None:
        clock = VirtualClock(0.0)
        connection = connect(TOPIC, self.OF, clock=clock)
        connection.open_publisher(TOPIC).send([Outbound(b"1", {}), Outbound(b"2", {}, delay=50.0)], timeout=1.0)
        holder = connection.open_subscriber(self.OF)
        held = holder.receive(1, 0.0).messages
        waiting = Waiting(connection, self.OF, pool)
        assert clock.now() == 0.0
        holder.settle("ack", held, timeout=1.0)
        assert waiting.bodies() == [b"2"]
        assert clock.now() == 50.0

    def test_an_advance_wakes_who_waits(self, pool: ThreadPoolExecutor) -> None:
        clock = VirtualClock(0.0)
        connection = connect(TOPIC, self.OF, clock=clock)
        connection.open_publisher(TOPIC).send([Outbound(b"1", {})], timeout=1.0)
        connection.open_subscriber(self.OF).receive(1, 0.0)
        waiting = Waiting(connection, self.OF, pool)
        clock.advance(30.0)
        connection.native.wake()
        assert waiting.bodies() == [b"1"]
