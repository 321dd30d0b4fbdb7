"""The threads in which an event loop has blocking calls made: few, started when needed, ended when idle."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

from cloudevents_bridge import clock
from cloudevents_bridge.conditions import Condition

Job = Callable[[], None]
IDLE = 5.0
"""Seconds after which a thread that has nothing to do ends."""


class Runner(Protocol):
    """What runs jobs. A job raises nothing."""

    def submit(self, job: Job) -> None:
        """Run it as soon as a thread is free."""

    def withdraw(self, job: Job) -> bool:
        """Do not run it. False: it runs, or has run."""


class Pool:
    """So many threads at most. In the child of a fork it starts anew, empty."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._start_anew()
        _forking.add(self)

    def submit(self, job: Job) -> None:
        with self._lock:
            if self._idle > len(self._jobs):
                self._changed.notify_all()
            elif self._threads < self._most:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._threads += 1
            self._jobs.append(job)

    def withdraw(self, job: Job) -> bool:
        with self._lock:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            self._changed.notify_all()
            return True

    def drain(self, deadline: float) -> None:
        """Wait for the jobs that are there now, not longer than to the deadline."""
        with self._lock:
            before = {id(job) for job in (*self._jobs, *self._running)}
            self._changed.wait_for(
                lambda: not any(id(job) in before for job in (*self._jobs, *self._running)),
                max(deadline - clock.now(), 0.0),
            )

    def close(self) -> None:
        """Keep no idle threads from now on."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()

    def _work(self) -> None:
        with self._lock:
            while self._has_job():
                job = self._jobs.popleft()
                self._running.append(job)
                self._lock.release()
                try:
                    job()
                finally:
                    self._lock.acquire()
                    self._running.remove(job)
                    del job  # an idle thread keeps nothing alive
                    self._changed.notify_all()
            self._threads -= 1

    def _has_job(self) -> bool:
        if not self._jobs:
            self._idle += 1
            self._changed.wait_for(lambda: self._jobs or self._closing, IDLE)
            self._idle -= 1
        return bool(self._jobs)

    def _start_anew(self) -> None:
        self._changed = Condition()
        self._lock = self._changed.lock
        self._jobs: deque[Job] = deque()
        self._running: list[Job] = []
        self._threads = self._idle = 0
        self._closing = False


class Serial:
    """Runs jobs one after the other in the threads of a pool. One that waits for its turn takes no thread."""

    _busy: bool

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._start_anew()
        _forking.add(self)

    def submit(self, job: Job) -> None:
        with self._lock:
            if not self._busy:
                self._pool.submit(self._work)
                self._busy = True
            self._jobs.append(job)

    def withdraw(self, job: Job) -> bool:
        with self._lock:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            return True

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._busy = False
                    return
                job = self._jobs.popleft()
            job()
            del job

    def _start_anew(self) -> None:
        self._lock = threading.RLock()
        self._jobs: deque[Job] = deque()
        self._busy = False


_forking: WeakSet[Pool | Serial] = WeakSet()


def _after_fork() -> None:
    for each in _forking:
        each._start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
