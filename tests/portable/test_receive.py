"""Receiving and iterating: nothing that came is lost, nothing waits longer than it was asked to."""

from __future__ import annotations

import math
import threading
import time
from functools import partial
from typing import Any

import msgspec
import pytest
from scripted import NativeError, Scripted, Settled, busy, event, refused, until

from cloudevents_bridge import Broker, CloudEvent, Delivery, RawMessage, Subscriber, Subscription, Topic, clock
from cloudevents_bridge.driver import DEAD_LETTER, TARGET, Capability, Inbound, Received
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    DecodeError,
    ErrorCode,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from cloudevents_bridge.fetcher import Fetcher, Waiting
from cloudevents_bridge.obituary import read

LONG = 30.0


@pytest.fixture
def subscriber(broker: Broker) -> Subscriber:
    return broker.subscriber("orders", "billing")


def abandon(subscriber: Subscriber, scripted: Scripted) -> None:
    """Stop to wait for a receive that goes on."""
    while not scripted.calls["receive"]:  # the thread may come to it after the caller has gone, and then does not begin
        assert subscriber.receive(wait=0.02) == []


class Background:
    """A call in a thread of its own."""

    def __init__(self, call: Any, *args: Any, **options: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None

        def work() -> None:
            try:
                self.result = call(*args, **options)
            except BaseException as error:  # noqa: BLE001
                self.error = error

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def end(self) -> Any:
        self.thread.join(15.0)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error
        return self.result


class Told(threading.Event):
    """Waits in steps."""

    def wake(self) -> bool:
        self.set()
        return True


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.event.id for delivery in deliveries]


def letters(scripted: Scripted) -> list[Inbound]:
    """The dead letters, when there are some: they are made after the good ones of a receive were handed out."""
    until(scripted.letters)
    return scripted.letters()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("ceb-")}


def test_what_is_there_comes_at_once(subscriber: Subscriber, scripted: Scripted) -> None:
    for n in range(3):
        scripted.put(event(str(n)))
    begun = time.monotonic()
    deliveries = subscriber.receive(wait=LONG)
    assert time.monotonic() - begun < 5.0
    assert ids(deliveries) == ["0", "1", "2"]
    [first, *_] = deliveries
    assert (first.topic, first.subscription, first.attempt, first.lease_lost) == ("orders", "billing", 1, False)
    assert first.native == "native-1"
    assert "not settled" in repr(first)


def test_no_more_than_asked_for(subscriber: Subscriber, scripted: Scripted) -> None:
    for n in range(5):
        scripted.put(event(str(n)))
    assert ids(subscriber.receive(2)) == ["0", "1"]
    assert ids(subscriber.receive(2)) == ["2", "3"]
    assert ids(subscriber.receive(2)) == ["4"]


def test_no_more_than_the_driver_gives(subscriber: Subscriber, scripted: Scripted) -> None:
    for n in range(15):
        scripted.put(event(str(n)))
    assert len(subscriber.receive(1000)) == 10


def test_without_waiting(subscriber: Subscriber, scripted: Scripted) -> None:
    begun = time.monotonic()
    assert subscriber.receive(wait=0) == []
    assert time.monotonic() - begun < 5.0
    scripted.put(event("1"))
    assert ids(subscriber.receive(wait=0)) == ["1"]
    assert scripted.waits == [0.0, 0.0]


def test_waiting_ends(subscriber: Subscriber) -> None:
    begun = time.monotonic()
    assert subscriber.receive(wait=0.1) == []
    assert 0.1 <= time.monotonic() - begun < 5.0


def test_an_event_that_comes_ends_the_wait(subscriber: Subscriber, scripted: Scripted) -> None:
    waiting = Background(subscriber.receive, wait=LONG)
    until(lambda: scripted.receiving)
    scripted.put(event("1"))
    assert ids(waiting.end()) == ["1"]


def test_a_long_wait_is_several_polls(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, wait=(0.0, 0.01))
    waiting = Background(subscriber.receive, wait=LONG)
    until(lambda: scripted.calls["receive"] > 3)
    scripted.put(event("1"))
    assert ids(waiting.end()) == ["1"]
    calls = scripted.calls["receive"]
    time.sleep(0.05)
    assert scripted.calls["receive"] == calls, "polled for nobody"


@pytest.mark.parametrize("wait", [-1.0, math.nan])
def test_a_wait_that_is_none(subscriber: Subscriber, wait: float) -> None:
    with pytest.raises(InvalidArgumentError, match="wait"):
        subscriber.receive(wait=wait)
    with pytest.raises(InvalidArgumentError, match="max_events"):
        subscriber.receive(0)


def test_waiting_for_ever(subscriber: Subscriber, scripted: Scripted) -> None:
    waiting = Background(subscriber.receive, wait=math.inf)
    until(lambda: scripted.receiving)
    scripted.put(event("1"))
    assert ids(waiting.end()) == ["1"]


def test_an_abandoned_receive_leaves_its_result_to_the_next(
    subscriber: Subscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudevents_bridge.fetcher.KEPT", LONG)
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, wait=(20.0, 20.0))
    abandon(subscriber, scripted)
    assert subscriber.receive(wait=0) == []
    scripted.put(event("1"))
    assert ids(subscriber.receive(wait=LONG)) == ["1"]
    assert scripted.calls["receive"] == 1


def test_an_abandoned_receive_is_given_back_by_close(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, wait=(20.0, 20.0))
    abandon(subscriber, scripted)
    scripted.put(event("1"))
    until(lambda: not scripted.receiving)
    subscriber.close()
    assert [(s.verb, s.ids) for s in scripted.settles] == [("release", ["1"])]
    assert scripted.left() == 1


def test_what_nobody_asks_for_is_given_back(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, wait=(20.0, 20.0))
    abandon(subscriber, scripted)
    with scripted.changed:
        scripted.put(event("1"))
        scripted.put(event("2"))
    until(lambda: scripted.verbs() == ["release"])
    until(lambda: scripted.left() == 2)
    assert sorted(ids(subscriber.receive(wait=LONG))) == ["1", "2"]
    assert scripted.calls["receive"] == 2


def test_what_lost_its_lease_while_nobody_asked_is_not_given_back(
    subscriber: Subscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudevents_bridge.fetcher.KEPT", 0.1)
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, wait=(20.0, 20.0))
    scripted.lease = 0.02
    abandon(subscriber, scripted)
    scripted.put(event("1"))
    fetcher = subscriber._fetcher
    assert fetcher is not None
    until(lambda: fetcher._rounds == 1 and not fetcher._ready)
    assert (scripted.verbs(), scripted.calls["receive"]) == ([], 1)


def test_a_failed_give_back_is_logged_and_the_thread_goes_on(
    subscriber: Subscriber, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, wait=(20.0, 20.0))
    scripted.on_settle = lambda settled: [refused()]
    abandon(subscriber, scripted)
    scripted.put(event("1"))
    until(lambda: "nobody asked for" in caplog.text)
    scripted.put(event("2"))
    assert ids(subscriber.receive(wait=LONG)) == ["2"]


def test_an_error_that_nobody_waited_for_is_not_the_next_ones(subscriber: Subscriber, scripted: Scripted) -> None:
    fetcher = subscriber._open()
    let_go = threading.Event()

    def on_receive() -> None:
        scripted.on_receive = lambda: None
        scripted.changed.release()
        let_go.wait(LONG)
        scripted.changed.acquire()
        raise NativeError(refused())

    scripted.on_receive = on_receive
    told = Told()
    waiting = fetcher.enter(1, LONG, told.wake)
    assert fetcher.poll(waiting) is None
    let_go.set()
    assert told.wait(LONG)
    fetcher.leave(waiting)
    scripted.put(event("1"))
    assert ids(subscriber.receive(wait=LONG)) == ["1"]


# -- without a thread to wait in


def test_waiting_in_steps(subscriber: Subscriber, scripted: Scripted) -> None:
    fetcher = subscriber._open()
    told = Told()
    waiting = fetcher.enter(2, LONG, told.wake)
    assert fetcher.poll(waiting) is None
    until(lambda: scripted.receiving)
    assert not told.is_set()
    scripted.put(event("1"))
    assert told.wait(LONG)
    assert ids(fetcher.poll(waiting) or []) == ["1"]
    fetcher.leave(waiting)
    assert len(threads()) == 1


def test_close_tells_who_waits_in_steps(subscriber: Subscriber) -> None:
    fetcher = subscriber._open()
    told = Told()
    waiting = fetcher.enter(2, LONG, told.wake)
    assert fetcher.poll(waiting) is None
    subscriber.close()
    assert told.is_set()
    assert fetcher.poll(waiting) == []
    fetcher.leave(waiting)


def test_who_cannot_be_told_does_not_wait(subscriber: Subscriber, scripted: Scripted) -> None:
    fetcher = subscriber._open()
    waiting = fetcher.enter(1, LONG, lambda: False)
    assert fetcher.poll(waiting) is None
    scripted.put(event("1"))
    until(lambda: scripted.verbs() == ["release"])


def test_close_gives_back_what_is_not_settled(subscriber: Subscriber, scripted: Scripted) -> None:
    for n in range(4):
        scripted.put(event(str(n)))
    deliveries = subscriber.receive()
    deliveries[1].ack()
    subscriber.close()
    subscriber.close()
    assert [(s.verb, s.ids) for s in scripted.settles] == [("ack", ["1"]), ("release", ["0", "2", "3"])]
    with pytest.raises(ClosedError, match="orders/billing"):
        deliveries[0].ack()
    with pytest.raises(ClosedError):
        subscriber.receive()
    assert subscriber.closed
    assert not threads()


def test_close_ends_a_receive_that_waits(subscriber: Subscriber, scripted: Scripted) -> None:
    waiting = Background(subscriber.receive, wait=LONG)
    until(lambda: scripted.receiving)
    subscriber.close()
    assert waiting.end() == []


def test_closing_the_broker_closes_its_subscribers(opened: Any, scripted: Scripted) -> None:
    broker = opened()
    subscriber = broker.subscriber("orders", "billing")
    waiting = Background(subscriber.receive, wait=LONG)
    until(lambda: scripted.receiving)
    broker.close()
    assert waiting.end() == []
    assert subscriber.closed
    assert all(each.closed for each in scripted.opened)


def test_close_does_not_wait_for_retries(opened: Any, scripted: Scripted) -> None:
    def on_receive() -> None:
        raise NativeError(busy(after=20.0))

    scripted.on_receive = on_receive
    subscriber = opened(timeout=60.0).subscriber("orders", "billing")
    assert subscriber.receive(wait=0.05) == []
    begun = time.monotonic()
    subscriber.close()
    assert time.monotonic() - begun < 5.0
    assert not threads()


def test_errors_reach_who_waits_and_the_next_try_is_fresh(subscriber: Subscriber, scripted: Scripted) -> None:
    said = [refused(ErrorCode.NOT_FOUND), refused()]

    def on_receive() -> None:
        if said:
            raise NativeError(said.pop(0))

    scripted.on_receive = on_receive
    with pytest.raises(NotFoundError, match=r"subscription orders/billing on scripted://here.*ceb topology apply"):
        subscriber.receive(wait=LONG)
    with pytest.raises(PermissionDeniedError) as caught:
        subscriber.receive(wait=LONG)
    assert isinstance(caught.value.__cause__, NativeError)
    scripted.put(event("1"))
    assert ids(subscriber.receive(wait=LONG)) == ["1"]


def test_a_busy_broker_is_asked_again(subscriber: Subscriber, scripted: Scripted) -> None:
    said = [busy(), busy()]

    def on_receive() -> None:
        if said:
            raise NativeError(said.pop(0))

    scripted.on_receive = on_receive
    scripted.put(event("1"))
    assert ids(subscriber.receive(wait=LONG)) == ["1"]


def test_a_bug_in_the_receiving_thread_is_an_error_and_not_the_end(
    subscriber: Subscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    scripted.put(event("1"))
    with monkeypatch.context() as patch:
        patch.setattr("cloudevents_bridge.inlet.Inlet._decode", lambda self, inbound: None)
        patch.setattr("cloudevents_bridge.inlet.Delivery", broken)
        with pytest.raises(BridgeError, match="a bug") as caught:
            subscriber.receive(wait=LONG)
    assert caught.value.code == ErrorCode.INTERNAL
    scripted.put(event("2"))
    assert ids(subscriber.receive(wait=LONG)) == ["2"]


def test_two_threads_share_what_comes(subscriber: Subscriber, scripted: Scripted) -> None:
    waiting = [Background(subscriber.receive, 1, wait=LONG) for _ in range(2)]
    until(lambda: scripted.receiving)
    scripted.put(event("1"))
    scripted.put(event("2"))
    assert sorted(ids(waiting[0].end() + waiting[1].end())) == ["1", "2"]
    assert len(threads()) == 1


def test_threads_that_wait_let_each_other_sleep(
    subscriber: Subscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = 0
    poll = Fetcher.poll

    def counted(self: Fetcher, waiting: Waiting) -> list[Delivery] | None:
        nonlocal polls
        polls += 1
        return poll(self, waiting)

    monkeypatch.setattr(Fetcher, "poll", counted)
    waiting = [Background(subscriber.receive, wait=LONG) for _ in range(3)]
    until(lambda: scripted.receiving and polls >= 3)
    time.sleep(0.1)
    assert polls < 50
    subscriber.close()
    assert [each.end() for each in waiting] == [[], [], []]


def test_threads_are_one_to_receive_and_one_to_keep_leases(subscriber: Subscriber, scripted: Scripted) -> None:
    assert threads() == set()
    scripted.put(event("1"))
    [delivery] = subscriber.receive()
    assert threads() == {"ceb-receive-orders/billing"}
    delivery.nack(delay=20.0)
    assert threads() == {"ceb-receive-orders/billing", "ceb-lease-orders/billing"}
    subscriber.close()
    assert threads() == set()


# -- what cannot be handed out


def test_what_cannot_be_decoded_is_dead_lettered_and_the_next_arrives(
    subscriber: Subscriber, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.put(b"\xff no event")
    scripted.put(event("1"))
    deliveries = subscriber.receive() or subscriber.receive()
    assert ids(deliveries) == ["1"]
    until(lambda: "was dead-lettered" in caplog.text)
    [letter] = scripted.letters()
    assert letter.body == b"\xff no event"
    said = read(letter.attributes[DEAD_LETTER])
    assert said.reason.startswith("it cannot be decoded: ")
    assert (said.topic, said.subscription, said.attempts) == ("orders", "billing", 1)
    assert "orders/billing" in caplog.text


def test_only_what_cannot_be_decoded_is_no_reason_to_return_before_time(
    subscriber: Subscriber, scripted: Scripted
) -> None:
    waiting = Background(subscriber.receive, wait=LONG)
    until(lambda: scripted.receiving)
    scripted.put(b"no event")
    until(scripted.letters)
    scripted.put(event("1"))
    assert ids(waiting.end()) == ["1"]


def test_a_dead_letter_that_the_broker_refuses_is_logged_and_the_next_arrives(
    subscriber: Subscriber, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on_settle = lambda settled: [refused()] if settled.verb == "dead" else None
    scripted.put(b"no event")
    scripted.put(event("1"))
    assert ids(subscriber.receive()) == ["1"]
    until(lambda: "comes back" in caplog.text)
    assert not scripted.letters()


def test_foreign_decoders_are_asked_in_turn(broker: Broker, scripted: Scripted) -> None:
    seen: list[RawMessage] = []

    def pass_on(raw: RawMessage) -> CloudEvent | None:
        seen.append(raw)
        return None

    def take(raw: RawMessage) -> CloudEvent | None:
        return event(raw.body.decode()) if raw.body.isdigit() else None

    def refuse(raw: RawMessage) -> CloudEvent | None:
        raise DecodeError("not mine, and nobody's")

    subscriber = broker.subscriber("orders", "billing", foreign=[pass_on, take, refuse])
    scripted.put(b"17", attributes={"a": "b"})
    scripted.put(b"what")
    scripted.put(event("1"))
    assert ids(subscriber.receive()) == ["17", "1"]
    assert seen[0].body == b"17"
    assert seen[0].attributes == {"a": "b"}
    assert seen[0].native == "native-1"
    [letter] = letters(scripted)
    assert "not mine, and nobody's" in read(letter.attributes[DEAD_LETTER]).reason


def test_a_foreign_decoder_that_gives_no_event(broker: Broker, scripted: Scripted) -> None:
    wrong: Any = lambda raw: {"id": "1"}  # noqa: E731
    subscriber = broker.subscriber("orders", "billing", foreign=[wrong])
    scripted.put(b"17")
    scripted.put(event("1"))
    assert ids(subscriber.receive()) == ["1"]
    [letter] = letters(scripted)
    assert "dict" in read(letter.attributes[DEAD_LETTER]).reason


@pytest.mark.parametrize("attempt", [1, 15, None])
def test_a_delivery_that_may_have_crashed_its_consumers_is_handed_out(
    subscriber: Subscriber, scripted: Scripted, attempt: int | None
) -> None:
    scripted.put(event("1"), attempt=attempt)
    [delivery] = subscriber.receive()
    assert delivery.attempt == (attempt or 1)


def test_a_delivery_that_ended_too_many_consumers_is_dead_lettered(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.put(event("1"), attempt=16)
    scripted.put(event("2"))
    assert ids(subscriber.receive()) == ["2"]
    [letter] = letters(scripted)
    said = read(letter.attributes[DEAD_LETTER])
    assert said.reason == "the consumer ended without settling it 15 times"
    assert said.attempts == 16


def test_a_replay_for_another_subscription_is_passed_over(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.put(event("1"), attributes={TARGET: "shipping"})
    scripted.put(event("2"), attributes={TARGET: "billing"})
    assert ids(subscriber.receive()) == ["2"]
    assert [(s.verb, s.ids) for s in scripted.settles] == [("ack", ["1"])]


def test_a_lost_stream_takes_its_deliveries(
    subscriber: Subscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.put(event("1"), stream="a")
    scripted.put(event("2"), stream="b")
    one, two = subscriber.receive()
    with monkeypatch.context() as patch:
        patch.setattr("scripted.ScriptedSubscriber.receive", lambda self, most, wait: Received((), ["a"]))
        assert subscriber.receive(wait=0) == []
    assert one.lease_lost
    assert not two.lease_lost
    with pytest.raises(BridgeError) as caught:
        one.ack()
    assert caught.value.code == ErrorCode.LEASE_LOST
    two.ack()


def test_what_lost_its_lease_while_nobody_asked_is_not_handed_out(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, wait=(20.0, 20.0))
    scripted.lease = 0.02
    abandon(subscriber, scripted)
    scripted.put(event("1"))
    fetcher = subscriber._fetcher
    assert fetcher is not None
    until(lambda: fetcher._rounds == 1 and all(each.lease_lost for each in list(fetcher._ready)))
    scripted.lease = 60.0
    scripted.put(event("2"))
    assert ids(subscriber.receive(wait=LONG)) == ["2"]


# -- iterating


def test_an_iteration_hands_out_one_at_a_time(subscriber: Subscriber, scripted: Scripted) -> None:
    for n in range(3):
        scripted.put(event(str(n)))
    seen = []
    for delivery in subscriber:
        assert len(scripted.out) == 1
        seen.append(delivery.event.id)
        delivery.ack()
        if len(seen) == 3:
            break
    assert seen == ["0", "1", "2"]


def test_an_iteration_keeps_the_lease_of_the_one_in_hand(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.lease = 1.0
    scripted.put(event("1"))
    for delivery in subscriber:
        until(lambda: scripted.calls["extend"] >= 3)
        assert not delivery.lease_lost
        delivery.ack()
        break
    assert {s.seconds for s in scripted.settles if s.verb == "extend"} == {1.0}
    assert scripted.verbs()[-1] == "ack"


def test_an_iteration_leaves_alone_what_was_settled(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.lease = 1.0
    scripted.put(event("1"))
    for delivery in subscriber:
        delivery.ack()
        until(lambda ends=delivery._ends: clock.now() >= ends)  # type: ignore[misc]
        break
    assert scripted.calls["extend"] == 0


def test_receive_leaves_leases_to_the_caller(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.lease = 0.05
    scripted.put(event("1"))
    [delivery] = subscriber.receive()
    until(lambda: delivery.lease_lost)
    assert scripted.calls["extend"] == 0


def test_an_iteration_on_a_broker_without_extension_does_without(opened: Any, scripted: Scripted) -> None:
    scripted.capabilities -= {Capability.EXTEND}
    scripted.put(event("1"))
    for delivery in opened().subscriber("orders", "billing"):
        delivery.ack()
        break
    assert scripted.verbs() == ["ack"]
    assert threads() == {"ceb-receive-orders/billing"}


def test_a_lease_that_the_broker_does_not_extend_is_lost(
    subscriber: Subscriber, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.lease = 1.0
    scripted.on_settle = lambda settled: [refused(ErrorCode.LEASE_LOST)] if settled.verb == "extend" else None
    scripted.put(event("1"))
    for delivery in subscriber:
        until(partial(getattr, delivery, "lease_lost"))
        with pytest.raises(BridgeError) as caught:
            delivery.ack()
        assert caught.value.code == ErrorCode.LEASE_LOST
        break
    until(lambda: "extend" in caplog.text)


def test_an_iteration_ends_when_another_thread_closes(subscriber: Subscriber, scripted: Scripted) -> None:
    def iterate() -> list[str]:
        seen = []
        for delivery in subscriber:
            with delivery as one:
                seen.append(one.id)
        return seen

    scripted.put(event("1"))
    iterating = Background(iterate)
    until(lambda: scripted.verbs() == ["ack"])
    until(lambda: scripted.receiving)
    subscriber.close()
    assert iterating.end() == ["1"]


def test_an_iteration_ends_when_the_broker_closes(opened: Any, scripted: Scripted) -> None:
    broker = opened()
    iterating = Background(list, broker.subscriber("orders", "billing"))
    until(lambda: scripted.receiving)
    broker.close()
    assert iterating.end() == []


def test_an_iteration_over_a_closed_subscriber_is_empty(subscriber: Subscriber) -> None:
    subscriber.close()
    assert list(subscriber) == []


def test_leaving_an_iteration_leaves_the_delivery_to_close(subscriber: Subscriber, scripted: Scripted) -> None:
    scripted.put(event("1"))
    for _ in subscriber:
        break
    subscriber.close()
    assert scripted.verbs() == ["release"]


def test_create_missing_makes_the_subscription(opened: Any, scripted: Scripted) -> None:
    subscriber = opened(create_missing=True).subscriber("orders", "billing")
    assert scripted.calls["apply"] == 0
    subscriber.receive(wait=0)
    subscriber.receive(wait=0)
    assert scripted.exists >= {"subscription orders/billing"}
    assert scripted.calls["apply"] == 1


def test_the_declared_limits_count(opened: Any, scripted: Scripted) -> None:
    topics = [Topic("orders", subscriptions=[Subscription("billing", max_attempts=1)])]
    subscriber = opened(topics=topics).subscriber("orders", "billing")
    scripted.put(event("1"), attempt=3)
    scripted.put(event("2"), attempt=4)
    assert ids(subscriber.receive()) == ["1"]


def test_the_good_ones_of_a_batch_do_not_wait_for_the_bad_one(subscriber: Subscriber, scripted: Scripted) -> None:
    let_go = threading.Event()

    def stuck(settled: Settled) -> None:
        if settled.verb == "dead":
            assert let_go.wait(30.0)

    scripted.on_settle = stuck
    scripted.put(b"no event", attributes={"content-type": "application/cloudevents+json"})
    scripted.put(event("good"))
    try:
        [delivery] = subscriber.receive(10, wait=10.0)
        assert delivery.event.id == "good"
        assert not scripted.letters()
    finally:
        let_go.set()
    until(lambda: len(scripted.letters()) == 1)


@pytest.mark.parametrize(("ordered", "key_batches", "together"), [(True, True, 1), (True, False, 3), (False, True, 3)])
def test_of_a_key_that_comes_in_batches_one_is_out_at_a_time(
    opened: Any, scripted: Scripted, ordered: bool, key_batches: bool, together: int
) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, key_batches=key_batches)
    for id in "123":
        scripted.put(event(id, key="one"))
    broker = opened(topics=[Topic("orders", ordered=ordered, subscriptions=["billing"])])
    assert len(broker.subscriber("orders", "billing").receive(10)) == together
