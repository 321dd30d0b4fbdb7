"""Settling a delivery: once, in time, and with a word for every failure."""

from __future__ import annotations

import copy
import math
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from scripted import NativeError, Scripted, Settled, busy, event, refused, until

from cloudevents_bridge import (
    Broker,
    Delivery,
    LeaseLostError,
    Reject,
    Retry,
    RetryPolicy,
    SettleError,
    Subscriber,
    Subscription,
    Topic,
    UnsupportedError,
    clock,
    connect,
)
from cloudevents_bridge.driver import DEAD_LETTER, Capability, Done, Fault
from cloudevents_bridge.errors import BridgeError, ErrorCode, InvalidArgumentError, PermissionDeniedError
from cloudevents_bridge.keeper import Keeper
from cloudevents_bridge.obituary import read

AT_ONCE = [Topic("orders", subscriptions=[Subscription("billing", redelivery=RetryPolicy(initial=0.0))])]


@pytest.fixture
def subscriber(broker: Broker) -> Subscriber:
    return broker.subscriber("orders", "billing")


def received(subscriber: Subscriber, scripted: Scripted, *, attempt: int = 1, id: str = "1") -> Delivery:
    scripted.put(event(id), attempt=attempt)
    [delivery] = subscriber.receive()
    return delivery


def says(scripted: Scripted, *said: Done | Fault | BaseException) -> None:
    """What the next settles say; after that, success."""
    waiting = list(said)

    def on_settle(settled: Settled) -> Sequence[Done | Fault] | None:
        if not waiting:
            return None
        answer = waiting.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return [answer] * len(settled.ids)

    scripted.on_settle = on_settle


WORDS: dict[str, Callable[[Delivery], None]] = {
    "ack": lambda delivery: delivery.ack(),
    "nack": lambda delivery: delivery.nack(delay=0.0),
    "dead": lambda delivery: delivery.dead_letter("no good"),
}


@pytest.mark.parametrize("word", WORDS)
def test_settling_twice_is_harmless(subscriber: Subscriber, scripted: Scripted, word: str) -> None:
    delivery = received(subscriber, scripted)
    WORDS[word](delivery)
    WORDS[word](delivery)
    assert scripted.verbs() == [word]
    assert not delivery.lease_lost


@pytest.mark.parametrize("first", WORDS)
@pytest.mark.parametrize("second", WORDS)
def test_settling_in_two_ways_is_an_error(subscriber: Subscriber, scripted: Scripted, first: str, second: str) -> None:
    if first == second:
        return
    delivery = received(subscriber, scripted)
    WORDS[first](delivery)
    with pytest.raises(BridgeError, match="settle a delivery once") as caught:
        WORDS[second](delivery)
    assert caught.value.code == ErrorCode.FAILED_PRECONDITION
    assert caught.value.broker == "scripted://here"
    with pytest.raises(BridgeError):
        delivery.extend(5.0)
    assert scripted.verbs() == [first]


def test_two_threads_settle_once(subscriber: Subscriber, scripted: Scripted) -> None:
    for n in range(20):
        delivery = received(subscriber, scripted, id=str(n))
        start = threading.Barrier(4)

        def settle(delivery: Delivery = delivery, start: threading.Barrier = start) -> None:
            start.wait(10.0)
            delivery.ack()

        threads = [threading.Thread(target=settle) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)
    assert scripted.verbs() == ["ack"] * 20


@pytest.mark.parametrize("word", WORDS)
def test_a_settle_that_failed_can_be_tried_again(subscriber: Subscriber, scripted: Scripted, word: str) -> None:
    delivery = received(subscriber, scripted)
    says(scripted, refused())
    with pytest.raises(PermissionDeniedError, match=r"orders/billing on scripted://here.*event 1"):
        WORDS[word](delivery)
    assert not delivery.lease_lost
    WORDS[word](delivery)
    assert scripted.verbs() == [word, word]


@pytest.mark.parametrize("word", WORDS)
def test_an_interrupted_settle_can_be_tried_again(subscriber: Subscriber, scripted: Scripted, word: str) -> None:
    delivery = received(subscriber, scripted)
    says(scripted, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        WORDS[word](delivery)
    WORDS[word](delivery)
    assert scripted.verbs() == [word, word]


def test_a_busy_broker_is_asked_again(subscriber: Subscriber, scripted: Scripted) -> None:
    says(scripted, busy(), NativeError(busy()), Done())
    received(subscriber, scripted).ack()
    assert scripted.verbs() == ["ack"] * 3


def test_a_lost_answer_is_not_forgotten(subscriber: Subscriber, scripted: Scripted) -> None:
    """The second try finds the lease gone, as the first one was applied: nobody knows, and the error says so."""
    says(scripted, busy(maybe_applied=True), refused(ErrorCode.LEASE_LOST))
    with pytest.raises(LeaseLostError, match="may have been done all the same") as caught:
        received(subscriber, scripted).ack()
    assert caught.value.maybe_applied


def test_a_driver_that_miscounts_is_caught(subscriber: Subscriber, scripted: Scripted) -> None:
    delivery = received(subscriber, scripted)
    scripted.on_settle = lambda settled: []
    with pytest.raises(BridgeError, match="0 outcomes for 1 deliveries"):
        delivery.ack()


# -- the lease


@pytest.mark.parametrize("word", WORDS)
def test_a_lease_lost_by_our_own_clock_is_an_error_without_asking(
    subscriber: Subscriber, scripted: Scripted, word: str
) -> None:
    scripted.lease = 0.02
    delivery = received(subscriber, scripted)
    assert not delivery.lease_lost or word
    until(lambda: delivery.lease_lost)
    with pytest.raises(LeaseLostError, match="event 1 to orders/billing"):
        WORDS[word](delivery)
    with pytest.raises(LeaseLostError):
        delivery.extend(1.0)
    assert scripted.verbs() == []


def test_the_wall_clock_does_not_count(
    subscriber: Subscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = received(subscriber, scripted)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600.0)
    assert not delivery.lease_lost
    delivery.ack()


def test_a_lease_ends_a_margin_before_the_brokers(
    subscriber: Subscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    delivery = received(subscriber, scripted)
    now += 58.9
    assert not delivery.lease_lost
    now += 0.2
    assert delivery.lease_lost


def test_a_lease_the_broker_calls_lost_is_lost(subscriber: Subscriber, scripted: Scripted) -> None:
    delivery = received(subscriber, scripted)
    says(scripted, refused(ErrorCode.LEASE_LOST))
    with pytest.raises(LeaseLostError):
        delivery.ack()
    assert delivery.lease_lost
    with pytest.raises(LeaseLostError) as caught:
        delivery.ack()
    assert len(scripted.settles) == 1
    assert "ended 0" in str(caught.value) or "e-0" in str(caught.value) or "ended 1" in str(caught.value)


def test_extending(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.lease = 1.0
    delivery = received(subscriber, scripted)
    ends = delivery._ends
    says(scripted, Done(lease=40.0))
    delivery.extend(60.0)
    assert scripted.settles == [Settled("extend", ["1"], 60.0, "")]
    until(lambda: clock.now() > ends)
    assert not delivery.lease_lost
    delivery.ack()


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_extending_by_what_is_no_time(subscriber: Subscriber, scripted: Scripted, seconds: float) -> None:
    delivery = received(subscriber, scripted)
    with pytest.raises(InvalidArgumentError):
        delivery.extend(seconds)


def test_extending_where_the_broker_cannot(opened: Any, scripted: Scripted) -> None:
    scripted.capabilities -= {Capability.EXTEND}
    delivery = received(opened().subscriber("orders", "billing"), scripted)
    with pytest.raises(UnsupportedError, match="'extend'"):
        delivery.extend(5.0)


# -- nack


@pytest.mark.parametrize("delay", [-1.0, math.nan, math.inf])
def test_a_delay_that_is_none(subscriber: Subscriber, scripted: Scripted, delay: float) -> None:
    delivery = received(subscriber, scripted)
    with pytest.raises(InvalidArgumentError, match="delay"):
        delivery.nack(delay=delay)
    delivery.ack()


def test_a_native_delay_is_used_where_it_is_long_enough(broker: Broker, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, nack_delay=10.0)
    received(broker.subscriber("orders", "billing"), scripted).nack(delay=10.0)
    assert scripted.settles == [Settled("nack", ["1"], 10.0, "")]


def test_a_nack_shorter_than_the_shortest_native_delay_is_held(broker: Broker, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, nack_delay=3600.0, nack_least=10.0)
    subscriber = broker.subscriber("orders", "billing")
    received(subscriber, scripted).nack(delay=0.2)
    assert scripted.settles == [], "it was given back at once, for ten seconds"
    until(lambda: scripted.settles == [Settled("nack", ["1"], 0.0, "")])
    [again] = subscriber.receive()
    again.nack(delay=10.0)
    assert scripted.settles[1:] == [Settled("nack", ["1"], 10.0, "")]


def test_without_a_delay_the_redelivery_counts(opened: Any, scripted: Scripted) -> None:
    policy = RetryPolicy(initial=2.0, maximum=6.0, factor=2.0)
    topics = [Topic("orders", subscriptions=[Subscription("billing", max_attempts=50, redelivery=policy)])]
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, nack_delay=100.0)
    subscriber = opened(topics=topics).subscriber("orders", "billing")
    for attempt in [1, 2, 3, 40] * 10:
        received(subscriber, scripted, attempt=attempt).nack()
        scripted.queues.clear()
        assert 0.0 <= scripted.settles[-1].seconds <= {1: 2.0, 2: 4.0}.get(attempt, 6.0)
    assert len({settled.seconds for settled in scripted.settles}) > 30


def test_a_nack_is_held_where_the_broker_has_no_delay(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.lease = 1.0
    begun = time.monotonic()
    delivery = received(subscriber, scripted)
    delivery.nack(delay=2.0)
    assert scripted.left() == 0
    assert not delivery.lease_lost
    until(lambda: scripted.left() == 1)
    assert time.monotonic() - begun >= 2.0
    assert scripted.verbs()[-1] == "nack"
    assert scripted.calls["extend"] >= 3
    assert scripted.settles[-1].seconds == 0.0
    delivery.nack(delay=9.0)
    with pytest.raises(BridgeError):
        delivery.ack()
    [again] = subscriber.receive()
    assert again.attempt == 2


def test_what_is_held_goes_back_on_close(subscriber: Subscriber, scripted: Scripted) -> None:
    received(subscriber, scripted).nack(delay=30.0)
    subscriber.close()
    assert scripted.verbs() == ["nack"]


def test_what_is_held_is_bounded(subscriber: Subscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudevents_bridge.keeper.MAX_HELD", 2)
    for n in range(3):
        received(subscriber, scripted, id=str(n)).nack(delay=30.0)
    assert [(s.verb, s.ids) for s in scripted.settles] == [("nack", ["2"])]


def test_a_hold_without_extension_lasts_as_long_as_it_can(opened: Any, scripted: Scripted) -> None:
    scripted.capabilities -= {Capability.EXTEND}
    scripted.lease = 2.0
    begun = time.monotonic()
    received(opened().subscriber("orders", "billing"), scripted).nack(delay=30.0)
    until(lambda: scripted.verbs() == ["nack"])
    assert time.monotonic() - begun >= 0.75
    assert scripted.calls["extend"] == 0


def test_a_nack_beside_close_is_never_silent(subscriber: Subscriber, scripted: Scripted) -> None:
    delivery = received(subscriber, scripted)
    holder = delivery._inlet.holder
    assert isinstance(holder, Keeper)
    holder.close()
    delivery.nack(delay=30.0)
    assert scripted.verbs() == ["nack"]


@pytest.mark.parametrize("attempt", [5, 6, 15])
def test_a_nack_of_the_last_attempt_is_a_dead_letter(subscriber: Subscriber, scripted: Scripted, attempt: int) -> None:
    delivery = received(subscriber, scripted, attempt=attempt)
    delivery.nack(delay=0.0)
    delivery.nack()
    [letter] = scripted.letters()
    said = read(letter.attributes[DEAD_LETTER])
    assert said.reason == f"{attempt} runs failed, and max_attempts is 5"
    assert (said.attempts, said.topic, said.subscription, said.error) == (attempt, "orders", "billing", None)


# -- the context manager


def test_success_acks(subscriber: Subscriber, scripted: Scripted) -> None:
    delivery = received(subscriber, scripted)
    with delivery as one:
        assert one is delivery.event
        assert scripted.verbs() == []
    assert scripted.verbs() == ["ack"]


def test_success_that_cannot_be_acked_is_an_error(subscriber: Subscriber, scripted: Scripted) -> None:
    delivery = received(subscriber, scripted)
    says(scripted, refused())
    with pytest.raises(PermissionDeniedError), delivery:
        pass


def test_an_exception_is_a_nack_and_comes_out(opened: Any, scripted: Scripted) -> None:
    delivery = received(opened(topics=AT_ONCE).subscriber("orders", "billing"), scripted)
    with pytest.raises(ZeroDivisionError), delivery:
        _ = 1 / 0
    assert scripted.verbs() == ["nack"]


def test_an_exception_in_the_last_attempt_is_in_the_dead_letter(subscriber: Subscriber, scripted: Scripted) -> None:
    with pytest.raises(KeyError), received(subscriber, scripted, attempt=5):
        raise KeyError("price")
    [letter] = scripted.letters()
    assert read(letter.attributes[DEAD_LETTER]).error == "KeyError: 'price'"


def test_retry_says_when(broker: Broker, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, nack_delay=100.0)
    with pytest.raises(Retry), received(broker.subscriber("orders", "billing"), scripted):
        raise Retry(delay=17.0, reason="the bank is closed")
    assert scripted.settles == [Settled("nack", ["1"], 17.0, "")]


def test_retry_in_the_last_attempt_is_a_dead_letter_with_its_reason(subscriber: Subscriber, scripted: Scripted) -> None:
    with pytest.raises(Retry), received(subscriber, scripted, attempt=5):
        raise Retry(reason="the bank is closed")
    assert read(scripted.letters()[0].attributes[DEAD_LETTER]).error == "Retry: the bank is closed"


def test_reject_is_a_dead_letter_at_once(subscriber: Subscriber, scripted: Scripted) -> None:
    with pytest.raises(Reject), received(subscriber, scripted):
        raise Reject("no such customer")
    said = read(scripted.letters()[0].attributes[DEAD_LETTER])
    assert (said.reason, said.error, said.attempts) == ("no such customer", None, 1)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_spends_no_attempt(
    subscriber: Subscriber, scripted: Scripted, interrupt: type[BaseException]
) -> None:
    with pytest.raises(interrupt), received(subscriber, scripted, attempt=5):
        raise interrupt
    assert scripted.verbs() == ["release"]
    [again] = subscriber.receive()
    assert again.attempt == 5


def test_what_was_settled_inside_stays_so(subscriber: Subscriber, scripted: Scripted) -> None:
    delivery = received(subscriber, scripted)
    with delivery:
        delivery.dead_letter("inside")
    delivery = received(subscriber, scripted)
    with pytest.raises(ValueError, match="after"), delivery:
        delivery.ack()
        raise ValueError("after")
    assert scripted.verbs() == ["dead", "ack"]


def test_a_failing_settle_does_not_hide_the_exception(
    subscriber: Subscriber, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = received(subscriber, scripted, attempt=5)
    says(scripted, refused())
    with pytest.raises(ZeroDivisionError), delivery:
        _ = 1 / 0
    assert "could not be settled" in caplog.text


# -- many at once


def test_ack_many_in_native_batches(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, settle_count=4)
    for n in range(10):
        scripted.put(event(str(n)))
    subscriber.ack_many(subscriber.receive())
    assert [len(settled.ids) for settled in scripted.settles] == [4, 4, 2]
    subscriber.ack_many([])
    subscriber.ack_many(iter(()))


def test_ack_many_in_batches_of_no_more_bytes_than_the_broker_takes(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, settle_bytes=25)
    for n in range(5):
        scripted.put(event(str(n)))
    deliveries = subscriber.receive()
    for delivery, size in zip(deliveries, (10, 10, 10, 30, 1), strict=True):
        delivery._inbound = msgspec.structs.replace(delivery._inbound, handle=delivery.event.id.rjust(size))
    subscriber.ack_many(deliveries)
    assert [len(settled.ids) for settled in scripted.settles] == [2, 1, 1, 1]


def test_ack_many_says_which_failed_and_acks_the_others(subscriber: Subscriber, scripted: Scripted) -> None:
    for n in range(6):
        scripted.put(event(str(n)))
    deliveries = subscriber.receive()
    deliveries[0].ack()
    deliveries[1].nack(delay=0.0)
    says_of = {"2": refused(), "3": refused(ErrorCode.LEASE_LOST)}
    scripted.on_settle = lambda settled: [says_of.get(id, Done()) for id in settled.ids]
    with pytest.raises(SettleError, match="3 of 5 deliveries of orders/billing") as caught:
        subscriber.ack_many(deliveries)
    failed = {delivery.event.id: error.code for delivery, error in caught.value.failed}
    assert failed == {"1": "FAILED_PRECONDITION", "2": "PERMISSION_DENIED", "3": "LEASE_LOST"}
    assert scripted.settles[-1].ids == ["2", "3", "4", "5"]
    scripted.on_settle = lambda settled: None
    deliveries[2].ack()
    subscriber.ack_many([deliveries[4], deliveries[4], deliveries[5]])
    assert scripted.settles[-1].ids == ["2"]


def test_ack_many_tries_only_what_failed_again(subscriber: Subscriber, scripted: Scripted) -> None:
    for n in range(3):
        scripted.put(event(str(n)))
    tries = []

    def on_settle(settled: Settled) -> Sequence[Done | Fault]:
        tries.append(settled.ids)
        return [busy() if id == "1" and len(tries) < 3 else Done() for id in settled.ids]

    scripted.on_settle = on_settle
    subscriber.ack_many(subscriber.receive())
    assert tries == [["0", "1", "2"], ["1"], ["1"]]


def test_ack_many_acks_each_where_it_came_from(broker: Broker, scripted: Scripted) -> None:
    one, other = broker.subscriber("orders", "billing"), broker.subscriber("orders", "shipping")
    mine = received(one, scripted)
    scripted.put(event("2"), place="subscription orders/shipping")
    [foreign] = other.receive()
    one.ack_many([mine, foreign])
    assert [settled.ids for settled in scripted.settles] == [["1"], ["2"]]


def test_an_interrupted_ack_many_can_be_tried_again(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.put(event("1"))
    deliveries = subscriber.receive()
    says(scripted, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        subscriber.ack_many(deliveries)
    subscriber.ack_many(deliveries)
    assert scripted.verbs() == ["ack", "ack"]


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_settle_error_goes_to_another_process(subscriber: Subscriber, scripted: Scripted, how: str) -> None:
    """`concurrent.futures.ProcessPoolExecutor` pickles what a worker raises."""
    delivery = received(subscriber, scripted)
    says(scripted, refused())
    with pytest.raises(SettleError) as caught:
        subscriber.ack_many([delivery])
    error = caught.value
    made = pickle.loads(pickle.dumps(error)) if how == "pickle" else copy.deepcopy(error)
    [(there, why)] = made.failed
    assert isinstance(why, PermissionDeniedError)
    assert there.event == delivery.event
    assert (there.topic, there.subscription, there.attempt) == ("orders", "billing", 1)
    assert "event" in repr(there) or repr(there)
    for settle in WORDS.values():
        with pytest.raises(BridgeError) as refusal:
            settle(there)
        assert refusal.value.code == ErrorCode.CLOSED
    delivery.ack()


def test_on_a_real_broker() -> None:
    topics = [Topic("orders", subscriptions=[Subscription("billing", max_attempts=2)])]
    with connect("memory://", topics=topics, create_missing=True) as broker:
        broker.topology.apply()
        broker.publish_many("orders", [event(str(n)) for n in range(4)])
        with broker.subscriber("orders", "billing") as subscriber:
            acked, given_back, dead, delayed = subscriber.receive(4)
            acked.ack()
            given_back.nack(delay=0.0)
            dead.dead_letter("no good")
            delayed.nack(delay=0.2)
            begun = time.monotonic()
            [again] = subscriber.receive(4, wait=5.0)
            assert (again.event.id, again.attempt) == ("1", 2)
            again.nack()
            [late] = subscriber.receive(4, wait=5.0)
            assert late.event.id == "3"
            assert time.monotonic() - begun > 0.15
            late.ack()
            assert subscriber.receive(4, wait=0) == []
        letters = {
            letter.event.id: letter for letter in broker.dead_letters("orders", "billing").find() if letter.event
        }
        assert {id: letter.reason for id, letter in letters.items()} == {
            "1": "2 runs failed, and max_attempts is 2",
            "2": "no good",
        }


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
def test_a_retry_without_a_sensible_delay_is_refused_where_it_is_written(delay: float) -> None:
    with pytest.raises(ValueError, match="the delay must be 0 or more seconds"):
        Retry(delay)
