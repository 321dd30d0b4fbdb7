"""A lock that is had in turn: whoever has it for long can see that others wait, and let them pass."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """Thread-safe. Those who wait get it in the order in which they came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    @property
    def wanted(self) -> bool:
        """Somebody waits for it."""
        return bool(self._waiting)

    def acquire(self, timeout: float) -> bool:
        """Whether it was had within `timeout` seconds."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            if timeout <= 0:
                return False
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            return turn.acquire(timeout=timeout) or not self._left(turn)
        except BaseException:
            if not self._left(turn):
                self.release()
            raise

    def release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    def let_pass(self) -> None:
        """Those who wait have it first, and then its holder again."""
        if self.wanted:
            self.release()
            self.acquire(threading.TIMEOUT_MAX)

    def __enter__(self) -> None:
        self.acquire(threading.TIMEOUT_MAX)

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _left(self, turn: threading.Lock) -> bool:
        """Wait no more. Not: it has come to be ours meanwhile."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return True
            return False
