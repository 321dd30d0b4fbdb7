"""What the memory broker promises at the seam, one promise at a time."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cloudevents_bridge.brokers.memory import MemoryAdapter, MemoryConnection, VirtualClock
from cloudevents_bridge.driver import (
    DEAD_LETTER,
    Capability,
    DeadLetters,
    Done,
    Fault,
    Inbound,
    Outbound,
    Subscription,
    Topic,
    Url,
)
from cloudevents_bridge.errors import ConfigurationError, ErrorCode

TOPIC = Topic("orders")
BILLING = Subscription(TOPIC, "billing", lease=10.0, retention=1_000.0)
AUDIT = Subscription(TOPIC, "audit")


def url(text: str = "memory://") -> Url:
    authority, _, path = text.removeprefix("memory://").partition("/")
    return Url(text, "memory", authority, path and f"/{path}", {})


def messages(*bodies: str, **fields: Any) -> list[Outbound]:
    return [Outbound(body.encode(), {}, **fields) for body in bodies]


def bodies(received: Any) -> list[str]:
    return [message.body.decode() for message in received.messages]


def codes(outcomes: Sequence[Done | Fault]) -> list[ErrorCode | None]:
    return [None if isinstance(outcome, Done) else outcome.code for outcome in outcomes]


class Bench:
    """A connection on a virtual clock, with short words for what the tests do."""

    def __init__(self, *places: Topic | Subscription) -> None:
        self.clock = VirtualClock()
        self.connection: MemoryConnection = MemoryAdapter()(url(), {"clock": self.clock})
        self.apply(*places)

    def apply(self, *places: Topic | Subscription) -> None:
        self.connection.topology.apply(self.connection.topology.diff(places))

    def send(self, to: Any, *outbound: Outbound) -> list[Done]:
        done = self.connection.open_publisher(to).send(outbound, timeout=1.0)
        return [outcome for outcome in done if isinstance(outcome, Done)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(TOPIC, BILLING, AUDIT)
    yield bench
    bench.connection.close()


def test_every_subscription_gets_every_event_in_order_and_shares_its_bytes(bench: Bench) -> None:
    sent = messages("1", "2", "3")
    done = bench.send(TOPIC, *sent)
    assert [outcome.reached for outcome in done] == [2, 2, 2]
    assert len({outcome.id for outcome in done}) == 3
    for of in (BILLING, AUDIT):
        received = bench.connection.open_subscriber(of).receive(10, 0.0)
        assert bodies(received) == ["1", "2", "3"]
        assert all(got.body is put.body for got, put in zip(received.messages, sent, strict=True))


def test_an_event_without_a_subscription_is_accepted_and_says_that_it_reached_nobody(bench: Bench) -> None:
    bench.apply(Topic("alone"))
    assert [done.reached for done in bench.send(Topic("alone"), *messages("1"))] == [0]


def test_a_direct_publisher_reaches_one_subscription(bench: Bench) -> None:
    assert [done.reached for done in bench.send(BILLING, *messages("1"))] == [1]
    assert bodies(bench.connection.open_subscriber(AUDIT).receive(10, 0.0)) == []
    assert bodies(bench.connection.open_subscriber(BILLING).receive(10, 0.0)) == ["1"]


def test_a_released_event_comes_first_again_and_a_failed_one_last(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1", "2", "3", "4"))
    subscriber = bench.connection.open_subscriber(BILLING)
    first = subscriber.receive(3, 0.0).messages
    subscriber.settle("nack", first[:1], timeout=1.0)
    subscriber.settle("release", first[1:], timeout=1.0)
    again = subscriber.receive(10, 0.0)
    assert bodies(again) == ["2", "3", "4", "1"]
    assert [message.attempt for message in again.messages] == [1, 1, 1, 2]


def test_a_lease_ends_at_its_end_and_no_sooner(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1", "2"))
    subscriber = bench.connection.open_subscriber(BILLING)
    first = subscriber.receive(1, 0.0).messages
    bench.clock.advance(9.9)
    assert bodies(subscriber.receive(10, 0.0)) == ["2"]
    bench.clock.advance(0.2)
    [again] = subscriber.receive(10, 0.0).messages
    assert (again.body, again.attempt) == (b"1", 2)
    assert codes(subscriber.settle("ack", first, timeout=1.0)) == [ErrorCode.LEASE_LOST]
    assert isinstance(subscriber.settle("ack", [again], timeout=1.0)[0], Done)


def test_a_lease_that_is_over_is_lost_even_when_nobody_took_the_event(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1"))
    subscriber = bench.connection.open_subscriber(BILLING)
    held = subscriber.receive(1, 0.0).messages
    bench.clock.advance(10.0)
    assert codes(subscriber.settle("ack", held, timeout=1.0)) == [ErrorCode.LEASE_LOST]
    assert bodies(subscriber.receive(1, 0.0)) == ["1"]


def test_one_lost_lease_does_not_stop_the_others_of_a_settle(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1", "2", "3"))
    subscriber = bench.connection.open_subscriber(BILLING)
    held = subscriber.receive(3, 0.0).messages
    subscriber.settle("ack", held[1:2], timeout=1.0)
    kinds = [isinstance(outcome, Done) for outcome in subscriber.settle("ack", held, timeout=1.0)]
    assert kinds == [True, False, True]


@pytest.mark.parametrize("verb", ["ack", "nack", "release", "dead"])
def test_a_delivery_named_twice_in_one_call_is_settled_once(bench: Bench, verb: Any) -> None:
    bench.send(TOPIC, *messages("1"))
    subscriber = bench.connection.open_subscriber(BILLING)
    [held] = subscriber.receive(1, 0.0).messages
    kinds = [isinstance(outcome, Done) for outcome in subscriber.settle(verb, [held, held], timeout=1.0)]
    assert kinds == [True, False]
    assert bench.connection.native.feed(BILLING).size == (1 if verb in {"nack", "release"} else 0)


def test_extend_grants_what_was_asked_for(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1"))
    subscriber = bench.connection.open_subscriber(BILLING)
    held = subscriber.receive(1, 0.0).messages
    assert subscriber.settle("extend", held, seconds=30.0, timeout=1.0) == [Done(lease=30.0)]
    bench.clock.advance(29.0)
    assert bodies(subscriber.receive(1, 0.0)) == []
    assert isinstance(subscriber.settle("ack", held, timeout=1.0)[0], Done)


def test_delays_of_publishing_and_of_nack_are_kept(bench: Bench) -> None:
    bench.send(TOPIC, *messages("late", delay=5.0), *messages("now"))
    subscriber = bench.connection.open_subscriber(BILLING)
    first = subscriber.receive(10, 0.0)
    assert bodies(first) == ["now"]
    subscriber.settle("nack", first.messages, seconds=7.0, timeout=1.0)
    bench.clock.advance(4.9)
    assert bodies(subscriber.receive(10, 0.0)) == []
    bench.clock.advance(0.1)
    assert bodies(subscriber.receive(10, 0.0)) == ["late"]
    bench.clock.advance(2.0)
    assert bodies(subscriber.receive(10, 0.0)) == ["now"]


def test_what_expired_is_not_delivered(bench: Bench) -> None:
    bench.send(TOPIC, *messages("short", ttl=5.0), *messages("long"))
    bench.clock.advance(5.0)
    subscriber = bench.connection.open_subscriber(BILLING)
    assert bodies(subscriber.receive(10, 0.0)) == ["long"]
    subscriber.close()
    bench.clock.advance(995.0)
    assert bodies(bench.connection.open_subscriber(BILLING).receive(10, 0.0)) == []


def test_what_expired_and_nobody_fetches_does_not_pile_up(bench: Bench) -> None:
    publisher = bench.connection.open_publisher(TOPIC)
    for _ in range(100):
        publisher.send(messages(*["x"] * 100, ttl=1.0), timeout=1.0)
        bench.clock.advance(1.0)
    assert bench.connection.native.feed(BILLING).size < 3_000


def test_settled_events_leave_no_trace(bench: Bench) -> None:
    ordered = Topic("sorted", ordered=True, native={"deduplication": 5.0})
    of = Subscription(ordered, "billing")
    bench.apply(ordered, of)
    subscriber = bench.connection.open_subscriber(of)
    parked = Outbound(b"parked", {}, "parked")
    bench.send(ordered, parked)
    held = subscriber.receive(1, 0.0).messages
    for number in range(3_000):
        bench.send(ordered, Outbound(b"x", {}, f"key-{number}", f"id-{number}"))
        subscriber.settle("ack", subscriber.receive(1, 0.0).messages, timeout=1.0)
        bench.clock.advance(0.01)
    feed = bench.connection.native.feed(of)
    assert (feed.size, feed.leased, len(feed._lanes)) == (1, 1, 1)
    assert len(feed._timers) < 1_100
    assert len(bench.connection.native.topics["sorted"]._seen) <= 501
    subscriber.settle("ack", held, timeout=1.0)
    assert not feed._timers


def test_a_dead_letter_keeps_bytes_attributes_and_reason(bench: Bench) -> None:
    bench.send(TOPIC, Outbound(b"\xff\x00", {"a": "b"}))
    subscriber = bench.connection.open_subscriber(BILLING)
    held = subscriber.receive(1, 0.0).messages
    assert isinstance(subscriber.settle("dead", held, reason='{"reason":"no"}', timeout=1.0)[0], Done)
    letters = bench.connection.open_subscriber(DeadLetters(BILLING))
    [letter] = letters.receive(10, 0.0).messages
    assert (letter.body, letter.attributes) == (b"\xff\x00", {"a": "b", DEAD_LETTER: '{"reason":"no"}'})
    assert not letters.traits.dead
    assert codes(letters.settle("dead", [letter], timeout=1.0)) == [ErrorCode.FAILED_PRECONDITION]
    assert [m.body for m in bench.connection.open_subscriber(AUDIT).receive(10, 0.0).messages] == [b"\xff\x00"]
    assert isinstance(letters.settle("ack", [letter], timeout=1.0)[0], Done)


def test_a_dead_letter_outlives_the_retention_of_its_subscription(bench: Bench) -> None:
    bench.apply(TOPIC, BILLING)
    bench.connection.open_publisher(DeadLetters(BILLING)).send(messages("1"), timeout=1.0)
    bench.clock.advance(10 * BILLING.retention)
    assert bodies(bench.connection.open_subscriber(DeadLetters(BILLING)).receive(1, 0.0)) == ["1"]


def test_a_publisher_for_dead_letters_reaches_them(bench: Bench) -> None:
    bench.send(DeadLetters(BILLING), Outbound(b"x", {DEAD_LETTER: "why"}))
    [letter] = bench.connection.open_subscriber(DeadLetters(BILLING)).receive(10, 0.0).messages
    assert letter.attributes[DEAD_LETTER] == "why"


def test_without_its_dead_letter_place_an_event_is_kept_rather_than_dropped(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1"))
    bench.connection.topology.delete(DeadLetters(BILLING))
    subscriber = bench.connection.open_subscriber(BILLING)
    held = subscriber.receive(1, 0.0).messages
    with pytest.raises(LookupError) as caught:
        subscriber.settle("dead", held, timeout=1.0)
    assert bench.connection.classify(caught.value).code is ErrorCode.NOT_FOUND
    assert isinstance(subscriber.settle("ack", held, timeout=1.0)[0], Done)


class TestOrder:
    TOPIC = Topic("sorted", ordered=True)
    OF = Subscription(TOPIC, "billing", lease=10.0)

    @pytest.fixture
    def bench(self) -> Bench:
        return Bench(self.TOPIC, self.OF)

    def send(self, bench: Bench, *bodies: str, **fields: Any) -> None:
        bench.send(self.TOPIC, *(Outbound(b.encode(), {}, None if b[0] == "-" else b[0], **fields) for b in bodies))

    def test_one_delivery_of_a_key_is_out_at_a_time(self, bench: Bench) -> None:
        self.send(bench, "a1", "a2", "b1", "-1", "-2", "b2")
        subscriber = bench.connection.open_subscriber(self.OF)
        first = subscriber.receive(10, 0.0)
        assert bodies(first) == ["a1", "b1", "-1", "-2"]
        assert [message.key for message in first.messages] == ["a", "b", None, None]
        subscriber.settle("ack", first.messages[:1], timeout=1.0)
        assert bodies(subscriber.receive(10, 0.0)) == ["a2"]

    @pytest.mark.parametrize("verb", ["ack", "dead"])
    def test_a_key_goes_on_after_its_head(self, bench: Bench, verb: Any) -> None:
        self.send(bench, "a1", "a2")
        subscriber = bench.connection.open_subscriber(self.OF)
        subscriber.settle(verb, subscriber.receive(10, 0.0).messages, timeout=1.0)
        [following] = subscriber.receive(10, 0.0).messages
        assert (following.body, following.attempt) == (b"a2", 1)

    def test_a_delayed_nack_holds_its_own_key_only(self, bench: Bench) -> None:
        self.send(bench, "a1", "a2", "b1", "b2")
        subscriber = bench.connection.open_subscriber(self.OF)
        first = subscriber.receive(10, 0.0).messages
        subscriber.settle("nack", first[:1], seconds=5.0, timeout=1.0)
        subscriber.settle("ack", first[1:], timeout=1.0)
        assert bodies(subscriber.receive(10, 0.0)) == ["b2"]
        bench.clock.advance(5.0)
        assert bodies(subscriber.receive(10, 0.0)) == ["a1"]

    def test_a_delayed_event_keeps_its_place_in_its_key(self, bench: Bench) -> None:
        self.send(bench, "a1")
        self.send(bench, "a2", delay=5.0)
        self.send(bench, "a3", "b1")
        subscriber = bench.connection.open_subscriber(self.OF)
        subscriber.settle("ack", subscriber.receive(10, 0.0).messages, timeout=1.0)
        assert bodies(subscriber.receive(10, 0.0)) == []
        bench.clock.advance(5.0)
        assert bodies(subscriber.receive(10, 0.0)) == ["a2"]

    def test_an_expired_event_does_not_hold_its_key(self, bench: Bench) -> None:
        self.send(bench, "a1", ttl=2.0)
        self.send(bench, "a2", "a3")
        bench.clock.advance(2.0)
        assert bodies(bench.connection.open_subscriber(self.OF).receive(10, 0.0)) == ["a2"]

    def test_a_key_means_nothing_on_an_unordered_topic(self) -> None:
        bench = Bench(TOPIC, BILLING)
        bench.send(TOPIC, *messages("1", "2", key="a"))
        received = bench.connection.open_subscriber(BILLING).receive(10, 0.0)
        assert bodies(received) == ["1", "2"]
        assert {message.key for message in received.messages} == {None}


def test_a_duplicate_within_the_window_is_accepted_once_and_has_the_first_receipt() -> None:
    topic = Topic("orders", native={"deduplication": 60})
    of = Subscription(topic, "billing")
    bench = Bench(topic, of)
    assert bench.connection.open_publisher(topic).traits.dedup_window == 60.0
    first = bench.send(topic, *messages("1", "1", dedup="x"))
    bench.clock.advance(59.0)
    assert first[0] == first[1] == bench.send(topic, *messages("1", dedup="x"))[0]
    bench.send(topic, *messages("2"), *messages("3", dedup="y"))
    bench.clock.advance(1.0)
    assert bench.send(topic, *messages("4", dedup="x"))[0].id != first[0].id
    bench.send(of, *messages("direct", dedup="x"))
    assert bodies(bench.connection.open_subscriber(of).receive(10, 0.0)) == ["1", "2", "3", "4", "direct"]


def test_duplicates_are_delivered_where_no_window_was_asked_for(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1", "1", dedup="x"))
    assert bodies(bench.connection.open_subscriber(BILLING).receive(10, 0.0)) == ["1", "1"]


def test_closing_a_consumer_gives_back_what_it_held_without_an_attempt(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1", "2", "3"))
    one, two = bench.connection.open_subscriber(BILLING), bench.connection.open_subscriber(BILLING)
    held = one.receive(2, 0.0).messages
    kept = two.receive(1, 0.0).messages
    one.settle("extend", held[1:], seconds=99.0, timeout=1.0)
    one.close()
    one.close()
    again = two.receive(10, 0.0)
    assert bodies(again) == ["1", "2"]
    assert [message.attempt for message in again.messages] == [1, 1]
    assert isinstance(two.settle("ack", kept, timeout=1.0)[0], Done)
    with pytest.raises(Exception, match="closed") as caught:
        one.settle("ack", held, timeout=1.0)
    assert bench.connection.classify(caught.value).code is ErrorCode.CLOSED


def test_a_stopped_consumer_settles_and_receives_nothing_more(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1", "2"))
    subscriber = bench.connection.open_subscriber(BILLING)
    held = subscriber.receive(1, 0.0).messages
    subscriber.stop()
    subscriber.stop()
    assert bodies(subscriber.receive(10, 30.0)) == []
    assert isinstance(subscriber.settle("ack", held, timeout=1.0)[0], Done)


def test_what_does_not_exist_is_missed_on_use_and_not_on_open() -> None:
    connection = Bench().connection
    publisher, subscriber = connection.open_publisher(TOPIC), connection.open_subscriber(BILLING)
    letters = connection.open_subscriber(DeadLetters(BILLING))
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: publisher.send(messages("1"), timeout=1.0), "topic orders"),
        (lambda: subscriber.receive(1, 0.0), "subscription orders/billing"),
        (lambda: letters.receive(1, 0.0), "dead letters of orders/billing"),
        (lambda: connection.open_publisher(BILLING).send(messages("1"), timeout=1.0), "subscription orders/billing"),
    ]
    for call, name in calls:
        with pytest.raises(LookupError, match=f"{name} does not exist on memory://") as caught:
            call()
        fault = connection.classify(caught.value)
        assert (fault.code, fault.retryable, fault.maybe_applied) == (ErrorCode.NOT_FOUND, False, False)
    subscriber.stop()
    subscriber.close()


def test_a_handle_of_a_deleted_subscription_settles_nothing_in_its_successor(bench: Bench) -> None:
    bench.send(TOPIC, *messages("1"))
    subscriber = bench.connection.open_subscriber(BILLING)
    held: Any = subscriber.receive(1, 0.0).messages
    bench.connection.topology.delete(BILLING)
    with pytest.raises(LookupError):
        subscriber.settle("ack", held, timeout=1.0)
    bench.apply(BILLING)
    assert codes(subscriber.settle("ack", held, timeout=1.0)) == [ErrorCode.LEASE_LOST]
    assert bench.connection.native.feed(BILLING).size == 0


def test_a_subscription_that_expires_goes_when_nobody_uses_it(bench: Bench) -> None:
    tail = Subscription(TOPIC, "tail", expires=30.0)
    bench.apply(tail)
    subscriber = bench.connection.open_subscriber(tail)
    for _ in range(3):
        bench.clock.advance(29.0)
        assert [done.reached for done in bench.send(TOPIC, *messages("1"))] == [3]
        subscriber.receive(1, 0.0)
    bench.clock.advance(31.0)
    assert [done.reached for done in bench.send(TOPIC, *messages("1"))] == [2]
    with pytest.raises(LookupError):
        subscriber.receive(1, 0.0)


class TestConnect:
    def test_a_name_is_shared_until_its_last_connection_closes(self) -> None:
        adapter = MemoryAdapter()
        one, two = adapter(url("memory://shop"), {}), adapter(url("memory://shop"), {})
        assert one.native is two.native
        one.topology.apply(one.topology.diff([TOPIC, BILLING]))
        one.close()
        one.close()
        two.open_publisher(TOPIC).send(messages("1"), timeout=1.0)
        three = adapter(url("memory://shop"), {})
        assert bodies(three.open_subscriber(BILLING).receive(1, 0.0)) == ["1"]
        two.close()
        three.close()
        assert adapter(url("memory://shop"), {}).native is not two.native

    def test_no_name_is_private(self) -> None:
        adapter = MemoryAdapter()
        assert adapter(url(), {}).native is not adapter(url(), {}).native

    def test_a_closed_connection_frees_its_store(self) -> None:
        adapter = MemoryAdapter()
        connection = adapter(url("memory://shop"), {})
        connection.topology.apply(connection.topology.diff([TOPIC, BILLING]))
        connection.open_publisher(TOPIC).send(messages("1"), timeout=1.0)
        subscriber = connection.open_subscriber(BILLING)
        held: list[Inbound] = list(subscriber.receive(1, 0.0).messages)
        store = weakref.ref(connection.native)
        connection.close()
        del connection, subscriber, held
        gc.collect()
        assert store() is None

    def test_a_closed_connection_closes_what_it_opened(self, bench: Bench) -> None:
        publisher, subscriber = bench.connection.open_publisher(TOPIC), bench.connection.open_subscriber(BILLING)
        bench.connection.ping(timeout=1.0)
        bench.connection.close()
        calls: list[Callable[[], object]] = [
            lambda: publisher.send(messages("1"), timeout=1.0),
            lambda: subscriber.receive(1, 0.0),
            lambda: bench.connection.open_publisher(TOPIC),
            lambda: bench.connection.ping(timeout=1.0),
        ]
        for call in calls:
            with pytest.raises(Exception, match="closed") as caught:
                call()
            assert bench.connection.classify(caught.value).code is ErrorCode.CLOSED

    def test_a_path_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="memory://shop/orders has a path"):
            MemoryAdapter()(url("memory://shop/orders"), {})

    def test_a_second_clock_is_refused(self) -> None:
        adapter = MemoryAdapter()
        clock = VirtualClock()
        connection = adapter(url("memory://shop"), {"clock": clock})
        assert adapter(url("memory://shop"), {}).native is connection.native
        assert adapter(url("memory://shop"), {"clock": clock}).native is connection.native
        with pytest.raises(ConfigurationError, match="open already"):
            adapter(url("memory://shop"), {"clock": VirtualClock()})

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_starts_with_an_empty_broker(self) -> None:
        adapter = MemoryAdapter()
        connection = adapter(url("memory://shop"), {})
        with adapter._lock:
            child = os.fork()
            if not child:
                fresh = adapter(url("memory://shop"), {})
                os._exit(0 if fresh.native is not connection.native else 1)
        assert os.waitpid(child, 0)[1] == 0

    def test_declares_all_but_filters(self, bench: Bench) -> None:
        assert set(Capability) - bench.connection.capabilities == {Capability.FILTER}

    def test_an_unknown_error_is_not_retried(self, bench: Bench) -> None:
        fault = bench.connection.classify(OSError("odd"))
        assert (fault.code, fault.retryable, fault.message) == (ErrorCode.UNKNOWN, False, "OSError: odd")


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (Outbound(b"", {}), 0),
        (Outbound(b"123", {"ab": "cde"}), 8),
        (Outbound(b"1", {"é": "𝄞"}), 7),
        (Outbound(b"1", {"a": "é", "b": "c"}), 6),
    ],
)
def test_size_is_bytes_on_the_wire(bench: Bench, message: Outbound, size: int) -> None:
    assert bench.connection.open_publisher(TOPIC).size(message) == size
