"""What `publish`, `publish_many` and `submit` do when the broker does not do its part."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import pytest

from cloudevents_bridge import BridgeError, PublishError
from cloudevents_bridge.driver import Outbound, PublisherDriver
from cloudevents_bridge.errors import (
    DeadlineExceededError,
    ErrorCode,
    PermissionDeniedError,
)
from cloudevents_bridge_contract.bench import ONCE, QUICK, Bench, keys
from cloudevents_bridge_contract.faulty import InjectedError, Outcomes, Shim, To, refused, unknown
from cloudevents_bridge_contract.outcomes import NotRun
from cloudevents_bridge_contract.suite.publish import only_failed


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


class PublishTroubleCases:
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
        only_failed(caught.value, bad, BridgeError, 9)
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

    def test_silent_broker_ends_in_deadline_exceeded(self, bench: Bench) -> None:
        topic = bench.topic()
        publisher = bench.broker(topic, shim=Stuck(), retry=QUICK).publisher(topic.name)
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            publisher.publish(bench.event(), timeout=0.5)
        assert 0.4 < time.monotonic() - began < 5.0, "the time-out of the call was not kept"
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
        assert time.monotonic() - began < 5.0, "close did not keep its time-out"
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
            assert time.monotonic() - began < 5
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
