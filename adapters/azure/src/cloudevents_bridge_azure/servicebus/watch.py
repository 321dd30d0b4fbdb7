"""One thread that does things when their time has come: it bounds what the SDK itself may wait for without an end."""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from time import monotonic

_log = logging.getLogger(__name__)


LINGER = 0.5
"""Seconds without an alarm after which the thread ends."""


class Alarm:
    """Something to do later. Attributes: `rang`: it was done; `off`: it is not to be done any more."""

    def __init__(self, at: float, act: Callable[[], None]) -> None:
        self.at = at
        self.act = act
        self.rang = False
        self.off = False


class Watch:
    """Its thread starts with an alarm, and ends some time after the last one. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._tie = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def set(self, seconds: float, act: Callable[[], None]) -> Alarm:
        """Call `act` in so many seconds. It must be quick, and raise nothing."""
        alarm = Alarm(monotonic() + seconds, act)
        with self._changed:
            if self._closed:
                return alarm
            heapq.heappush(self._alarms, (alarm.at, next(self._tie), alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ceb-servicebus-watch", daemon=True)
                self._thread.start()
            elif self._alarms[0][2] is alarm:
                self._changed.notify()
        return alarm

    @contextmanager
    def limit(self, seconds: float, act: Callable[[], None]) -> Iterator[Alarm]:
        """Call `act` if the block has not ended after so many seconds."""
        alarm = self.set(seconds, act)
        try:
            yield alarm
        finally:
            alarm.off = True

    def close(self) -> None:
        """What has not rung does not ring any more."""
        with self._changed:
            self._closed = True
            self._alarms.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (alarm := self._next()) is not None:
            try:
                alarm.act()
            except Exception:  # noqa: BLE001 - the next alarm rings all the same
                _log.exception("an alarm failed")

    def _next(self) -> Alarm | None:
        """The alarm that is due, once it is; None: there was none for a while, and the thread ends."""
        with self._changed:
            while not self._closed:
                self._tidy()
                left = self._alarms[0][0] - monotonic() if self._alarms else LINGER
                if self._alarms and left <= 0:
                    alarm = heapq.heappop(self._alarms)[2]
                    alarm.rang = True
                    return alarm
                idle = not self._alarms
                self._changed.wait(min(left, LINGER))
                self._tidy()
                if idle and not self._alarms:
                    break
            self._thread = None
            return None

    def _tidy(self) -> None:
        """Forget what was called off: whoever does that tells nobody, to be quick."""
        if any(alarm.off for _, _, alarm in self._alarms):
            self._alarms = [each for each in self._alarms if not each[2].off]
            heapq.heapify(self._alarms)
