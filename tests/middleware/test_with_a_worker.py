"""Middleware where it is used: around the handlers of workers, some of which are killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import until

import cloudevents_bridge as ceb
from cloudevents_bridge.middleware import MemoryStore, SQLiteStore, idempotent, log, timing
from cloudevents_bridge.testing import make_event

NOW = ceb.RetryPolicy(attempts=None, initial=0.0, maximum=0.0)
TOPICS = [ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", redelivery=NOW), "shipping"])]
KILLED = """
import os, sys, time
import cloudevents_bridge as ceb
from cloudevents_bridge.middleware import SQLiteStore, idempotent

folder, when = sys.argv[1:]
store = SQLiteStore(folder + "/done.db")
router = ceb.Router(middleware=[idempotent(store)])

@router.on("*")
def handle(event: ceb.CloudEvent) -> None:
    with open(folder + "/ran", "a") as ran:
        ran.write(event.id + "\\n")
    if when == "running":
        os.kill(os.getpid(), 9)

if when == "done":
    complete = store.complete

    def completed(*arguments, **more):
        complete(*arguments, **more)
        os.kill(os.getpid(), 9)

    store.complete = completed

with ceb.connect(f"sqlite:///{folder}/events.db") as broker:
    broker.worker().add("orders", "billing", router).run()
"""


@pytest.fixture
def broker() -> Iterator[ceb.Broker]:
    with ceb.connect("memory://", topics=TOPICS, create_missing=True) as broker:
        yield broker


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_events_that_come_several_times_are_handled_once(broker: ceb.Broker, kind: str) -> None:
    lock = threading.Lock()
    runs: Counter[str] = Counter()

    def handle(event: ceb.CloudEvent) -> None:
        with lock:
            runs[event.id] += 1

    async def handle_in_loop(event: ceb.CloudEvent) -> None:
        await asyncio.sleep(0)
        handle(event)

    router = ceb.Router(middleware=[log, timing(), idempotent(MemoryStore())])
    router.on("*")(handle if kind == "def" else handle_in_loop)
    for _ in range(3):
        broker.publish_many("orders", [make_event(id=str(number)) for number in range(100)])
    workers = [broker.worker().add("orders", "billing", router, concurrency=3) for _ in range(2)]
    for worker in workers:
        worker.start()
    until(lambda: sum(worker.stats.handled for worker in workers) == 300)
    for worker in workers:
        worker.close()
    assert runs == {str(number): 1 for number in range(100)}
    assert sum(worker.stats.dead_lettered for worker in workers) == 0


def test_batches(broker: ceb.Broker) -> None:
    runs: Counter[str] = Counter()

    @idempotent(MemoryStore()).batch
    def handle(deliveries: list[ceb.Delivery]) -> None:
        for delivery in deliveries:
            runs[delivery.event.id] += 1

    for _ in range(3):
        broker.publish_many("orders", [make_event(id=str(number)) for number in range(50)])
    with broker.worker().add("orders", "billing", handle, batch=7) as worker:
        until(lambda: worker.stats.handled == 150)
    assert runs == {str(number): 1 for number in range(50)}
    assert list(broker.dead_letters("orders", "billing").find()) == []


def test_a_failed_run_runs_again(broker: ceb.Broker) -> None:
    attempts: list[int] = []

    def handle(delivery: ceb.Delivery) -> None:
        attempts.append(delivery.attempt)
        if len(attempts) < 3:
            raise ValueError

    router = ceb.Router(middleware=[idempotent(MemoryStore())])
    router.on("*")(handle)
    broker.publish("orders", make_event())
    with broker.worker().add("orders", "billing", router) as worker:
        until(lambda: worker.stats.handled == 1)
    assert attempts == [1, 2, 3]
    assert (worker.stats.handled, worker.stats.failed) == (1, 2)


class TestKilled:
    @pytest.fixture
    def killed(self, tmp_path: Path) -> Callable[[str], list[str]]:
        """Kills a worker at that moment, then lets another work. Gives the runs that there were."""

        def kill(when: str) -> list[str]:
            topics = [ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", lease=1.0)])]
            with ceb.connect(f"sqlite:///{tmp_path}/events.db", topics=topics, create_missing=True) as broker:
                broker.topology.apply()
                broker.publish("orders", make_event())
                done = subprocess.run(
                    [sys.executable, "-c", KILLED, str(tmp_path), when], capture_output=True, timeout=60, check=False
                )
                assert done.returncode == -9, done.stderr
                store = SQLiteStore(tmp_path / "done.db")
                router = ceb.Router(middleware=[idempotent(store)])

                @router.on("*")
                def handle(event: ceb.CloudEvent) -> None:
                    with (tmp_path / "ran").open("a", encoding="utf-8") as ran:
                        ran.write(f"{event.id} again\n")

                with broker.worker().add("orders", "billing", router) as worker:
                    until(lambda: worker.stats.handled == 1)
                store.close()
            return (tmp_path / "ran").read_text("utf-8").splitlines()

        return kill

    def test_while_it_runs_the_event_runs_again_when_the_claim_has_ended(
        self, killed: Callable[[str], list[str]]
    ) -> None:
        assert killed("running") == ["test-1", "test-1 again"]

    def test_after_it_was_done_the_event_is_acked_without_running(self, killed: Callable[[str], list[str]]) -> None:
        assert killed("done") == ["test-1"]
