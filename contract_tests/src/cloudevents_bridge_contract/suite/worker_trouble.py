"""What a worker makes of leases that are lost, brokers that are down, and processes that die."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from cloudevents_bridge import BridgeError, Delivery
from cloudevents_bridge.driver import Fault, Inbound, Received, SubscriberDriver, Verb
from cloudevents_bridge.errors import ErrorCode, NotFoundError
from cloudevents_bridge_contract.bench import ONCE, QUICK, Bench
from cloudevents_bridge_contract.faulty import InjectedError, Of, Outcomes, Shim, refused, unknown
from cloudevents_bridge_contract.handling import GRACE, HOW, Runs, all_done, each_handled_once, running, work


class Settles(Shim):
    """Notes which attempts were settled how, and lets a case answer in place of the broker.

    Attributes:
        words: verb and attempt of each delivery that was settled or extended, in their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words: list[tuple[Verb, int | None]] = []

    def instead(self, verb: Verb, message: Inbound) -> Fault | None:
        """The broker's answer; None: what the broker says."""
        return None

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        with self.lock:
            self.words += [(verb, message.attempt) for message in messages]
        faults = [self.instead(verb, message) for message in messages]
        rest = [message for message, fault in zip(messages, faults, strict=True) if fault is None]
        said = iter(inner.settle(verb, rest, seconds=seconds, reason=reason, timeout=timeout) if rest else ())
        return [next(said) if fault is None else fault for fault in faults]


class Down(Shim):
    """A broker that cannot be reached while `fault` is set."""

    fault: Fault | None = None

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        if self.fault:
            raise InjectedError(self.fault)
        return inner.receive(max_messages, min(wait, 0.2))

    def settle(
        self, inner: SubscriberDriver, of: Of, verb: Verb, messages: Sequence[Inbound], **how: object
    ) -> Outcomes:
        if self.fault:
            raise InjectedError(self.fault)
        return super().settle(inner, of, verb, messages, **how)  # type: ignore[arg-type]


class Waiter:
    """What a handler does that looks whether its lease is lost on its first attempt, and returns at once later."""

    def __init__(self, how: str, patience: float) -> None:
        self.told = threading.Event()
        self._how, self._patience = how, patience

    def __call__(self, delivery: Delivery) -> object:
        if delivery.attempt > 1:
            return None
        if self._how == "async":
            return asyncio.sleep(self._patience)  # it is cancelled
        until = time.monotonic() + self._patience
        while not delivery.lease_lost and time.monotonic() < until:
            time.sleep(0.01)
        if delivery.lease_lost:
            self.told.set()
        return None

    def check(self, runs: Runs) -> None:
        """The first run was told, or cancelled."""
        if self._how == "async":
            assert isinstance(runs.all[0].error, asyncio.CancelledError), "the handler was not cancelled"
        else:
            assert self.told.is_set(), "the handler was not told"


class WorkerTroubleCases:
    @HOW
    def test_lost_lease_is_told_to_the_handler(self, bench: Bench, how: str) -> None:
        class Loses(Settles):
            def instead(self, verb: Verb, message: Inbound) -> Fault | None:
                return refused(ErrorCode.LEASE_LOST) if verb == "extend" and message.attempt == 1 else None

        lease = max(1.0, bench.lease)
        topic = bench.topic(lease=lease)
        bench.publish(topic, event := bench.event())
        shim = Loses()
        waits = Waiter(how, lease + bench.rig.patience)
        runs = Runs(waits)
        worker = work(bench, topic, runs.handler(how), broker=bench.broker(topic, shim=shim))
        bench.eventually(
            lambda: [run.attempt for run in runs.all if run.ended] == [1, 2],
            "the event is delivered again",
            patience=2 * lease + 2 * bench.rig.patience,
        )
        worker.close()
        waits.check(runs)
        settled = [word for word in shim.words if word[0] != "extend"]
        assert settled == [("ack", 2)], f"a delivery whose lease is lost was settled: {settled}"
        assert worker.stats.handled == 1
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "the second run acked it")
        assert bench.letters(topic, 0) == []
        assert runs.of(event)[1].error is None

    @HOW
    def test_stream_that_is_taken_away_is_told_to_the_handler(self, bench: Bench, how: str) -> None:
        class Taking(Settles):
            taken = threading.Event()
            told = False

            def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
                if self.taken.is_set() and not self.told:
                    self.told = True
                    return Received(lost=("the one",))
                got = inner.receive(max_messages, min(wait, 0.1))
                return Received([replace(m, stream="the one") for m in got.messages], got.lost)

        lease = max(2.0, bench.lease)
        topic = bench.topic(lease=lease)
        bench.publish(topic, event := bench.event())
        shim = Taking()
        shim.taken = threading.Event()
        waits = Waiter(how, lease + bench.rig.patience)
        runs = Runs(waits)
        worker = work(bench, topic, runs.handler(how), concurrency=2, broker=bench.broker(topic, shim=shim))
        bench.eventually(lambda: runs.inside() == 1, "the handler runs")
        shim.taken.set()
        bench.eventually(lambda: runs.all[0].ended is not None, "the handler is told")
        waits.check(runs)
        all_done(bench, runs, [event], patience=2 * lease + bench.rig.patience)
        bench.eventually(lambda: ("ack", 2) in shim.words, "the second run is acked", patience=2 * lease + GRACE)
        worker.close()
        assert [word for word in shim.words if word[0] != "extend"] == [("ack", 2)]

    def test_broker_that_is_down_is_waited_for(self, bench: Bench) -> None:
        topic = bench.topic(lease=max(1.0, bench.lease))
        shim = Down()
        gate = bench.gate()
        runs = Runs(lambda delivery: gate.wait(60))
        worker = work(bench, topic, runs, concurrency=2, broker=bench.broker(topic, shim=shim, retry=ONCE))
        bench.publish(topic, first := bench.event())
        bench.eventually(lambda: runs.inside() == 1, "the first event is being handled")
        bench.eventually(lambda: worker.stats.connected, "the worker is connected")
        shim.fault = refused(ErrorCode.UNAVAILABLE, "the broker is down", retryable=True)
        bench.eventually(lambda: not worker.stats.connected, "it sees that the broker is down")
        gate.set()  # nobody can be told now that it is handled
        bench.publish(topic, *(others := bench.events(5)))
        bench.eventually(lambda: first.id in runs.done(), "the first run ends")
        shim.fault = None
        all_done(bench, runs, [first, *others], patience=3 * bench.rig.patience)
        bench.eventually(lambda: worker.stats.connected, "the worker is connected again")
        bench.eventually(lambda: worker.stats.in_flight == 0, "nothing is in flight any more")
        worker.close()
        assert [len(runs.of(event)) for event in others] == [1] * 5
        subscriber = bench.subscriber(topic)
        for delivery in subscriber.receive(wait=1.5 * max(1.0, bench.lease)):
            assert delivery.event == first, "only what could not be acked may come again"
            delivery.ack()
        assert bench.letters(topic, 0) == []

    @pytest.mark.parametrize("code", [ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED])
    def test_rights_that_never_worked_stop_the_worker(self, bench: Bench, code: ErrorCode) -> None:
        topic = bench.topic()
        shim = Down()
        shim.fault = refused(code, "no entry")
        worker = bench.broker(topic, shim=shim, retry=ONCE).worker(grace=1.0)
        worker.add(topic.name, topic.subscriptions[0].name, Runs())
        with pytest.raises(BridgeError, match="no entry") as caught:
            running(bench, worker).within(bench.rig.patience)
        assert caught.value.code == code
        assert topic.name in str(caught.value), f"the error does not say what was refused: {caught.value}"

    def test_token_that_expires_is_waited_for(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Down()
        runs = Runs()
        worker = work(bench, topic, runs, broker=bench.broker(topic, shim=shim, retry=ONCE))
        bench.publish(topic, first := bench.event())
        all_done(bench, runs, [first])
        bench.eventually(lambda: worker.stats.handled == 1, "it is acked")
        shim.fault = refused(ErrorCode.UNAUTHENTICATED, "the token has expired")
        bench.eventually(lambda: not worker.stats.connected, "it sees that its token has expired")
        bench.publish(topic, second := bench.event())
        shim.fault = None
        all_done(bench, runs, [second], patience=3 * bench.rig.patience)
        worker.close()
        each_handled_once(bench, runs, [first, second])

    def test_missing_subscription_comes_out_of_run(self, bench: Bench) -> None:
        topic = bench.topic()
        worker = bench.broker(topic, create_missing=False).worker(grace=1.0)
        runs = Runs()
        worker.add(topic.name, topic.subscriptions[0].name, runs).add(topic.name, "missing-one", runs)
        with pytest.raises(NotFoundError) as caught:
            running(bench, worker).within(bench.rig.patience)
        assert topic.name in str(caught.value)
        assert "missing-one" in str(caught.value)
        bench.publish(topic, event := bench.event())
        bench.one(bench.subscriber(topic), event).ack()

    def test_missing_subscription_comes_out_of_close(self, bench: Bench) -> None:
        topic = bench.topic()
        before = set(threading.enumerate())
        worker = bench.broker(topic, create_missing=False).worker(grace=1.0)
        worker.add(topic.name, "missing-one", Runs())
        worker.start()
        bench.eventually(lambda: set(threading.enumerate()) <= before, "the worker ends by itself")
        with pytest.raises(NotFoundError, match="missing-one"):
            worker.close()

    def test_ack_whose_answer_is_lost_runs_nothing_again(self, bench: Bench) -> None:
        class Mute(Shim):
            lost = 0

            def settle(
                self, inner: SubscriberDriver, of: Of, verb: Verb, messages: Sequence[Inbound], **how: object
            ) -> Outcomes:
                said = super().settle(inner, of, verb, messages, **how)  # type: ignore[arg-type]
                with self.lock:
                    lose = verb == "ack" and self.lost < 3
                    self.lost += lose
                if lose:
                    raise InjectedError(unknown())
                return said

        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, *(events := bench.events(5)))
        shim = Mute()
        runs = Runs()
        worker = work(bench, topic, runs, broker=bench.broker(topic, shim=shim, retry=QUICK))
        all_done(bench, runs, events)
        bench.eventually(lambda: worker.stats.in_flight == 0, "all is settled")
        worker.close()
        assert shim.lost == 3, "no answer was lost"
        each_handled_once(bench, runs, events)
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "it was acked")
        assert bench.letters(topic, 0) == []

    def test_settle_that_fails_for_one_fails_for_no_other(self, bench: Bench) -> None:
        class Refuses(Settles):
            def instead(self, verb: Verb, message: Inbound) -> Fault | None:
                bad = verb == "ack" and message.attempt == 1 and b'"bad"' in message.body
                return refused(ErrorCode.INTERNAL, "no such receipt") if bad else None

        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bad, *others = events = [bench.event(data="bad"), *bench.events(9)]
        bench.publish(topic, *events)
        runs = Runs()
        worker = work(bench, topic, runs, concurrency=4, broker=bench.broker(topic, shim=Refuses()))
        bench.eventually(
            lambda: len(runs.of(bad)) == 2, "what could not be acked comes again", patience=lease + bench.rig.patience
        )
        all_done(bench, runs, events)
        bench.eventually(lambda: worker.stats.in_flight == 0, "all is settled")
        worker.close()
        assert [len(runs.of(event)) for event in others] == [1] * 9
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "all were acked in the end")
