"""Threads of one kind, started when there is work for one more."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cloudevents_bridge import clock


class Crew:
    """Threads that do the same work, at most so many, waiting on one lock. Who came to wait last is woken first: what
    that thread needs is still at hand for the processor.

    Args:
        lock: guards the work; held by whoever calls `wake` and `wait`.
        most: threads at most.
        work: what each thread runs. It takes the lock, and calls `wait` while there is nothing to do.

    Attributes:
        available: whether `wake` would bring one more thread to work.
    """

    def __init__(self, lock: threading.Lock, name: str, most: int, work: Callable[[], None]) -> None:
        self._lock = lock
        self._name = name
        self._most = most
        self._work = work
        self._threads: list[threading.Thread] = []
        self._waiting: list[threading.Lock] = []
        self.available = most > 0

    @property
    def here(self) -> bool:
        """Whether this is one of its threads."""
        return threading.current_thread() in self._threads

    def wake(self) -> None:
        """There is work for one more thread."""
        if self._waiting:
            self._waiting.pop().release()
        elif len(self._threads) < self._most:
            name = self._name if self._most == 1 else f"{self._name}-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._count()

    def wait(self, until: float | None) -> None:
        """Wait for `wake`, or until that time on our clock."""
        woken = threading.Lock()
        woken.acquire()
        self._waiting.append(woken)
        self._count()
        self._lock.release()
        try:
            woken.acquire(timeout=-1 if until is None else max(until - clock.now(), 0.0))
        finally:
            self._lock.acquire()
            if woken in self._waiting:  # nobody woke it
                self._waiting.remove(woken)
                self._count()

    def wake_all(self) -> None:
        """Have every thread look at its work again."""
        while self._waiting:
            self._waiting.pop().release()
        self._count()

    def join(self, until: float) -> None:
        """Wait for the threads to end, until that time on our clock."""
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(until - clock.now(), 0.0))

    def _count(self) -> None:
        self.available = bool(self._waiting) or len(self._threads) < self._most
