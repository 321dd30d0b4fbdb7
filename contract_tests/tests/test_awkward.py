"""The awkward broker is as awkward as it says: each manner by itself, then the portable layer over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.bindings import PUBSUB
from cloudevents_bridge.brokers.memory import VirtualClock
from cloudevents_bridge.driver import (
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
from cloudevents_bridge_contract.awkward import AwkwardAdapter, AwkwardConnection, stream_of

TOPIC = Topic("orders", ordered=True)
BILLING = Subscription(TOPIC, "billing", lease=10.0)
POLL = 0.2
SOON = 5.0


def url(text: str = "awkward://", **query: str) -> Url:
    return Url(text, "awkward", text.removeprefix("awkward://"), "", query)


class Bench:
    """A connection on a clock that stands still."""

    def __init__(self, **manners: Any) -> None:
        self.clock = VirtualClock()
        options = {"clock": self.clock, "poll": POLL, **manners}
        self.connection: AwkwardConnection = AwkwardAdapter()(url(), options)
        self.connection.topology.apply(self.connection.topology.diff([TOPIC, BILLING]))
        self.publisher = self.connection.open_publisher(TOPIC)
        self.subscriber = self.connection.open_subscriber(BILLING)

    def send(self, *outbound: Outbound) -> Sequence[Done | Fault]:
        return self.publisher.send(outbound, timeout=1.0)

    def receive(self, most: int = 10) -> Sequence[Inbound]:
        return self.subscriber.receive(most, POLL).messages

    def settle(self, verb: Any, messages: Sequence[Inbound], seconds: float = 0.0) -> list[ErrorCode | None]:
        outcomes = self.subscriber.settle(verb, messages, seconds=seconds, timeout=1.0)
        return [None if isinstance(outcome, Done) else outcome.code for outcome in outcomes]

    def refusal(self, call: Callable[[], object]) -> ErrorCode:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - what it means is what `classify` says
            call()
        return self.connection.classify(caught.value).code


@pytest.fixture
def bench() -> Bench:
    return Bench()


def event(body: bytes = b"1", key: str | None = None, **fields: Any) -> Outbound:
    return Outbound(body, {}, key, **fields)


def test_a_batch_holds_no_key_twice(bench: Bench) -> None:
    assert bench.refusal(lambda: bench.send(event(key="a"), event(key="a"))) is ErrorCode.INVALID_ARGUMENT
    assert len(bench.send(event(key="a"), event(key="b"), event(), event())) == 4


def test_a_key_does_not_count_where_nothing_is_ordered(bench: Bench) -> None:
    plain = Topic("plain")
    bench.connection.topology.apply(bench.connection.topology.diff([plain]))
    outcomes = bench.connection.open_publisher(plain).send([event(key="a"), event(key="a")], timeout=1.0)
    assert all(isinstance(outcome, Done) for outcome in outcomes)


def test_a_batch_keeps_to_its_limits() -> None:
    bench = Bench(batch_count=3, batch_bytes=200, message_bytes=150)
    assert bench.publisher.size(Outbound(b"x" * 50, {"ab": "cd"})) == 50 + 64 + 4 + 3
    assert len(bench.send(event(b"x" * 36), event(b"x" * 36))) == 2
    assert bench.refusal(lambda: bench.send(event(b"x" * 36), event(b"x" * 37))) is ErrorCode.TOO_LARGE
    assert bench.refusal(lambda: bench.send(*[event(b"")] * 4)) is ErrorCode.INVALID_ARGUMENT
    assert bench.refusal(bench.send) is ErrorCode.INVALID_ARGUMENT
    [refused] = bench.send(event(b"x" * 87))
    assert isinstance(refused, Fault)
    assert (refused.code, refused.maybe_applied) == (ErrorCode.TOO_LARGE, False)
    assert isinstance(bench.send(event(b"x" * 86))[0], Done)


def test_it_has_no_delay(bench: Bench) -> None:
    assert bench.refusal(lambda: bench.send(event(delay=1.0))) is ErrorCode.INVALID_ARGUMENT
    bench.send(event())
    held = bench.receive()
    assert bench.subscriber.traits.nack_delay == 0
    assert bench.refusal(lambda: bench.settle("nack", held, 1.0)) is ErrorCode.INVALID_ARGUMENT


def test_it_has_no_dead_letter_verb_and_no_way_to_one_subscription(bench: Bench) -> None:
    bench.send(event())
    assert not bench.subscriber.traits.dead
    assert not bench.connection.direct
    assert bench.refusal(lambda: bench.settle("dead", bench.receive())) is ErrorCode.INVALID_ARGUMENT
    assert bench.refusal(lambda: bench.connection.open_publisher(BILLING)) is ErrorCode.INVALID_ARGUMENT
    bench.connection.open_publisher(DeadLetters(BILLING)).send([event(b"dead")], timeout=1.0)
    [letter] = bench.connection.open_subscriber(DeadLetters(BILLING)).receive(1, POLL).messages
    assert letter.body == b"dead"


def test_giving_back_spends_an_attempt(bench: Bench) -> None:
    bench.send(event())
    assert not bench.subscriber.traits.free_release
    bench.settle("release", bench.receive())
    assert [message.attempt for message in bench.receive()] == [2]


@pytest.mark.parametrize("verb", ["ack", "nack", "release"])
def test_a_settle_that_comes_too_late_is_accepted_and_does_nothing(bench: Bench, verb: str) -> None:
    bench.send(event())
    late = bench.receive()
    bench.clock.advance(10.0)
    current = bench.receive()
    assert bench.settle(verb, late) == [None]
    assert not bench.receive()
    assert bench.settle("extend", current, 5.0) == [None]
    assert bench.settle("extend", late, 5.0) == [ErrorCode.LEASE_LOST]


def test_a_lease_has_a_ceiling() -> None:
    bench = Bench(lease_total=25.0)
    bench.send(event())
    held = bench.receive()
    bench.clock.advance(5.0)
    assert bench.subscriber.settle("extend", held, seconds=60.0, timeout=1.0) == [Done(lease=20.0)]
    bench.clock.advance(20.0)
    assert bench.settle("extend", held, 60.0) == [ErrorCode.LEASE_LOST]
    assert len(bench.receive()) == 1


def test_what_was_delivered_too_often_is_dropped() -> None:
    bench = Bench(removes_after=3)
    bench.send(event(key="a"))
    for _ in range(3):
        [message] = bench.receive()
        bench.settle("nack", [message])
    assert message.attempt == bench.subscriber.traits.removes_after == 3
    assert not bench.receive()
    bench.send(event(b"2", key="a"))
    assert [message.body for message in bench.receive()] == [b"2"]
    assert bench.connection.open_subscriber(DeadLetters(BILLING)).traits.removes_after is None


def test_a_receive_cannot_be_cut_short_and_still_brings_what_comes(bench: Bench) -> None:
    feed = bench.connection.native.store.feed(BILLING)
    assert bench.subscriber.traits.wait == (POLL, POLL)
    assert bench.subscriber.traits.stop_within == POLL
    with ThreadPoolExecutor(2) as pool:
        started = time.monotonic()
        idle = pool.submit(bench.subscriber.receive, 1, 0.0)
        while not feed.waiters:
            assert time.monotonic() - started < SOON
        bench.subscriber.stop()
        assert idle.result(SOON).messages == []
        assert time.monotonic() - started >= POLL * 0.9
    bench.send(event())
    assert not bench.receive()

    other = Bench(poll=30.0)
    feed = other.connection.native.store.feed(BILLING)
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        busy = pool.submit(other.subscriber.receive, 1, 30.0)
        while not feed.waiters:
            assert time.monotonic() - started < SOON
        other.subscriber.stop()
        other.send(event())
        assert [message.body for message in busy.result(SOON).messages] == [b"1"]


def test_closing_gives_nothing_back(bench: Bench) -> None:
    bench.send(event())
    assert len(bench.receive()) == 1
    bench.subscriber.close()
    bench.subscriber.close()
    assert bench.refusal(bench.receive) is ErrorCode.CLOSED
    bench.subscriber = bench.connection.open_subscriber(BILLING)
    assert not bench.receive()
    bench.clock.advance(10.0)
    assert [message.attempt for message in bench.receive()] == [2]


def test_a_stream_is_taken_away(bench: Bench) -> None:
    keys = ["a", "b", "c", "d", "e"]
    bench.send(*(event(key.encode(), key) for key in keys))
    held = bench.receive()
    streams = {message.key: message.stream for message in held}
    assert streams == {key: stream_of(key, b"", 4) for key in keys}
    lost = streams["a"]
    assert lost is not None
    mine = [key for key in keys if streams[key] == lost]
    assert 0 < len(mine) < len(keys)
    other = bench.connection.open_subscriber(BILLING)
    bench.connection.native.take_away(BILLING, lost)

    received = bench.subscriber.receive(10, POLL)
    assert (received.messages, received.lost) == ([], [lost])
    assert bench.settle("ack", held) == [None] * len(held)
    assert list(other.receive(10, POLL).lost) == [lost]
    again = other.receive(10, POLL).messages
    assert sorted((message.key, message.attempt) for message in again) == [(key, 2) for key in mine]


def test_a_receive_under_way_says_at_once_that_a_stream_is_lost() -> None:
    bench = Bench(poll=30.0)
    feed = bench.connection.native.store.feed(BILLING)
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        waiting = pool.submit(bench.subscriber.receive, 1, 30.0)
        while not feed.waiters:
            assert time.monotonic() - started < SOON
        bench.connection.native.take_away(BILLING, "stream-1")
        assert list(waiting.result(SOON).lost) == ["stream-1"]


def test_faults_are_for_once_and_come_again_with_the_seed() -> None:
    def run() -> list[str]:
        bench = Bench(fault_rate=0.3, seed=7)
        seen = []
        for _ in range(60):
            try:
                outcomes = bench.send(event(), event())
            except Exception as error:  # noqa: BLE001 - what it means is what `classify` says
                fault = bench.connection.classify(error)
                assert (fault.code, fault.retryable, fault.maybe_applied) == (ErrorCode.UNAVAILABLE, True, False)
                seen.append("call")
                continue
            seen.append(" ".join("done" if isinstance(outcome, Done) else "fault" for outcome in outcomes))
        assert bench.connection.native.store.feed(BILLING).size == " ".join(seen).count("done")
        return seen

    seen = run()
    assert set(seen) == {"call", "done done", "done fault", "fault done", "fault fault"}
    assert run() == seen


def test_a_lost_answer_is_unknown_and_was_applied() -> None:
    bench = Bench(lost_rate=1.0)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it means is what `classify` says
        bench.send(event())
    fault = bench.connection.classify(caught.value)
    assert (fault.code, fault.retryable, fault.maybe_applied) == (ErrorCode.UNAVAILABLE, True, True)
    assert len(bench.receive()) == 1


def test_it_declares_little_and_speaks_binary(bench: Bench) -> None:
    assert bench.connection.capabilities == {"ordering", "extend", "replay", "topology"}
    assert bench.connection.wire is PUBSUB
    with pytest.raises(ConfigurationError, match=r"orders has native settings \(deduplication\)"):
        bench.connection.topology.diff([Topic("orders", native={"deduplication": 5})])


@pytest.mark.parametrize("value", ["-1", "x", "nan", ""])
def test_manners_are_numbers(value: str) -> None:
    with pytest.raises(ConfigurationError, match="poll of awkward:// is"):
        AwkwardAdapter()(url(poll=value), {})


def test_manners_are_options_or_query_keys() -> None:
    connection = AwkwardAdapter()(url(poll="0.5", batch_count="3"), {"batch_count": 4})
    assert connection.open_subscriber(BILLING).traits.wait == (0.5, 0.5)
    assert connection.open_publisher(TOPIC).traits.batch_count == 4
    assert AwkwardAdapter()(url(), {}).open_subscriber(BILLING).traits.stop_within == 5.0


@pytest.fixture
def broker() -> Iterator[ceb.Broker]:
    topic = ceb.Topic("orders", ordered=True, subscriptions=["billing"])
    retry = ceb.RetryPolicy(attempts=20, initial=0.001, maximum=0.01)
    options: dict[str, Any] = {"poll": 0.05, "fault_rate": 0.1, "lost_rate": 0.05, "seed": 1}
    with ceb.connect(f"awkward://{uuid4().hex}", topics=[topic], create_missing=True, retry=retry, **options) as broker:
        yield broker


def test_the_portable_layer_keeps_its_promises_on_it(broker: ceb.Broker) -> None:
    """Every event arrives, and the first deliveries of a key in order, whatever fails on the way."""
    sent = [
        ceb.CloudEvent(type="com.example.n", source="/test", id=str(n), data=n, partitionkey=f"key-{n % 7}")
        for n in range(140)
    ]
    receipts = broker.publish_many("orders", sent)
    assert [receipt.event_id for receipt in receipts] == [each.id for each in sent]
    first: dict[str, list[int]] = {}
    seen: set[str] = set()
    deadline = time.monotonic() + 30.0
    with broker.subscriber("orders", "billing") as subscriber:
        while len(seen) < len(sent):
            assert time.monotonic() < deadline
            for delivery in subscriber.receive(wait=0.2):
                if delivery.event.id not in seen:
                    seen.add(delivery.event.id)
                    first.setdefault(str(delivery.event.partitionkey), []).append(int(delivery.event.id))
                delivery.ack()
    assert all(numbers == sorted(numbers) for numbers in first.values())


def test_a_stream_that_is_taken_away_takes_its_deliveries_along(broker: ceb.Broker) -> None:
    broker.publish("orders", ceb.CloudEvent(type="t", source="/s", id="1", partitionkey="a"))
    with broker.subscriber("orders", "billing") as subscriber:
        [delivery] = subscriber.receive(wait=SOON)
        broker.native.take_away(Subscription(Topic("orders"), "billing"), delivery._inbound.stream)
        [again] = subscriber.receive(wait=SOON)
        assert again.event == delivery.event
        with pytest.raises(ceb.LeaseLostError):
            delivery.ack()
        again.ack()


def test_what_is_not_declared_is_refused() -> None:
    for capability in set(Capability) - {"ordering", "extend", "replay", "topology"}:
        with pytest.raises(ceb.UnsupportedError, match=capability.value):
            ceb.connect("awkward://", requires=[capability])


def test_a_receive_may_bring_several_of_a_key() -> None:
    bench = Bench(groups=1)
    for body in (b"1", b"2", b"3"):
        bench.send(event(body, "a"))
    bench.send(event(b"x", "b"), event(b"y"))
    first = bench.receive(6)
    assert [message.body for message in first] == [b"1", b"2", b"3", b"x", b"y"]
    bench.send(event(b"4", "a"))
    assert bench.receive() == [], "more of a key is handed out while some of it is in hand"
    assert bench.settle("ack", [first[0], *first[3:]]) == [None] * 3
    assert bench.settle("nack", [first[2]]) == [None]
    assert bench.receive() == [], "it is not settled as a whole"
    assert bench.settle("nack", [first[1]]) == [None]
    again = bench.receive(2)
    assert [(message.body, message.attempt) for message in again] == [(b"2", 2), (b"3", 2)]
    bench.clock.advance(11.0)
    last = bench.receive()
    assert [(message.body, message.attempt) for message in last] == [(b"2", 3), (b"3", 3), (b"4", 1)]
    assert bench.settle("ack", last) == [None] * 3
    bench.send(event(b"5", "a"))
    assert [message.body for message in bench.receive()] == [b"5"]
