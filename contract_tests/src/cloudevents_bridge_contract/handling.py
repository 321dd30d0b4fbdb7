"""Workers for cases: handlers that note what they were given, and workers that end with their case."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cloudevents_bridge import Broker, CloudEvent, Delivery, Router, Topic, Worker
from cloudevents_bridge.driver import Received, SubscriberDriver
from cloudevents_bridge.types import Stats
from cloudevents_bridge_contract.bench import Bench
from cloudevents_bridge_contract.faulty import Of, Shim

HOW = pytest.mark.parametrize("how", ["def", "async"])
"""For cases that hold for both kinds of handler; `Runs.handler(how)` makes it."""

WARM = "com.example.contract.warm"
"""Type of the events of `fetch_ahead`."""

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
        warm: how many events of the type `WARM` came; they are no runs.
    """

    def __init__(self, does: Callable[[Delivery], object] = lambda delivery: None) -> None:
        self.all: list[Run] = []
        self.most = 0
        self.clashes: list[str] = []
        self.warm = 0
        self._does = does
        self._inside: list[Run] = []
        self._lock = threading.Lock()

    def __call__(self, delivery: Delivery) -> None:
        if self._warms(delivery):
            return
        with self.noting(delivery):
            self._does(delivery)

    def handler(self, how: str) -> Callable[..., object]:
        """Itself as a function, or as a coroutine function; what it does, it awaits where that can be awaited."""
        if how == "def":
            return self

        async def handle(delivery: Delivery) -> None:
            if self._warms(delivery):
                return
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

    def _warms(self, delivery: Delivery) -> bool:
        with self._lock:
            self.warm += delivery.event.type == WARM
        return delivery.event.type == WARM

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
    worker = bench.ends(broker.worker(grace=grace))
    return worker.add(topic.name, topic.subscriptions[index].name, handler, **options)


def work(bench: Bench, topic: Topic, handler: Router | Callable[..., object], index: int = 0, **options: Any) -> Worker:
    """The same, started."""
    worker = worker_of(bench, topic, handler, index, **options)
    worker.start()
    return worker


class Backlog(Shim):
    """Lets a case publish while no consumer looks, so that the next receive finds all of it."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Condition()
        self._looking = 0
        self._unseen = False

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        with self._turn:
            self._turn.wait_for(lambda: not self._unseen)
            self._looking += 1
        try:
            return inner.receive(max_messages, min(wait, 0.05))
        finally:
            with self._turn:
                self._looking -= 1
                self._turn.notify_all()

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """While it is open nothing is received."""
        with self._turn:
            self._unseen = True
            self._turn.wait_for(lambda: not self._looking)
        try:
            yield
        finally:
            with self._turn:
                self._unseen = False
                self._turn.notify_all()


def fetch_ahead(bench: Bench, topic: Topic, runs: Runs, backlog: Backlog, events: Sequence[CloudEvent]) -> None:
    """Have a worker see that events are handled in no time, so that it takes several at once; then publish these."""
    count = bench.many(200)
    bench.publish(topic, *bench.events(count, type=WARM))
    bench.eventually(lambda: runs.warm >= count, "the worker has warmed up", patience=2 * bench.rig.patience)
    with backlog.unseen():
        bench.publish(topic, *events)


class Ending:
    """A worker that runs in a thread, and how that ends."""

    def __init__(self, worker: Worker, options: dict[str, Any]) -> None:
        self._ended: Future[Stats] = Future()
        self._thread = threading.Thread(target=self._run, args=(worker, options), daemon=True)
        self._thread.start()

    def within(self, seconds: float) -> Stats:
        """What `run` returns or raises; it must end within so many seconds."""
        self._thread.join(seconds)
        assert self._ended.done(), f"the worker did not end within {seconds:g} s"
        return self._ended.result()

    def not_within(self, seconds: float) -> None:
        """It must not end within so many seconds."""
        self._thread.join(seconds)
        assert not self._ended.done(), f"the worker ended within {seconds:g} s"

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self, worker: Worker, options: dict[str, Any]) -> None:
        try:
            stats = worker.run(signals=False, **options)
        except BaseException as error:  # noqa: BLE001  the case asks for it
            self._ended.set_exception(error)
        else:
            self._ended.set_result(stats)


def running(bench: Bench, worker: Worker, **options: Any) -> Ending:
    """`worker.run` in a thread, stopped with the case."""
    ending = Ending(worker, options)

    def end() -> None:
        worker.stop(grace=0.0)
        ending.join(GRACE)

    bench.at_end(end)
    return ending


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
