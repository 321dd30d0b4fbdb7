"""What a worker leaves behind, and what it costs while it runs."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cloudevents_bridge import Broker, Delivery, Reject, Topic
from cloudevents_bridge_contract.bench import Bench, native_place
from cloudevents_bridge_contract.handling import Runs, all_done, work, worker_of
from cloudevents_bridge_contract.suite.life import _more, _open_files, _threads, start_program


def _work_through(bench: Bench, topic: Topic, broker: Broker) -> None:
    """Everything that a worker can be used for: both kinds of handler, a batch, a failure, a dead letter."""

    def handle(delivery: Delivery) -> None:
        if delivery.event.id == failing.id and delivery.attempt == 1:
            raise ValueError("once")
        if delivery.event.id == rejected.id:
            raise Reject("of no use")

    def handle_batch(deliveries: list[Delivery]) -> None:
        with third.noting(*deliveries):
            pass

    failing, rejected, *good = events = bench.events(12)
    first, second, third = Runs(handle), Runs(lambda delivery: asyncio.sleep(0.001)), Runs()
    names = [each.name for each in topic.subscriptions]
    worker = broker.worker()
    worker.add(topic.name, names[0], first, concurrency=3)
    worker.add(topic.name, names[1], second.handler("async"), concurrency=3)
    worker.add(topic.name, names[2], handle_batch, batch=4)
    with worker:
        for event in events:  # one by one: whatever sends many at once would have threads of its own
            broker.publish(topic.name, event)
        all_done(bench, first, [failing, *good])
        all_done(bench, second, events)
        all_done(bench, third, events)
        bench.eventually(lambda: worker.stats.dead_lettered == 1, "one is dead-lettered")


class LifeWorkerCases:
    def test_worker_without_use_does_no_io(self, bench: Bench) -> None:
        before = _threads()
        with bench.rig.broker(bench.url, topics=[bench.declare()]) as broker:
            broker.worker().add(bench.name("none"), "alpha", Runs(), concurrency=8)
            assert _threads() <= before, "a worker that was not started has threads"

    def test_worker_leaves_nothing(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        topic = bench.topic(3)
        with bench.rig.broker(bench.url, topics=[topic]) as broker:
            _work_through(bench, topic, broker)  # whatever is made once per process is there now
        threads, files = _threads(), _open_files()
        with bench.rig.broker(bench.url, topics=[topic]) as broker:
            _work_through(bench, topic, broker)
        bench.eventually(lambda: _threads() <= threads, "the threads end")
        with suppress(AssertionError):
            bench.eventually(lambda: not _more(files, _open_files()), "files and sockets are closed")
        assert _more(files, _open_files()) == [], "files or sockets were left open"
        assert list(tmp_path.iterdir()) == [], "a temporary file was left"

    def test_worker_leaves_no_thread_on_a_broker_that_stays_open(self, bench: Bench) -> None:
        topic = bench.topic(3)
        broker = bench.broker(topic)
        bench.publish(topic, bench.event())
        broker.ping()
        _work_through(bench, topic, broker)
        threads, files = _threads(), _open_files()
        for _ in range(10):
            before, files = files, _open_files()
            for _ in range(2):
                _work_through(bench, topic, broker)
            bench.eventually(lambda: _threads() <= threads, "the threads of workers that were closed end")
            # The connection may keep what as many at once need, and reach that late; it may not grow for ever.
            if len(_open_files()) <= len(files):
                break
        else:
            pytest.fail(f"each worker left something open: {_more(before, _open_files())}")

    @pytest.mark.parametrize(("how", "concurrency"), [("def", 1), ("def", 8), ("async", 64)])
    def test_worker_has_the_threads_that_are_documented(self, bench: Bench, how: str, concurrency: int) -> None:
        async def wait_on_the_loop() -> None:
            while not gate.is_set():
                await asyncio.sleep(0.01)

        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(2 * concurrency)))
        gate = bench.gate()
        runs = Runs(lambda delivery: wait_on_the_loop() if how == "async" else gate.wait(60))
        before = len(_threads())
        broker = bench.broker(topic)
        worker = worker_of(bench, topic, runs.handler(how), concurrency=concurrency, broker=broker)
        worker.start()
        bench.eventually(lambda: runs.inside() == concurrency, "all handlers run")
        handlers = concurrency if how == "def" else 1
        receives = bench.driver().open_subscriber(native_place(topic, 0)).traits.receives
        allowed = handlers + OWN_THREADS + (receives - 1) + (min(4, receives) - 1) + bench.rig.threads_to_receive
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            threads = len(_threads()) - before
            assert threads <= allowed, f"{threads} threads for a worker that is to have {allowed}: {_threads()}"
            time.sleep(0.01)
        gate.set()
        all_done(bench, runs, events)

    def test_idle_worker_costs_next_to_nothing(self, bench: Bench) -> None:
        topic = bench.topic()
        runs = Runs()
        work(bench, topic, runs, concurrency=4)
        bench.publish(topic, event := bench.event())
        all_done(bench, runs, [event])
        began, used = time.monotonic(), time.process_time()
        bench.nothing(bench.subscriber(topic), 1.0, "the worker acked it")
        took, used = time.monotonic() - began, time.process_time() - used
        assert used < 0.4 * took, f"{took:.1f} s of an idle worker cost {used:.2f} s of processor time"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: there is no fork here")
    def test_worker_stays_in_the_parent_of_a_fork(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(2)))
        with start_program(bench, "fork_beside_a_worker", topic, events) as program:
            assert program.said(2 * bench.rig.patience) == {"child": "closed"}
            said = program.said(bench.rig.patience)
            code, complaint = program.ended(bench.rig.patience)
        assert (code, complaint) == (0, "")
        assert sorted(said) == sorted(["parent", event.id] for event in events)


OWN_THREADS = 4
"""Threads of a worker with one subscription besides those its handlers run in."""
