"""How those who wait for an event learn of a change, made in this process or in another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

POLL = 0.02
"""Seconds between two looks at the file while somebody waits: how late another process is heard, at most."""


class Watch:
    """Of all threads that wait, one looks at the file for all; the others sleep. Nobody waiting costs nothing.

    Attributes:
        version: grows with each change that was noticed.
    """

    def __init__(self, poll: Callable[[], int]) -> None:
        self.version = 0
        self._poll = poll
        self._seen: int | None = None
        self._led = False
        self._changed = threading.Condition()

    def notify(self) -> None:
        """Tell those who wait of a change in this process."""
        with self._changed:
            self.version += 1
            self._changed.notify_all()

    def wait(self, version: int, seconds: float, stopped: Callable[[], bool]) -> None:
        """Return when `version` is over, after `seconds`, or when `stopped`, which whoever changes it must `notify`."""
        end = time.monotonic() + seconds
        with self._changed:
            try:
                while self.version == version and not stopped() and (left := end - time.monotonic()) > 0:
                    if self._led:
                        self._changed.wait(left)
                    else:
                        self._lead(min(left, POLL))
            finally:
                self._changed.notify()

    def _lead(self, seconds: float) -> None:
        self._led = True
        try:
            before = self.version
            self._changed.wait(seconds)
            if self.version == before and (seen := self._poll()) != self._seen:
                self._seen = seen
                self.version += 1
                self._changed.notify_all()
        finally:
            self._led = False
