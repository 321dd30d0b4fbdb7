"""publish and publish_many: what is sent, what is tried again, and what is said of each event."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from scripted import NativeError, Scripted, Sent, busy, event, refused

from cloudevents_bridge import Broker, CloudEvent, PublishError, Receipt, RetryPolicy, Topic, UnsupportedError
from cloudevents_bridge.driver import Capability, Done, Fault
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    ErrorCode,
    EventTooLargeError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnavailableError,
)

ORDERED = [Topic("orders", ordered=True, subscriptions=["billing"])]


def answers(scripted: Scripted, *said: Done | Fault | BaseException) -> None:
    """What the next sends say of each of their events; after that, success."""
    waiting = list(said)
    usual = scripted.on_send

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        if not waiting:
            return usual(sent, timeout)
        answer = waiting.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return [answer] * len(sent.batch)

    scripted.on_send = on_send


def test_one_event_and_its_receipt(broker: Broker, scripted: Scripted) -> None:
    answers(scripted, Done("native", "42"))
    assert broker.publish("orders", event("7")) == Receipt("7", "native", "42")
    assert scripted.sends[0].place == "topic orders"


def test_what_the_broker_is_told_of_an_event(broker: Broker, scripted: Scripted) -> None:
    broker.publish("orders", event("7", key="k"), delay=2.5)
    [message] = scripted.sends[0].batch
    assert (message.key, message.delay, message.ttl) == ("k", 2.5, None)
    assert message.dedup


def test_the_deduplication_id_is_that_of_source_and_id(broker: Broker, scripted: Scripted) -> None:
    for source, id in [("/a", "1"), ("/a", "1"), ("/a", "2"), ("/b", "1")]:
        broker.publish("orders", CloudEvent(type="a.b", source=source, id=id))
    first, again, other_id, other_source = (sent.batch[0].dedup for sent in scripted.sends)
    assert first == again
    assert len({first, other_id, other_source}) == 3


def test_a_busy_broker_is_asked_again_with_the_same_message(broker: Broker, scripted: Scripted) -> None:
    answers(scripted, busy(), NativeError(busy()), Done("native"))
    assert broker.publish("orders", event()).native_id == "native"
    assert len(scripted.sends) == 3
    assert len({sent.batch[0].dedup for sent in scripted.sends}) == 1


def test_a_lost_answer_is_retried_and_then_said_to_be_unknown(broker: Broker, scripted: Scripted) -> None:
    lost = busy(maybe_applied=True)
    answers(scripted, lost, *[busy()] * 9)
    with pytest.raises(UnavailableError, match="may have been done all the same") as caught:
        broker.publish("orders", event())
    assert caught.value.maybe_applied
    assert len(scripted.sends) == 5


def test_a_lost_answer_and_then_a_refusal_is_unknown_too(broker: Broker, scripted: Scripted) -> None:
    answers(scripted, busy(maybe_applied=True), refused())
    with pytest.raises(PermissionDeniedError) as caught:
        broker.publish("orders", event())
    assert caught.value.maybe_applied


def test_a_lost_answer_and_then_a_receipt_is_a_receipt(broker: Broker, scripted: Scripted) -> None:
    answers(scripted, busy(maybe_applied=True), Done("second"))
    assert broker.publish("orders", event()).native_id == "second"


def test_an_unknown_native_error_is_not_tried_again(broker: Broker, scripted: Scripted) -> None:
    native = RuntimeError("strange")
    answers(scripted, native)
    with pytest.raises(BridgeError, match="strange") as caught:
        broker.publish("orders", event())
    assert caught.value.code == ErrorCode.UNKNOWN
    assert caught.value.__cause__ is native
    assert len(scripted.sends) == 1


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupts_are_not_wrapped(broker: Broker, scripted: Scripted, interrupt: type[BaseException]) -> None:
    answers(scripted, interrupt())
    with pytest.raises(interrupt):
        broker.publish("orders", event())


def test_an_error_says_what_where_and_what_to_do(broker: Broker, scripted: Scripted) -> None:
    answers(scripted, Fault(ErrorCode.NOT_FOUND, False, False, message="no such thing"))
    with pytest.raises(LookupError) as caught:
        broker.publish("orders", event("7"))
    text = str(caught.value)
    for part in ("orders", "scripted://here", "7", "com.example.test", "no such thing", "ceb topology apply"):
        assert part in text
    assert isinstance(caught.value, BridgeError)
    assert caught.value.broker == "scripted://here"


def test_a_failed_send_does_not_keep_its_events_alive(broker: Broker, scripted: Scripted) -> None:
    """The native error is kept as the cause, and its traceback leads to the events: a cycle that must be collected."""
    errors: list[weakref.ref[BaseException]] = []

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        native = NativeError(refused())
        errors.append(weakref.ref(native))
        raise native

    scripted.on_send = on_send
    with pytest.raises(BridgeError):
        broker.publish("orders", event())
    scripted.sends.clear()
    gc.collect()
    assert [error() for error in errors] == [None]


def test_what_arrives_is_said_in_order(opened: Any, scripted: Scripted) -> None:
    broker = opened(topics=ORDERED)

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        return [refused() if id in ("3", "b1") else Done(f"n{id}") for id in sent.ids]

    scripted.on_send = on_send
    events = [event(str(n)) for n in range(25)] + [
        event("b0", "b"),
        event("b1", "b"),
        event("b2", "b"),
        event("c", "c"),
    ]
    with pytest.raises(PublishError, match="3 of 29 events for topic orders") as caught:
        broker.publish_many("orders", events)
    error = caught.value
    assert len(error.outcomes) == 29
    for one, outcome in zip(events, error.outcomes, strict=True):
        if one.id in ("3", "b1"):
            assert isinstance(outcome, PermissionDeniedError)
        elif one.id == "b2":
            assert isinstance(outcome, BridgeError)
            assert outcome.code == ErrorCode.FAILED_PRECONDITION
        else:
            assert outcome == Receipt(one.id, f"n{one.id}", None)
    assert [failed.id for failed, _ in error.failed] == ["3", "b1", "b2"]
    assert [each for _, each in error.failed] == [o for o in error.outcomes if isinstance(o, BridgeError)]
    assert "b2" not in scripted.sent_ids()
    assert error.code == ErrorCode.PERMISSION_DENIED


def test_a_key_that_failed_stays_failed_in_a_long_call(opened: Any, scripted: Scripted) -> None:
    broker = opened(topics=ORDERED)
    scripted.on_send = lambda sent, timeout: [refused() if id == "0" else Done() for id in sent.ids]
    events = [event(str(n), "a" if n % 2 == 0 else "b") for n in range(500)]
    with pytest.raises(PublishError) as caught:
        broker.publish_many("orders", events, timeout=60)
    assert [one.id for one, _ in caught.value.failed] == [str(n) for n in range(0, 500, 2)]
    assert [id for id in scripted.sent_ids() if int(id) % 2 == 0] == ["0"]


def test_a_key_is_in_order_however_often_it_is_refused(opened: Any, scripted: Scripted) -> None:
    broker = opened(topics=ORDERED)
    tries: dict[str, int] = {}
    accepted: list[str] = []

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        outcomes: list[Done | Fault] = []
        for id in sent.ids:
            tries[id] = tries.get(id, 0) + 1
            if tries[id] <= int(id) % 4:
                outcomes.append(busy())
            else:
                accepted.append(id)
                outcomes.append(Done())
        return outcomes

    scripted.on_send = on_send
    broker.publish_many("orders", [event(str(n), f"key-{n % 3}") for n in range(90)])
    for key in range(3):
        mine = [int(id) for id in accepted if int(id) % 3 == key]
        assert mine == sorted(mine)
    assert len(accepted) == 90


def test_one_oversize_event_among_good_ones(broker: Broker, scripted: Scripted) -> None:
    events = [event(str(n)) for n in range(5)]
    events[2] = event("2", data="x" * 20_000)
    with pytest.raises(PublishError) as caught:
        broker.publish_many("orders", events)
    [(one, error)] = caught.value.failed
    assert one.id == "2"
    assert isinstance(error, EventTooLargeError)
    assert "10000" in str(error)
    assert [isinstance(o, Receipt) for o in caught.value.outcomes] == [True, True, False, True, True]
    assert scripted.sent_ids() == ["0", "1", "3", "4"]


@pytest.mark.parametrize("ordered", [False, True])
def test_only_oversize_events(opened: Any, scripted: Scripted, ordered: bool) -> None:
    broker = opened(topics=ORDERED if ordered else ())
    large = event("1", "k", data="x" * 20_000)
    with pytest.raises(EventTooLargeError):
        broker.publish("orders", large)
    with pytest.raises(PublishError) as caught:
        broker.publish_many("orders", [large, large])
    assert len(caught.value.outcomes) == 2
    assert not scripted.sends


def test_an_event_at_the_limit_and_one_byte_over(broker: Broker, scripted: Scripted) -> None:
    broker.publish("orders", event("1", data="x"))
    [message] = scripted.sends[0].batch
    overhead = len(message.body) + sum(len(k) + len(v) for k, v in message.attributes.items()) - 1
    broker.publish("orders", event("1", data="x" * (10_000 - overhead)))
    with pytest.raises(EventTooLargeError):
        broker.publish("orders", event("1", data="x" * (10_001 - overhead)))


def test_a_batch_the_broker_finds_too_large_is_bisected(broker: Broker, scripted: Scripted) -> None:
    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        if len(sent.batch) > 3:
            raise NativeError(refused(ErrorCode.TOO_LARGE))
        return [Done()] * len(sent.batch)

    scripted.on_send = on_send
    assert len(broker.publish_many("orders", [event(str(n)) for n in range(10)])) == 10


def test_a_wrong_item_and_nothing_is_sent(broker: Broker, scripted: Scripted) -> None:
    bad: Any = {"type": "no.event"}
    with pytest.raises(InvalidArgumentError, match=r"item 3 is a dict"):
        broker.publish_many("orders", [event(), event(), event(), bad])
    with pytest.raises(InvalidArgumentError, match="dict"):
        broker.publish("orders", bad)
    assert not scripted.sends


def test_an_iterable_that_fails_sends_nothing(broker: Broker, scripted: Scripted) -> None:
    def events() -> Any:
        yield event()
        raise OSError("the file ends")

    with pytest.raises(OSError, match="the file ends"):
        broker.publish_many("orders", events())
    assert not scripted.sends


def test_nothing_to_publish(broker: Broker, scripted: Scripted) -> None:
    assert broker.publish_many("orders", []) == []
    assert not scripted.sends


def test_delay_is_refused_where_the_broker_has_none(opened: Any, scripted: Scripted) -> None:
    scripted.capabilities = frozenset()
    publisher = opened().publisher("orders")
    for call in (publisher.publish, publisher.submit):
        with pytest.raises(UnsupportedError, match=r"scripted://here does not have the capability 'delay'"):
            call(event(), delay=1.0)
    with pytest.raises(UnsupportedError):
        publisher.publish_many([event()], delay=1.0)
    publisher.publish(event(), delay=0.0)


@pytest.mark.parametrize("delay", [-1.0, math.nan, math.inf])
def test_a_delay_that_is_none(broker: Broker, scripted: Scripted, delay: float) -> None:
    publisher = broker.publisher("orders")
    with pytest.raises(InvalidArgumentError, match="delay"):
        publisher.publish(event(), delay=delay)
    with pytest.raises(InvalidArgumentError, match="delay"):
        publisher.submit(event(), delay=delay)
    assert not scripted.sends


@pytest.mark.parametrize("options", [{"linger": -1.0}, {"linger": math.nan}, {"max_buffered": 0}, {"on_full": "drop"}])
def test_options_of_a_publisher_are_checked(broker: Broker, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        broker.publisher("orders", **options)


def test_a_topic_name_is_checked_before_anything_is_sent(broker: Broker, scripted: Scripted) -> None:
    with pytest.raises(ConfigurationError, match="Orders"):
        broker.publish("Orders", event())
    assert not scripted.sends


def test_the_time_limit_covers_the_retries(opened: Any, scripted: Scripted) -> None:
    broker = opened(retry=RetryPolicy(attempts=None, initial=0.01, maximum=0.01))
    scripted.on_send = lambda sent, timeout: [busy()] * len(sent.batch)
    begun = time.monotonic()
    with pytest.raises((UnavailableError, DeadlineExceededError)):
        broker.publish("orders", event(), timeout=1.0)
    assert 0.5 < time.monotonic() - begun < 5.0
    assert len(scripted.sends) > 3


def test_the_driver_is_told_how_long_it_has(broker: Broker, scripted: Scripted) -> None:
    told: list[float] = []

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        told.append(timeout)
        return [Done()] * len(sent.batch)

    scripted.on_send = on_send
    broker.publish("orders", event(), timeout=2.0)
    broker.publish("orders", event())
    assert 1.5 < told[0] <= 2.0
    assert 4.5 < told[1] <= 5.0


def test_no_time_at_all(broker: Broker, scripted: Scripted) -> None:
    with pytest.raises(DeadlineExceededError):
        broker.publish("orders", event(), timeout=0.0)
    assert not scripted.sends


def test_retry_after_is_waited_for(broker: Broker, scripted: Scripted) -> None:
    answers(scripted, busy(after=0.15))
    begun = time.monotonic()
    broker.publish("orders", event())
    assert time.monotonic() - begun >= 0.15


def test_several_sends_at_once_up_to_what_the_driver_takes(broker: Broker, scripted: Scripted) -> None:
    scripted.send_traits = msgspec.structs.replace(scripted.send_traits, sends=4, batch_count=2)
    together = threading.Barrier(4)

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        together.wait(10.0)
        return [Done(f"n{id}") for id in sent.ids]

    scripted.on_send = on_send
    receipts = broker.publish_many("orders", [event(str(n)) for n in range(16)])
    assert [receipt.native_id for receipt in receipts] == [f"n{n}" for n in range(16)]
    assert scripted.most_sending == 4


def test_never_more_than_eight_sends(broker: Broker, scripted: Scripted) -> None:
    scripted.send_traits = msgspec.structs.replace(scripted.send_traits, sends=100, batch_count=1)
    together = threading.Barrier(8)

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        together.wait(10.0)
        return [Done()]

    scripted.on_send = on_send
    broker.publish_many("orders", [event(str(n)) for n in range(24)])
    assert scripted.most_sending == 8
    assert sum(thread.name.startswith("ceb-send") for thread in threading.enumerate()) <= 8


def test_one_send_of_a_key_at_a_time_with_many_sends(opened: Any, scripted: Scripted) -> None:
    broker = opened(topics=ORDERED)
    scripted.send_traits = msgspec.structs.replace(scripted.send_traits, sends=8, batch_count=3)
    lock, flying, accepted = threading.Lock(), set[str](), list[str]()

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        keys = {message.key for message in sent.batch if message.key}
        with lock:
            assert not keys & flying
            flying.update(keys)
        time.sleep(0.001)
        with lock:
            flying.difference_update(keys)
            accepted.extend(sent.ids)
        return [Done()] * len(sent.batch)

    scripted.on_send = on_send
    broker.publish_many("orders", [event(str(n), f"key-{n % 7}") for n in range(140)])
    for key in range(7):
        mine = [int(id) for id in accepted if int(id) % 7 == key]
        assert mine == sorted(mine)
        assert len(mine) == 20


def test_a_driver_that_miscounts_is_caught(broker: Broker, scripted: Scripted) -> None:
    scripted.on_send = lambda sent, timeout: [Done()]
    with pytest.raises(PublishError, match="1 outcomes for 2 events") as caught:
        broker.publish_many("orders", [event("1"), event("2")])
    assert caught.value.maybe_applied


def test_a_driver_whose_size_fails_is_an_error_of_that_event(
    broker: Broker, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(self: object, message: object) -> int:
        raise RuntimeError("no size")

    monkeypatch.setattr("scripted.ScriptedPublisher.size", size)
    with pytest.raises(BridgeError, match="no size"):
        broker.publish("orders", event())
    publisher = broker.publisher("orders")
    future = publisher.submit(event())
    assert isinstance(future.exception(timeout=5.0), BridgeError)
    with pytest.raises(PublishError):
        publisher.close()


def test_publishing_starts_no_thread(broker: Broker) -> None:
    before = set(threading.enumerate())
    broker.publish("orders", event())
    broker.publish_many("orders", [event(), event()])
    assert set(threading.enumerate()) == before


def test_after_close_everything_says_so(broker: Broker) -> None:
    publisher = broker.publisher("orders")
    publisher.publish(event())
    publisher.close()
    publisher.close()
    assert publisher.closed
    for call in (publisher.publish, publisher.submit):
        with pytest.raises(ClosedError, match="orders"):
            call(event())
    with pytest.raises(ClosedError):
        publisher.publish_many([])
    broker.publish("orders", event())
    broker.close()
    broker.close()
    with pytest.raises(ClosedError, match="scripted://here was closed"):
        broker.publish("orders", event())
    with pytest.raises(ClosedError):
        broker.publisher("orders")


def test_closing_closes_the_driver(broker: Broker, scripted: Scripted) -> None:
    broker.publish("orders", event())
    broker.close()
    assert all(each.closed for each in scripted.opened)
    assert len(scripted.opened) == 2


def test_publishing_from_many_threads_loses_nothing(broker: Broker, scripted: Scripted) -> None:
    def work(number: int) -> None:
        for n in range(20):
            broker.publish("orders", event(f"{number}-{n}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert len(set(scripted.sent_ids())) == 100
    assert scripted.calls["connect"] == 1


def test_expiry_is_told_where_the_broker_can(opened: Any, scripted: Scripted) -> None:
    from datetime import UTC, datetime, timedelta

    soon = CloudEvent(type="a.b", source="/test", extensions={"expirytime": datetime.now(UTC) + timedelta(seconds=100)})
    past = CloudEvent(type="a.b", source="/test", extensions={"expirytime": datetime.now(UTC) - timedelta(days=1)})
    broker = opened()
    broker.publish_many("orders", [soon, past])
    ttl, over = (message.ttl for message in scripted.sends[0].batch)
    assert ttl is not None
    assert 90.0 < ttl <= 100.0
    assert over == 0.0
    scripted.capabilities -= {Capability.EXPIRY}
    opened().publish("orders", soon)
    assert scripted.sends[-1].batch[0].ttl is None


def test_an_event_that_reaches_nobody_is_said_once(
    broker: Broker, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on_send = lambda sent, timeout: [Done(reached=0)] * len(sent.batch)
    broker.publish("orders", event("7"))
    broker.publish_many("orders", [event(), event()])
    [record] = caplog.records
    assert "7" in record.getMessage()
    assert "reached no subscription" in record.getMessage()


def test_secrets_are_in_no_repr(opened: Any) -> None:
    broker = opened(secret="hunter2")
    with pytest.raises(BridgeError) as caught:
        broker.publisher("orders", max_buffered=0)
    for shown in (
        repr(broker),
        str(broker),
        repr(broker.publisher("orders")),
        str(caught.value),
        repr(broker.topology),
    ):
        assert "hunter2" not in shown


def test_one_event_whose_answer_is_lost_at_the_deadline_is_unknown(broker: Broker, scripted: Scripted) -> None:
    def too_late(sent: Sent, timeout: float) -> list[Fault]:
        time.sleep(timeout)
        return [Fault(ErrorCode.DEADLINE_EXCEEDED, retryable=True, maybe_applied=True)]

    scripted.on_send = too_late
    with pytest.raises(BridgeError) as caught:
        broker.publish("orders", event("1"), timeout=0.05)
    assert caught.value.maybe_applied
    assert caught.value.code == ErrorCode.DEADLINE_EXCEEDED
