"""Workers for cases: handlers that note what they were given, and workers that end with their case."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cloudevents_bridge import Broker, CloudEvent, Delivery, Router, Topic, Worker
from cloudevents_bridge.types import Stats
from cloudevents_bridge_contract.bench import Bench

HOW = pytest.mark.parametrize("how", ["def", "async"])
"""For cases that hold for both kinds of handler; `Runs.handler(how)` makes it."""

GRACE = 5.0
"""Seconds that a worker of a case has to end in, where the case does not say."""


@dataclass(eq=False)
class Run:
    """One run of a handler.

    Attributes:
        began, ended: seconds on the monotonic clock; `ended` None while it runs.
        error: what it raised.
    """

    delivery: Delivery
    attempt: int
    began: float
    ended: float | None = None
    error: BaseException | None = None

    @property
    def event(self) -> CloudEvent:
        return self.delivery.event


class Runs:
    """What handlers did, whichever thread or worker they ran in. Called with a delivery it is a handler itself.

    Args:
        does: what a run does besides being noted; what it raises is noted and comes out.

    Attributes:
        all: every run, in the order they began.
        most: how many there were at one time, at most.
        clashes: ordering keys of which two ran at one time.
    """

    def __init__(self, does: Callable[[Delivery], object] = lambda delivery: None) -> None:
        self.all: list[Run] = []
        self.most = 0
        self.clashes: list[str] = []
        self._does = does
        self._inside: list[Run] = []
        self._lock = threading.Lock()

    def __call__(self, delivery: Delivery) -> None:
        with self.noting(delivery):
            self._does(delivery)

    def handler(self, how: str) -> Callable[..., object]:
        """Itself as a function, or as a coroutine function; what it does, it awaits where that can be awaited."""
        if how == "def":
            return self

        async def handle(delivery: Delivery) -> None:
            with self.noting(delivery):
                doing = self._does(delivery)
                if isinstance(doing, Coroutine):
                    await doing

        return handle

    @contextmanager
    def noting(self, *deliveries: Delivery) -> Iterator[None]:
        """Note a run of each delivery: it lasts as long as the block and raises what that raises."""
        now = time.monotonic()
        runs = [Run(delivery, delivery.attempt, now) for delivery in deliveries]
        with self._lock:
            inside = {run.event.partitionkey for run in self._inside}
            self.clashes += [key for run in runs if (key := run.event.partitionkey) is not None and key in inside]
            self.all += runs
            self._inside += runs
            self.most = max(self.most, len(self._inside))
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            with self._lock:
                for run in runs:
                    run.ended, run.error = time.monotonic(), error
                    self._inside.remove(run)

    def inside(self) -> int:
        """How many run now."""
        with self._lock:
            return len(self._inside)

    def began(self) -> list[str]:
        """The ids of the events, in the order their runs began."""
        with self._lock:
            return [run.event.id for run in self.all]

    def done(self) -> list[str]:
        """The ids of the events of runs that ended well, in the order they began."""
        with self._lock:
            return [run.event.id for run in self.all if run.ended is not None and run.error is None]

    def of(self, event: CloudEvent) -> list[Run]:
        """The runs of one event."""
        with self._lock:
            return [run for run in self.all if run.event.id == event.id]

    def first_runs(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Ordering key to the ids of its events, in the order of their first runs."""
        order: dict[str, list[str]] = {key: [] for key in keys}
        for run in self.all:
            ids = order.get(run.event.partitionkey or "")
            if ids is not None and run.event.id not in ids:
                ids.append(run.event.id)
        return order


def worker_of(
    bench: Bench,
    topic: Topic,
    handler: Router | Callable[..., object],
    index: int = 0,
    *,
    broker: Broker | None = None,
    grace: float = GRACE,
    **options: Any,
) -> Worker:
    """A worker for the topic's n-th subscription that was not started; closed with the case."""
    broker = broker or bench.broker(topic)
    worker = broker.worker(grace=grace)
    bench.at_end(worker.close)
    return worker.add(topic.name, topic.subscriptions[index].name, handler, **options)


def work(bench: Bench, topic: Topic, handler: Router | Callable[..., object], index: int = 0, **options: Any) -> Worker:
    """The same, started."""
    worker = worker_of(bench, topic, handler, index, **options)
    worker.start()
    return worker


def running(bench: Bench, worker: Worker, **options: Any) -> Future[Stats]:
    """`worker.run` in a thread; gives what it returns or raises. Stopped with the case."""
    ended: Future[Stats] = Future()

    def run() -> None:
        try:
            ended.set_result(worker.run(signals=False, **options))
        except BaseException as error:  # noqa: BLE001  the case asks for it
            ended.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end() -> None:
        worker.stop(grace=0.0)
        thread.join(GRACE)

    bench.at_end(end)
    return ended


def all_done(bench: Bench, runs: Runs, events: Iterable[CloudEvent], *, patience: float | None = None) -> None:
    """Wait until a run of each event ended well."""
    wanted = {event.id for event in events}
    bench.eventually(lambda: wanted <= set(runs.done()), f"the {len(wanted)} events are handled", patience=patience)


def each_handled_once(bench: Bench, runs: Runs, events: Iterable[CloudEvent]) -> None:
    """Every event had one run, that ended well."""
    wanted = [event.id for event in events]
    failed = [run for run in runs.all if run.error is not None]
    assert not failed, f"runs failed: {failed}"
    bench.each_once(runs.done(), wanted)
