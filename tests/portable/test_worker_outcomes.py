"""What becomes of a delivery whose handler returned or raised."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from scripted import Scripted, busy, event, refused, until, work_off

from cloudevents_bridge import (
    BridgeError,
    Broker,
    CloudEvent,
    DecodeError,
    Delivery,
    Reject,
    Retry,
    RetryPolicy,
    Router,
    Subscription,
    Topic,
)
from cloudevents_bridge.delivery import Postponed
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge.obituary import read
from cloudevents_bridge.types import Stats

Opened = Callable[..., Broker]
ORDERS = Topic("orders", subscriptions=[Subscription("billing", redelivery=RetryPolicy(initial=0.0, maximum=0.0))])


@pytest.fixture
def broker(opened: Opened) -> Broker:
    return opened(topics=[ORDERS])


def run(broker: Broker, handler: Any, **options: Any) -> Stats:
    """Work on what there is."""
    return work_off(broker.worker().add("orders", "billing", handler, **options), broker.native)


def test_a_handler_that_returns_acks(broker: Broker, scripted: Scripted) -> None:
    scripted.put(event("1", data={"n": 1}))
    seen: list[CloudEvent] = []
    stats = run(broker, seen.append)
    assert seen == [event("1", data={"n": 1})]
    assert [(s.verb, s.ids) for s in scripted.settles] == [("ack", ["1"])]
    assert (stats.handled, stats.failed, stats.dead_lettered, stats.in_flight, stats.stalled) == (1, 0, 0, 0, 0)
    assert stats.last_event is not None


def test_an_ack_does_not_wait_for_a_handler_that_goes_on(broker: Broker, scripted: Scripted) -> None:
    """It waits for company, and for a moment only: nothing else happens that could remind of it."""
    both, over = threading.Barrier(2), threading.Event()

    def handle(event: CloudEvent) -> None:
        both.wait(60)
        if event.id == "long":
            over.wait(60)

    scripted.put(event("long"))
    scripted.put(event("short"))
    with broker.worker().add("orders", "billing", handle, concurrency=2):
        try:
            until(lambda: [each.ids for each in scripted.settles] == [["short"]])
        finally:
            over.set()


def test_an_exception_gives_back_and_the_event_runs_again(broker: Broker, scripted: Scripted) -> None:
    scripted.put(event())
    attempts: list[int] = []

    def handle(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if delivery.attempt < 3:
            raise ValueError

    stats = run(broker, handle)
    assert attempts == [1, 2, 3]
    assert scripted.verbs() == ["nack", "nack", "ack"]
    assert (stats.handled, stats.failed) == (1, 2)


def test_the_back_off_grows_with_the_attempt(
    opened: Opened, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    scripted.receive_traits = _with_delay(scripted)
    policy = RetryPolicy(attempts=None, initial=2.0, maximum=60.0)
    topics = [Topic("orders", subscriptions=[Subscription("billing", redelivery=policy, max_attempts=9)])]
    for attempt in (1, 2, 3, 7):
        scripted.put(event(str(attempt)), attempt=attempt)
    with opened(topics=topics).worker().add("orders", "billing", _fails):
        until(lambda: len(scripted.settles) >= 4)
    assert [settled.seconds for settled in scripted.settles[:4]] == [2.0, 4.0, 8.0, 60.0]


def _with_delay(scripted: Scripted) -> Any:
    return msgspec.structs.replace(scripted.receive_traits, nack_delay=900.0)


def _fails(event: CloudEvent) -> None:
    raise ValueError("it fails")


def test_a_delay_shorter_than_the_shortest_native_one_is_held(opened: Any, scripted: Scripted) -> None:
    def handle(delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise Retry(0.2)

    scripted.receive_traits = msgspec.structs.replace(_with_delay(scripted), nack_least=10.0)
    scripted.put(event())
    with opened(topics=[Topic("orders", subscriptions=["billing"])]).worker().add("orders", "billing", handle):
        until(lambda: scripted.verbs() == ["ack"])
    assert scripted.settles[0].seconds == 0.0


def test_the_last_attempt_that_fails_is_dead_lettered_with_its_error(broker: Broker, scripted: Scripted) -> None:
    scripted.put(event(), attempt=5)
    stats = run(broker, _fails)
    said = read(scripted.settles[-1].reason)
    assert scripted.verbs() == ["dead"]
    assert said.reason == "5 runs failed, and max_attempts is 5"
    assert (said.error, said.attempts) == ("ValueError: it fails", 5)
    assert (stats.handled, stats.failed, stats.dead_lettered) == (0, 1, 1)


def test_reject_is_dead_lettered_at_once_with_its_reason(broker: Broker, scripted: Scripted) -> None:
    def handle(event: CloudEvent) -> None:
        raise Reject("no such customer")

    scripted.put(event())
    run(broker, handle)
    assert scripted.verbs() == ["dead"]
    assert read(scripted.settles[0].reason).reason == "no such customer"


def test_data_that_is_not_what_the_handler_asks_for_is_a_reject(broker: Broker, scripted: Scripted) -> None:
    def handle(data: list[int]) -> None:
        raise AssertionError("it is not run")

    scripted.put(event(data={"n": 1}))
    run(broker, handle)
    assert scripted.verbs() == ["dead"]


def test_data_that_is_not_what_a_batch_handler_asks_for_is_a_reject_of_that_event(
    broker: Broker, scripted: Scripted
) -> None:
    def handle(deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            delivery.event.data_as(list[int])

    for id, data in [("1", [1]), ("2", {"n": 1}), ("3", [3])]:
        scripted.put(event(id, data=data))
    run(broker, handle, batch=3)
    [dead] = [settled for settled in scripted.settles if settled.verb == "dead"]
    assert dead.ids == ["2"]
    assert "data of event '2'" in read(dead.reason).reason
    assert sorted(id for settled in scripted.settles if settled.verb == "ack" for id in settled.ids) == ["1", "3"]


def test_what_else_a_handler_cannot_decode_is_a_failure_like_any(broker: Broker, scripted: Scripted) -> None:
    def handle(delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise DecodeError("the answer of another service is no JSON")

    scripted.put(event())
    run(broker, handle)
    assert scripted.verbs() == ["nack", "ack"]


def test_an_event_that_is_postponed_has_not_failed(
    opened: Opened, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """It is held here, also where the broker could do it: to give it back would spend attempts."""
    topics = [Topic("orders", subscriptions=[Subscription("billing", max_attempts=2)])]
    scripted.put(event())
    attempts: list[int] = []

    def handle(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if len(attempts) < 8:
            raise Postponed(0.0, "another run is handling the event")

    with caplog.at_level(logging.INFO, logger="cloudevents_bridge"):
        stats = run(opened(topics=topics), handle)
    assert scripted.verbs() == ["ack"]
    assert attempts == [1] * 8
    assert (stats.handled, stats.failed, stats.dead_lettered) == (1, 0, 0)
    [first, *_] = [record for record in caplog.records if "was not run" in record.getMessage()]
    assert first.levelno == logging.INFO
    assert "(another run is handling the event); it runs again in about 0 s" in first.getMessage()


def test_retry_says_how_long_to_wait(broker: Broker, scripted: Scripted) -> None:
    scripted.receive_traits = _with_delay(scripted)
    scripted.put(event())

    def handle(delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise Retry(61.5)

    run(broker, handle)
    assert [(settled.verb, settled.seconds) for settled in scripted.settles] == [("nack", 61.5), ("ack", 0.0)]


def test_a_retry_the_broker_cannot_make_is_held_and_runs_again_here(broker: Broker, scripted: Scripted) -> None:
    scripted.put(event())
    runs: list[tuple[int, Delivery]] = []

    def handle(delivery: Delivery) -> None:
        runs.append((delivery.attempt, delivery))
        if delivery.attempt < 3:
            raise Retry(0.02)
        with pytest.raises(BridgeError, match="settle a delivery once"):
            runs[0][1].ack()

    run(broker, handle)
    assert [attempt for attempt, _ in runs] == [1, 2, 3]
    assert scripted.verbs() == ["ack"]


def test_what_a_handler_settles_by_itself_is_left_alone(broker: Broker, scripted: Scripted) -> None:
    def handle(delivery: Delivery) -> None:
        if delivery.event.id == "ack":
            delivery.ack()
        elif delivery.event.id == "dead":
            delivery.dead_letter("by hand")
        elif delivery.attempt == 1:
            delivery.nack(delay=0)

    for id in ("ack", "dead", "nack"):
        scripted.put(event(id))
    stats = run(broker, handle)
    assert [(s.verb, s.ids) for s in scripted.settles] == [
        ("ack", ["ack"]),
        ("dead", ["dead"]),
        ("nack", ["nack"]),
        ("ack", ["nack"]),
    ]
    assert (stats.handled, stats.failed, stats.dead_lettered) == (2, 2, 1)


def test_what_raises_after_it_settled_stays_settled(broker: Broker, scripted: Scripted) -> None:
    def handle(delivery: Delivery) -> None:
        delivery.ack()
        raise ValueError

    scripted.put(event())
    run(broker, handle)
    assert scripted.verbs() == ["ack"]


def test_what_cannot_be_decoded_is_dead_lettered_and_the_next_one_runs(broker: Broker, scripted: Scripted) -> None:
    scripted.put(b"no event")
    scripted.put(event("2"))
    seen: list[str] = []
    stats = run(broker, lambda event: seen.append(event.id))
    assert seen == ["2"]
    assert sorted(scripted.verbs()) == ["ack", "dead"]
    assert (stats.handled, stats.dead_lettered) == (1, 1)


def test_a_batch_is_acked_when_the_handler_returns_except_what_it_settled(broker: Broker, scripted: Scripted) -> None:
    sizes: list[int] = []

    def handle(deliveries: list[Delivery]) -> None:
        sizes.append(len(deliveries))
        for delivery in deliveries:
            if delivery.event.id == "3" and delivery.attempt == 1:
                delivery.nack(delay=0)

    for n in range(12):
        scripted.put(event(str(n)))
    stats = run(broker, handle, batch=4)
    assert max(sizes) > 1
    assert max(sizes) <= 4
    acked = [id for settled in scripted.settles if settled.verb == "ack" for id in settled.ids]
    assert sorted(acked, key=int) == [str(n) for n in range(12)]
    assert (stats.handled, stats.failed) == (12, 1)


def test_a_batch_is_given_back_when_the_handler_raises(broker: Broker, scripted: Scripted) -> None:
    def handle(deliveries: list[Delivery]) -> None:
        if deliveries[0].attempt == 1:
            raise ValueError

    for n in range(3):
        scripted.put(event(str(n)))
    run(broker, handle, batch=10)
    settled = [(settled.verb, id) for settled in scripted.settles for id in settled.ids]
    assert sorted(settled) == [(verb, str(n)) for verb in ("ack", "nack") for n in range(3)]


def test_an_async_handler_is_awaited(broker: Broker, scripted: Scripted) -> None:
    import asyncio

    seen: list[str] = []

    async def handle(event: CloudEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event.id)
        if event.id == "2":
            raise Reject("bad")

    for n in range(4):
        scripted.put(event(str(n)))
    stats = run(broker, handle, concurrency=3)
    assert sorted(seen) == ["0", "1", "2", "3"]
    assert (stats.handled, stats.dead_lettered) == (3, 1)


def test_a_router_takes_each_type_to_its_handler(broker: Broker, scripted: Scripted) -> None:
    router, seen = Router(), list[str]()

    @router.on("com.example.test")
    def handle(event: CloudEvent) -> None:
        seen.append(event.id)

    scripted.put(event("1"))
    scripted.put(event("2").replace(type="com.example.other"))
    stats = run(broker, router)
    assert seen == ["1"]
    assert (stats.handled, stats.dead_lettered) == (1, 1)
    assert (
        "no handler takes the type 'com.example.other'"
        in read(scripted.letters()[0].attributes["ceb-dead-letter"]).reason
    )


def test_middleware_waits_for_an_async_handler(broker: Broker, scripted: Scripted) -> None:
    said: list[str] = []

    def around(delivery: Delivery, call_next: Callable[[Delivery], None]) -> None:
        said.append("before")
        call_next(delivery)
        said.append("after")

    router = Router(middleware=[around])

    @router.on("*")
    async def handle(event: CloudEvent) -> None:
        said.append("handled")

    scripted.put(event())
    run(broker, router)
    assert said == ["before", "handled", "after"]


def test_a_dead_letter_that_cannot_be_made_comes_again(broker: Broker, scripted: Scripted) -> None:
    tries = iter([refused(), None])
    scripted.on_settle = lambda settled: (
        [fault] if settled.verb == "dead" and (fault := next(tries, None)) is not None else None
    )

    def handle(event: CloudEvent) -> None:
        raise Reject("bad")

    scripted.put(event())
    stats = run(broker, handle)
    assert scripted.verbs() == ["dead", "nack", "dead"]
    assert stats.dead_lettered == 1


def test_an_ack_that_fails_for_good_is_said_and_forgotten(
    broker: Broker, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on_settle = lambda settled: [busy()]
    scripted.put(event("17"))
    stats = broker.worker().add("orders", "billing", lambda event: None).run(until_idle=0.05)
    assert stats.handled == 1
    assert "17" in caplog.text
    assert "delivered again" in caplog.text


def test_the_log_has_id_type_and_topic_of_a_failure_and_never_its_data(
    broker: Broker, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.put(event("17", data={"card": "4111-1111"}), attempt=5)
    run(broker, _fails)
    [record] = [each for each in caplog.records if "failed" in each.message]
    assert record.levelno == logging.WARNING
    assert all(part in record.message for part in ("event 17", "com.example.test", "orders/billing", "attempt 5"))
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError
    assert "4111" not in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "concurrency is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": 2.0}, "batch is 2.0"),
        ({"max_lease": -1}, "max_lease is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(broker: Broker, options: Any, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        broker.worker().add("orders", "billing", _fails, **options)


def test_a_handler_that_cannot_be_filled_is_refused_when_it_is_added(broker: Broker) -> None:
    def handle(one: int, two: str) -> None: ...

    with pytest.raises(TypeError, match="twice"):
        broker.worker().add("orders", "billing", handle)


def test_a_router_in_a_batch_is_refused(broker: Broker) -> None:
    with pytest.raises(TypeError, match="one event at a time"):
        broker.worker().add("orders", "billing", Router(), batch=2)
