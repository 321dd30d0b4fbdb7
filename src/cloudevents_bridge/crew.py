"""Threads of one kind, started when there is work for one more."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cloudevents_bridge import clock


class Crew:
    """Threads that do the same work, at most so many, waiting on one lock.

    Args:
        lock: guards the work; held by whoever calls `wake` and `wait`.
        most: threads at most.
        work: what each thread runs. It takes the lock, and calls `wait` while there is nothing to do.

    Attributes:
        available: whether `wake` would bring one more thread to work.
    """

    def __init__(self, lock: threading.Lock, name: str, most: int, work: Callable[[], None]) -> None:
        self._condition = threading.Condition(lock)
        self._name = name
        self._most = most
        self._work = work
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._called = 0
        self.available = most > 0

    @property
    def here(self) -> bool:
        """Whether this is one of its threads."""
        return threading.current_thread() in self._threads

    def wake(self) -> None:
        """There is work for one more thread."""
        if self._idle > self._called:
            self._called += 1
            self._condition.notify()
        elif len(self._threads) < self._most:
            name = self._name if self._most == 1 else f"{self._name}-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._count()

    def wait(self, until: float | None) -> None:
        """Wait for `wake`, or until that time on our clock."""
        self._idle += 1
        self._count()
        self._condition.wait(None if until is None else max(until - clock.now(), 0.0))
        self._idle -= 1
        self._called = max(self._called - 1, 0)
        self._count()

    def _count(self) -> None:
        self.available = self._idle > self._called or len(self._threads) < self._most

    def wake_all(self) -> None:
        """Have every thread look at its work again."""
        self._condition.notify_all()

    def join(self, until: float) -> None:
        """Wait for the threads to end, until that time on our clock."""
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(until - clock.now(), 0.0))
