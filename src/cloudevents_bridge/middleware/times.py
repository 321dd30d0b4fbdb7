"""How long handling takes, for each event type."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from cloudevents_bridge.delivery import Delivery
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge.middleware.outcome import outcome_of
from cloudevents_bridge.router import Action, Middleware

Report: TypeAlias = Callable[[str, float, Action], None]
OTHER = "other"

_log = logging.getLogger("cloudevents_bridge.events")


def timing(report: Report | None = None, *, every: float = 60.0, max_types: int = 100) -> Middleware:
    """Middleware that measures each run.

    Args:
        report: called after each run with the event's type, the seconds it took and its outcome ("ack", "nack",
            "dead_letter"): for your own metrics. None: what came together is logged at INFO to the logger
            `cloudevents_bridge.events`, one line per type.
        every: seconds between two such logs, at least; they are written after a run, and never while nothing runs.
        max_types: types told apart, at most: those that come later are all called "other".

    Raises:
        InvalidArgumentError: if `every` is negative, or `max_types` is less than 1.
    """
    if not every >= 0:
        raise InvalidArgumentError(f"every is {every!r}: it must be 0 or more seconds")
    if max_types < 1:
        raise InvalidArgumentError(f"max_types is {max_types!r}: it must be at least 1")
    names = _Names(max_types)
    tell = report or _Summary(every)

    def timed(delivery: Delivery, call_next: Callable[[Delivery], None]) -> None:
        began = time.perf_counter()
        raised: BaseException | None = None
        try:
            call_next(delivery)
        except BaseException as error:
            raised = error
            raise
        finally:
            seconds = time.perf_counter() - began
            try:
                tell(names.of(delivery.event.type), seconds, outcome_of(delivery, raised))
            except Exception:  # noqa: BLE001 - the run went as it went
                _log.exception("reporting how long an event took failed")

    return timed


class _Names:
    """The types that are told apart."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def of(self, type: str) -> str:
        if type in self._known:
            return type
        with self._lock:
            if len(self._known) >= self._most and type not in self._known:
                return OTHER
            self._known.add(type)
            return type


class _Total:
    __slots__ = ("failed", "longest", "runs", "seconds")

    def __init__(self) -> None:
        self.runs = self.failed = 0
        self.seconds = self.longest = 0.0


class _Summary:
    """Adds up, and logs now and then."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._lock = threading.Lock()
        self._totals: dict[str, _Total] = {}
        self._next = time.monotonic() + every

    def __call__(self, type: str, seconds: float, outcome: Action) -> None:
        with self._lock:
            total = self._totals.get(type)
            if total is None:
                total = self._totals[type] = _Total()
            total.runs += 1
            total.failed += outcome != "ack"
            total.seconds += seconds
            total.longest = max(total.longest, seconds)
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + self._every
            totals, self._totals = self._totals, {}
        for name, each in sorted(totals.items()):
            _log.info(
                "%s: %d runs, %d not acked, %.3g s each, %.3g s the longest",
                *(name, each.runs, each.failed, each.seconds / each.runs, each.longest),
                extra={
                    "event_type": name,
                    "runs": each.runs,
                    "failed": each.failed,
                    "seconds": each.seconds,
                    "longest": each.longest,
                },
            )
