"""The thread that renews claims while handlers run."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from cloudevents_bridge import clock
from cloudevents_bridge.conditions import Condition

log = logging.getLogger("cloudevents_bridge")
R = TypeVar("R", bound=Hashable)
LOOK = 0.5
"""Seconds between two looks at most; after two that find nothing to renew the thread ends."""
SOONEST = 0.05
"""Seconds until a claim is renewed, at least."""


class Renewer(Generic[R]):
    """Renews the claim of each run when half of it is over. One thread, which is there while something runs.

    Args:
        renew: renews one and gives the seconds that it lasts now; None: it is to be renewed no more.
    """

    def __init__(self, renew: Callable[[R], float | None]) -> None:
        self._renew = renew
        self.start_anew()
        _renewers.add(self)

    def start_anew(self) -> None:
        """Forget what runs: in the child of a fork it is the parent's."""
        self._changed = Condition()
        self._lock = self._changed.lock
        self._due: dict[R, float] = {}
        self._thread: threading.Thread | None = None
        self._wake_at = 0.0

    def keep(self, run: R, lease: float) -> None:
        """Renew it from now on; it lasts `lease` seconds."""
        due = clock.now() + max(lease / 2, SOONEST)
        with self._lock:
            self._due[run] = due
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="ceb-claims", daemon=True)
                self._thread.start()
            elif due < self._wake_at:  # else it looks in time by itself: waking it for each event would cost more
                self._changed.notify_all()

    def drop(self, run: R) -> None:
        """Renew it no more."""
        with self._lock:
            self._due.pop(run, None)

    def _work(self) -> None:
        idle = False
        while True:
            with self._lock:
                if not self._due and idle:
                    self._thread = None
                    return
                idle = not self._due
                now = clock.now()
                self._wake_at = min([now + LOOK, *self._due.values()])
                due = [run for run, at in self._due.items() if at <= now]
                if not due:
                    self._changed.wait(self._wake_at - now)
                    continue
            for run in due:
                self._look_at(run)

    def _look_at(self, run: R) -> None:
        try:
            lease = self._renew(run)
        except Exception as error:  # noqa: BLE001 - it may do so the next time
            log.warning("a claim of idempotent handling cannot be renewed now: %s", error)
            lease = 2 * LOOK
        with self._lock:
            if run not in self._due:
                return
            if lease is None:
                del self._due[run]
            else:
                self._due[run] = clock.now() + max(lease / 2, SOONEST)


_renewers: WeakSet[Renewer[Any]] = WeakSet()


def _after_fork() -> None:
    for each in _renewers:
        each.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
