"""submit, flush and close: what is buffered arrives, or is said to be lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import msgspec
import pytest
from scripted import NativeError, Scripted, Sent, busy, event, refused, until

from cloudevents_bridge import Broker, PublishError, Receipt, Topic, connect
from cloudevents_bridge.driver import Done, Fault
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    DeadlineExceededError,
    ErrorCode,
    InvalidArgumentError,
    PermissionDeniedError,
)

ORDERED = [Topic("orders", ordered=True)]
FOR_EVER = 3600.0


class Gate:
    """Holds every send until it is opened."""

    def __init__(self, scripted: Scripted) -> None:
        self.open = threading.Event()
        self.usual = scripted.on_send
        scripted.on_send = self

    def __call__(self, sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        assert self.open.wait(20.0)
        return self.usual(sent, timeout)


def threads(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_what_is_submitted_is_sent_in_batches(broker: Broker, scripted: Scripted) -> None:
    gate = Gate(scripted)  # what comes while nothing is sent goes as soon as there is room
    publisher = broker.publisher("orders", linger=FOR_EVER)
    futures = [publisher.submit(event(str(n))) for n in range(25)]
    gate.open.set()
    publisher.flush()
    assert [future.result(0) for future in futures] == [
        Receipt(str(n), str(receipt), None) for n, receipt in enumerate(range(1, 26))
    ]
    assert [len(sent.batch) for sent in scripted.sends] == [10, 10, 5]


def test_a_batch_that_is_not_full_goes_after_linger(broker: Broker, scripted: Scripted) -> None:
    publisher = broker.publisher("orders", linger=0.05)
    begun = time.monotonic()
    assert publisher.submit(event("1")).result(timeout=10.0).event_id == "1"
    assert time.monotonic() - begun >= 0.05


def test_flush_and_close_do_not_linger(broker: Broker) -> None:
    publisher = broker.publisher("orders", linger=FOR_EVER)
    publisher.submit(event())
    publisher.flush(timeout=10.0)
    future = publisher.submit(event())
    publisher.close(timeout=10.0)
    assert future.result(0)


def test_a_flush_that_gave_up_does_not_make_another_linger(broker: Broker, scripted: Scripted) -> None:
    gate = Gate(scripted)
    publisher = broker.publisher("orders", linger=FOR_EVER)
    publisher.submit(event("1"))
    failed: list[BaseException] = []

    def flush() -> None:
        try:
            publisher.flush(timeout=10.0)
        except BridgeError as error:
            failed.append(error)

    other = threading.Thread(target=flush)
    other.start()
    until(lambda: scripted.sends)
    publisher.submit(event("2"))
    with pytest.raises(DeadlineExceededError):
        publisher.flush(timeout=0.01)
    gate.open.set()
    other.join(11.0)
    assert not failed
    until(lambda: scripted.sent_ids() == ["1", "2"])


def test_nothing_to_flush(broker: Broker, scripted: Scripted) -> None:
    publisher = broker.publisher("orders")
    publisher.flush()
    publisher.close()
    assert not threads("ceb-")


def test_flush_says_which_failed_since_the_last_one(broker: Broker, scripted: Scripted) -> None:
    scripted.on_send = lambda sent, timeout: [refused() if id == "3" else Done() for id in sent.ids]
    publisher = broker.publisher("orders")
    futures = [publisher.submit(event(str(n))) for n in range(5)]
    with pytest.raises(PublishError, match="1 of 5 events for topic orders") as caught:
        publisher.flush()
    [(one, error)] = caught.value.failed
    assert one.id == "3"
    assert futures[3].exception(0) is error
    assert isinstance(error, PermissionDeniedError)
    publisher.flush()
    publisher.close()


def test_close_says_what_no_flush_has_said(broker: Broker, scripted: Scripted) -> None:
    scripted.on_send = lambda sent, timeout: [refused()] * len(sent.batch)
    publisher = broker.publisher("orders")
    publisher.submit(event("1"))
    with pytest.raises(PublishError) as caught:
        publisher.close()
    assert [one.id for one, _ in caught.value.failed] == ["1"]
    publisher.close()


def test_closing_the_broker_says_it_for_all_publishers(opened: Any, scripted: Scripted) -> None:
    scripted.on_send = lambda sent, timeout: [refused()] * len(sent.batch)
    broker = opened()
    broker.publisher("orders").submit(event("1"))
    broker.publisher("orders", linger=1.0).submit(event("2"))
    broker.publisher("shipments").submit(event("3"))
    with pytest.raises(PublishError) as caught:
        broker.close()
    assert sorted(one.id for one, _ in caught.value.failed) == ["1", "2", "3"]
    assert scripted.opened[0].closed
    broker.close()


def test_a_flush_without_enough_time_keeps_what_waits(broker: Broker, scripted: Scripted) -> None:
    gate = Gate(scripted)
    publisher = broker.publisher("orders")
    future = publisher.submit(event("1"))
    with pytest.raises(DeadlineExceededError, match="1 events for topic orders"):
        publisher.flush(timeout=0.02)
    assert not future.done()
    gate.open.set()
    publisher.flush()
    assert future.result(0)


@pytest.mark.parametrize("sends", [1, 4])
def test_close_without_enough_time_ends_in_time_and_says_so(broker: Broker, scripted: Scripted, sends: int) -> None:
    scripted.send_traits = msgspec.structs.replace(scripted.send_traits, sends=sends, batch_count=1)
    gate = Gate(scripted)
    publisher = broker.publisher("orders")
    futures = [publisher.submit(event(str(n))) for n in range(10)]
    until(lambda: scripted.sends)
    begun = time.monotonic()
    with pytest.raises(PublishError) as caught:
        publisher.close(timeout=0.05)
    assert time.monotonic() - begun < 3.0
    assert sorted(one.id for one, _ in caught.value.failed) == [str(n) for n in range(10)]
    assert {error.code for _, error in caught.value.failed} == {ErrorCode.DEADLINE_EXCEEDED}
    assert all(error.maybe_applied for (one, error) in caught.value.failed if one.id in scripted.sent_ids())
    assert all(isinstance(future.exception(0), DeadlineExceededError) for future in futures)
    gate.open.set()


def test_a_cancelled_event_is_taken_back(broker: Broker, scripted: Scripted) -> None:
    gate = Gate(scripted)
    publisher = broker.publisher("orders")
    first = publisher.submit(event("1"))
    until(lambda: scripted.sends)
    second, third = publisher.submit(event("2")), publisher.submit(event("3"))
    assert second.cancel()
    assert not first.cancel(), "it is on its way"
    gate.open.set()
    publisher.flush()
    assert third.result(0)
    with pytest.raises(CancelledError):
        second.result(0)
    assert scripted.sent_ids() == ["1", "3"]


def test_cancelling_everything_leaves_nothing_pending(broker: Broker, scripted: Scripted) -> None:
    publisher = broker.publisher("orders", linger=FOR_EVER)
    futures = [publisher.submit(event()) for _ in range(5)]
    assert all(future.cancel() for future in futures)
    publisher.flush(timeout=10.0)
    assert not scripted.sends


def test_cancelling_at_any_moment_disturbs_nothing(broker: Broker, scripted: Scripted) -> None:
    publisher = broker.publisher("orders", linger=0.0)
    futures = []
    for n in range(300):
        futures.append(publisher.submit(event(str(n))))
        if n % 3 == 0:
            futures[-1].cancel()
    publisher.flush(timeout=10.0)
    arrived = set(scripted.sent_ids())
    for n, future in enumerate(futures):
        assert future.cancelled() != (str(n) in arrived)


def test_a_full_buffer_blocks(broker: Broker, scripted: Scripted) -> None:
    gate = Gate(scripted)
    publisher = broker.publisher("orders", max_buffered=3)
    done: list[Future[Receipt]] = []

    def produce() -> None:
        done.extend(publisher.submit(event(str(n))) for n in range(8))

    producer = threading.Thread(target=produce)
    producer.start()
    until(lambda: scripted.sends)
    time.sleep(0.02)
    assert producer.is_alive()
    gate.open.set()
    producer.join(10.0)
    publisher.flush()
    assert len(done) == 8
    assert sorted(scripted.sent_ids()) == [str(n) for n in range(8)]


def test_a_full_buffer_raises_where_that_was_asked_for(broker: Broker, scripted: Scripted) -> None:
    gate = Gate(scripted)
    publisher = broker.publisher("orders", max_buffered=3, on_full="raise")
    for n in range(3):
        publisher.submit(event(str(n)))
    with pytest.raises(BridgeError, match="3 events for topic orders") as caught:
        publisher.submit(event("4"))
    assert caught.value.code == ErrorCode.RESOURCE_EXHAUSTED
    assert caught.value.retryable
    gate.open.set()
    publisher.flush()
    publisher.submit(event("5")).result(timeout=10.0)


def test_closing_lets_go_of_a_submit_that_waits(broker: Broker, scripted: Scripted) -> None:
    gate = Gate(scripted)
    publisher = broker.publisher("orders", max_buffered=1)
    publisher.submit(event("1"))
    raised: list[BaseException] = []

    def produce() -> None:
        try:
            publisher.submit(event("2"))
        except BridgeError as error:
            raised.append(error)

    producer = threading.Thread(target=produce)
    producer.start()
    until(lambda: scripted.sends)
    with pytest.raises(PublishError):
        broker.close(timeout=0.05)
    gate.open.set()
    producer.join(10.0)
    assert not producer.is_alive()
    assert [type(error) for error in raised] == [ClosedError]


@pytest.mark.parametrize("ordered", [True, False])
def test_submitted_events_of_a_key_are_in_order_over_retries(opened: Any, scripted: Scripted, ordered: bool) -> None:
    broker = opened(topics=ORDERED if ordered else ())
    scripted.send_traits = msgspec.structs.replace(scripted.send_traits, sends=3, batch_count=4)
    tries: dict[str, int] = {}
    accepted: list[str] = []
    lock = threading.Lock()

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        with lock:
            outcomes: list[Done | Fault] = []
            for id in sent.ids:
                tries[id] = tries.get(id, 0) + 1
                good = tries[id] > int(id) % 3
                outcomes.append(Done() if good else busy())
                accepted.extend([id] if good else [])
            return outcomes

    scripted.on_send = on_send
    publisher = broker.publisher("orders", linger=0.0)
    for n in range(200):
        publisher.submit(event(str(n), f"key-{n % 4}"))
    publisher.flush()
    assert len(set(accepted)) == 200
    if ordered:
        for key in range(4):
            mine = [int(id) for id in accepted if int(id) % 4 == key]
            assert mine == sorted(mine)


def test_publish_does_not_overtake_what_was_submitted(opened: Any, scripted: Scripted) -> None:
    publisher = opened(topics=ORDERED).publisher("orders", linger=FOR_EVER)
    publisher.submit(event("1", "k"))
    publisher.publish(event("2", "k"))
    assert scripted.sent_ids() == ["1", "2"]


def test_what_was_refused_in_the_background_does_not_fail_a_publish(opened: Any, scripted: Scripted) -> None:
    scripted.on_send = lambda sent, timeout: [refused() if id == "1" else Done() for id in sent.ids]
    publisher = opened(topics=ORDERED).publisher("orders", linger=FOR_EVER)
    publisher.submit(event("1", "k"))
    publisher.publish(event("2", "k"))
    with pytest.raises(PublishError):
        publisher.close()


def test_an_oversize_event_fails_its_future_only(broker: Broker, scripted: Scripted) -> None:
    publisher = broker.publisher("orders")
    large = publisher.submit(event("1", data="x" * 20_000))
    assert publisher.submit(event("2")).result(timeout=10.0)
    error = large.exception(timeout=10.0)
    assert isinstance(error, BridgeError)
    assert error.code == ErrorCode.TOO_LARGE
    with pytest.raises(PublishError):
        publisher.close()


def test_no_event_is_refused_at_once(broker: Broker) -> None:
    wrong: Any = "no event"
    with pytest.raises(InvalidArgumentError, match="submit is a str"):
        broker.publisher("orders").submit(wrong)
    assert not threads("ceb-")


def test_one_thread_and_as_many_as_there_are_sends(broker: Broker, scripted: Scripted) -> None:
    gate = Gate(scripted)
    broker.publish_many("orders", [])
    assert not threads("ceb-")
    publisher = broker.publisher("orders")
    publisher.submit(event())
    until(lambda: scripted.sends)
    broker.publisher("orders").submit(event())
    assert threads("ceb-publish") == 1
    assert threads("ceb-") == 1
    gate.open.set()
    broker.close()
    assert not threads("ceb-")


def test_several_sends_at_once_from_the_buffer(broker: Broker, scripted: Scripted) -> None:
    scripted.send_traits = msgspec.structs.replace(scripted.send_traits, sends=20, batch_count=1)
    together = threading.Barrier(8)

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        together.wait(10.0)
        return [Done()]

    scripted.on_send = on_send
    publisher = broker.publisher("orders")
    for n in range(16):
        publisher.submit(event(str(n)))
    publisher.flush(timeout=20.0)
    assert scripted.most_sending == 8
    assert threads("ceb-") <= 9


def test_an_error_before_any_send_reaches_every_future(opened: Any, scripted: Scripted) -> None:
    def on_apply(changes: object) -> None:
        raise NativeError(refused())

    scripted.on_apply = on_apply
    publisher = opened(create_missing=True).publisher("orders")
    futures = [publisher.submit(event(str(n))) for n in range(3)]
    assert all(isinstance(future.exception(timeout=10.0), PermissionDeniedError) for future in futures)
    with pytest.raises(PublishError, match="3 of 3"):
        publisher.flush()


@pytest.mark.parametrize("sends", [1, 4])
def test_a_bug_in_the_sending_thread_is_an_error_and_not_the_end(
    broker: Broker, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, sends: int
) -> None:
    scripted.send_traits = msgspec.structs.replace(scripted.send_traits, sends=sends, batch_count=1)
    monkeypatch.setattr("scripted.ScriptedConnection.classify", lambda self, error: 1 / 0)

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        if sent.ids == ["bad"]:
            raise RuntimeError
        return [Done()]

    scripted.on_send = on_send
    publisher = broker.publisher("orders", linger=FOR_EVER)
    futures = [publisher.submit(event(id)) for id in ("1", "bad", "2")]
    with pytest.raises(PublishError):
        publisher.flush(timeout=10.0)
    assert all(future.done() for future in futures)
    assert isinstance(futures[1].exception(0), BridgeError)
    publisher.submit(event("3"))
    publisher.flush(timeout=10.0)
    assert "3" in scripted.sent_ids()


def test_a_callback_that_fails_disturbs_nothing(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    publisher = broker.publisher("orders")
    future = publisher.submit(event())

    def fail(_: object) -> None:
        raise ZeroDivisionError

    future.add_done_callback(fail)
    publisher.flush()
    assert publisher.submit(event()).result(timeout=10.0)


def test_ten_thousand_from_many_threads_on_a_real_broker() -> None:
    topic = Topic("orders", subscriptions=["billing"])
    with connect("memory://", topics=[topic], create_missing=True) as broker:

        def produce(number: int) -> None:
            publisher = broker.publisher("orders")
            for n in range(500):
                publisher.submit(event(f"{number}-{n}"))
            publisher.close()

        producers = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join(30.0)
        got: set[str] = set()
        with broker.subscriber("orders", "billing") as subscriber:
            while deliveries := subscriber.receive(1000, wait=0):
                got.update(delivery.event.id for delivery in deliveries)
                subscriber.ack_many(deliveries)
        assert len(got) == 2000


def test_flush_waits_for_what_was_submitted_before_only(broker: Broker, scripted: Scripted) -> None:
    publisher, stop = broker.publisher("orders", linger=0.0), threading.Event()
    publisher.submit(event("first")).result(10)

    def steadily() -> None:
        while not stop.is_set():
            publisher.submit(event("more"))

    thread = threading.Thread(target=steadily)
    thread.start()
    try:
        for _ in range(20):
            publisher.submit(event("mine"))
            publisher.flush(timeout=20)
    finally:
        stop.set()
        thread.join()


def test_a_callback_that_would_wait_for_itself_is_told_so(broker: Broker) -> None:
    publisher = broker.publisher("orders", linger=0.0, max_buffered=1)
    raised: list[BaseException] = []

    def again(_: object) -> None:
        for call in (publisher.flush, lambda: publisher.submit(event("2"))):
            try:
                call()
            except BridgeError as error:
                raised.append(error)

    future = publisher.submit(event("1"))
    future.add_done_callback(again)
    future.result(10)
    publisher.flush()
    until(lambda: len(raised) >= 1)
    assert "callback" in str(raised[0])
