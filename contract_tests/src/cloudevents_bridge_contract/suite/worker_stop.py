"""How a worker ends: what runs is finished, the rest goes back at once, and nothing dies of it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from msgspec.structs import replace

from cloudevents_bridge import CloudEvent, Delivery, Reject, Retry, Topic
from cloudevents_bridge.driver import Received, ReceiveTraits, SubscriberDriver
from cloudevents_bridge_contract.bench import Bench, keys, native_place
from cloudevents_bridge_contract.faulty import NoDelay, Of, Shim
from cloudevents_bridge_contract.handling import HOW, Backlog, Runs, all_done, fetch_ahead, running, work, worker_of

LONG = 4
"""Leases last so many times the rig's patience where a case shows that nothing waits for them."""

SLACK = 1.0
"""Seconds that a busy machine may be late by, where a promise is in seconds."""


class WorkerStopCases:
    @HOW
    def test_stop_finishes_what_runs_and_gives_back_the_rest(self, bench: Bench, how: str) -> None:
        async def wait_on_the_loop() -> None:
            while not gate.is_set():
                await asyncio.sleep(0.005)

        topic = bench.topic(lease=LONG * bench.rig.patience)
        gate = bench.gate()
        runs = Runs(lambda delivery: wait_on_the_loop() if how == "async" else gate.wait(60))
        shim = Backlog()
        worker = worker_of(bench, topic, runs.handler(how), concurrency=3, broker=bench.broker(topic, shim=shim))
        ended = running(bench, worker)
        fetch_ahead(bench, topic, runs, shim, events := bench.events(30))
        bench.eventually(lambda: runs.inside() == 3, "three handlers run")
        worker.stop()
        ended.not_within(0.3)
        gate.set()
        stats = ended.within(bench.rig.patience)
        finished = runs.done()
        assert len(runs.all) == len(finished) == stats.handled - runs.warm == 3, (
            "stop started a handler, or cut one off"
        )
        comes_back(bench, topic, [event for event in events if event.id not in finished])
        assert bench.letters(topic, 0) == []

    @HOW
    def test_stop_within_its_grace_of_a_handler_that_hangs(self, bench: Bench, how: str) -> None:
        async def hang_on_the_loop() -> None:
            await asyncio.sleep(600)

        topic = bench.topic(lease=LONG * bench.rig.patience, max_attempts=1)
        gate = bench.gate()
        runs = Runs(lambda delivery: hang_on_the_loop() if how == "async" else gate.wait(60))
        shim = Backlog()
        broker = bench.broker(topic, shim=shim)
        worker = worker_of(bench, topic, runs.handler(how), concurrency=2, grace=60.0, broker=broker)
        ended = running(bench, worker)
        fetch_ahead(bench, topic, runs, shim, events := bench.events(5))
        bench.eventually(lambda: runs.inside() == 2, "two handlers run")
        began = time.monotonic()
        worker.stop(grace=0.5)
        ended.within(0.5 + 1.0 + bench.rig.patience)
        took = time.monotonic() - began
        assert took <= 0.5 + 1.0 + SLACK, f"it took {took:.2f} s to stop within a grace of 0.5 s"
        comes_back(bench, topic, events)
        if how == "async":
            bench.eventually(lambda: runs.inside() == 0, "the handlers are cancelled")
            assert {type(run.error) for run in runs.all} == {asyncio.CancelledError}
        gate.set()
        bench.nothing(bench.subscriber(topic), 0.3, "all was handled by somebody else")
        assert bench.letters(topic, 0) == []

    def test_handler_that_returns_after_the_end_settles_nothing(self, bench: Bench) -> None:
        topic = bench.topic(lease=LONG * bench.rig.patience)
        bench.publish(topic, event := bench.event())
        gate = bench.gate()
        runs = Runs(lambda delivery: gate.wait(60))
        worker = work(bench, topic, runs, grace=0.2)
        bench.eventually(lambda: runs.inside() == 1, "the handler runs")
        worker.close()
        subscriber = bench.subscriber(topic)
        second = bench.one(subscriber, event)
        gate.set()
        bench.eventually(lambda: runs.inside() == 0, "the first handler returns")
        second.nack(delay=0)
        bench.one(subscriber, event).ack()

    @pytest.mark.parametrize("raises", [ValueError, Retry, Reject])
    def test_failure_while_stopping(self, bench: Bench, raises: type[Exception]) -> None:
        """The handler's word counts as ever, but no failure dead-letters because the worker stops."""

        def fail(delivery: Delivery) -> None:
            gate.wait(60)
            raise Retry(60.0, "on purpose") if raises is Retry else raises("on purpose")

        topic = bench.topic(lease=LONG * bench.rig.patience)
        bench.publish(topic, event := bench.event())
        gate = bench.gate()
        runs = Runs(fail)
        worker = worker_of(bench, topic, runs)
        ended = running(bench, worker)
        bench.eventually(lambda: runs.inside() == 1, "the handler runs")
        worker.stop()
        gate.set()
        ended.within(bench.rig.patience)
        letters = bench.letters(topic, 1 if raises is Reject else 0)
        assert [letter.event for letter in letters] == ([event] if raises is Reject else [])
        subscriber = bench.subscriber(topic)
        if raises is ValueError:  # its back-off is none
            bench.one(subscriber, event).ack()
        elif bench.driver().open_subscriber(native_place(topic, 0)).traits.nack_delay >= 60:
            bench.nothing(subscriber, 0.5, f"its handler said {raises.__name__}")

    def test_stop_from_a_handler(self, bench: Bench) -> None:
        topic = bench.topic(lease=LONG * bench.rig.patience)
        runs = Runs(lambda delivery: worker.stop())
        shim = Backlog()
        worker = worker_of(bench, topic, runs, broker=bench.broker(topic, shim=shim))
        ended = running(bench, worker)
        fetch_ahead(bench, topic, runs, shim, events := bench.events(10))
        stats = ended.within(bench.rig.patience)
        assert len(runs.done()) == stats.handled - runs.warm >= 1
        comes_back(bench, topic, [event for event in events if event.id not in runs.done()])

    def test_stop_while_nothing_comes(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Shim()
        worker = worker_of(bench, topic, Runs(), broker=bench.broker(topic, shim=shim))
        ended = running(bench, worker)
        bench.eventually(lambda: shim.receives, "the worker waits for events")
        began = time.monotonic()
        worker.stop()
        ended.within(bench.rig.patience)
        within = bench.driver().open_subscriber(native_place(topic, 0)).traits.stop_within
        took = time.monotonic() - began
        assert took <= within + 1.0, f"an idle worker took {took:.2f} s to stop"

    def test_what_comes_after_stop_goes_back_at_once(self, bench: Bench) -> None:
        class Late(Shim):
            taken, stopped = threading.Event(), threading.Event()

            def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
                got = inner.receive(max_messages, wait)
                if got.messages:
                    self.taken.set()
                    self.stopped.wait(bench.rig.patience)
                return got

            def stop(self, inner: SubscriberDriver) -> None:
                """A receive that is under way goes on, and brings what it has only now."""
                self.stopped.set()

            def receive_traits(self, traits: ReceiveTraits) -> ReceiveTraits:
                return replace(traits, stop_within=1.0)

        topic = bench.topic(lease=LONG * bench.rig.patience)
        shim = Late()
        shim.taken, shim.stopped = threading.Event(), threading.Event()
        runs = Runs()
        worker = worker_of(bench, topic, runs, broker=bench.broker(topic, shim=shim))
        ended = running(bench, worker)
        bench.publish(topic, *(events := bench.events(3)))
        bench.eventually(shim.taken.is_set, "a receive has events in hand")
        worker.stop()
        ended.within(bench.rig.patience)
        assert runs.all == [], "a handler was started after stop"
        comes_back(bench, topic, events)

    def test_held_retry_goes_back_at_stop(self, bench: Bench) -> None:
        """What the worker itself holds for a later run, because the broker has no such delay."""

        def retry(delivery: Delivery) -> None:
            raise Retry(2 * bench.rig.patience, "much later")

        topic = bench.topic(lease=LONG * bench.rig.patience)
        bench.publish(topic, *(events := bench.events(3)))
        runs = Runs(retry)
        worker = work(bench, topic, runs, broker=bench.broker(topic, shim=NoDelay()))
        bench.eventually(lambda: len(runs.all) == 3 and not runs.inside(), "all three have failed")
        subscriber = bench.subscriber(topic)
        bench.nothing(subscriber, 0.3, "it is held for a retry")
        worker.close()
        arrived = bench.gather(subscriber, 3)
        assert sorted(keys(arrived)) == sorted(keys(events)), "what was held for a retry waits for its lease"
        attempts = [delivery.attempt for delivery in arrived]
        assert min(attempts) >= 2, "a failed run was not counted"
        traits = bench.driver().open_subscriber(native_place(topic, 0)).traits
        # A receive under way at stop, of the worker or of this case, may take what was just given back.
        most = 2 if traits.free_release else 3 + traits.receives
        assert max(attempts) <= most, f"stopping spent attempts: {attempts}"

    def test_rolling_restarts_dead_letter_nothing(self, bench: Bench) -> None:
        topic = bench.topic(lease=LONG * bench.rig.patience, max_attempts=5)
        bench.publish(topic, *(events := bench.events(20)))
        # Where giving back spends an attempt, an event that was given back often has the process for itself.
        traits = bench.driver().open_subscriber(native_place(topic, 0)).traits
        enough = 2 if traits.free_release else 1
        # Where the broker itself gives up early, there cannot be as many.
        restarts = 10 if traits.free_release else min(10, (traits.removes_after or 20) - 4)
        gate = bench.gate()
        for _ in range(restarts):
            runs = Runs(lambda delivery: gate.wait(60))
            worker = work(bench, topic, runs, concurrency=2, grace=0.0)
            bench.eventually(lambda runs=runs: runs.inside() >= enough, "handlers run")  # type: ignore[misc]
            worker.close()
        comes_back(bench, topic, events, restarts)
        assert bench.letters(topic, 0) == []

    def test_start_stop_and_close_in_any_order(self, bench: Bench) -> None:
        topic = bench.topic()
        broker = bench.broker(topic)
        unused = broker.worker()
        unused.close()
        unused.close()
        runs = Runs()
        with broker.worker().add(topic.name, topic.subscriptions[0].name, runs) as worker:
            bench.publish(topic, event := bench.event())
            all_done(bench, runs, [event])
        worker.stop()
        worker.close()
        bench.publish(topic, after := bench.event())
        bench.one(bench.subscriber(topic), after).ack()
        assert len(runs.all) == 1, "a worker that was closed handled an event"

    def test_closing_the_broker_ends_its_workers(self, bench: Bench) -> None:
        topic = bench.topic(lease=LONG * bench.rig.patience)
        bench.publish(topic, *(events := bench.events(5)))
        broker = bench.broker(topic)
        runs = Runs()
        work(bench, topic, runs, broker=broker)
        all_done(bench, runs, events)
        broker.close()
        bench.publish(topic, after := bench.event())
        bench.one(bench.subscriber(topic), after).ack()


def comes_back(bench: Bench, topic: Topic, events: list[CloudEvent], stops: int = 1) -> None:
    """All of them arrive long before a lease ends, with no attempt spent where the broker can do so; they are acked."""
    arrived = bench.gather(bench.subscriber(topic), len(events))
    assert sorted(keys(arrived)) == sorted(keys(events)), "what was not handled is not what came back"
    traits = bench.driver().open_subscriber(native_place(topic, 0)).traits
    # A receive under way at stop may take what was just given back, and then the next one may.
    most = 1 if traits.free_release else 1 + (1 + traits.receives) * stops
    spent = {delivery.attempt for delivery in arrived if delivery.attempt > most}
    assert not spent, f"stopping spent attempts: it comes back as attempt {spent}"
