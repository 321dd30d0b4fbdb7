"""What time it is for a store, and how a receive waits: for real, or in a test without waiting."""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol

from cloudevents_bridge import clock as real


class Pause(NamedTuple):
    """What a receive waits for.

    Attributes:
        end: of its wait.
        expires: the same, on the machine's clock.
        due: the next lease or delay of the place to end.
        delay: the next delay of the place to end, where the clock may jump to it.
    """

    end: float
    expires: float
    due: float | None
    delay: float | None


class Clock(Protocol):
    """The time of one store: seconds that only ever grow. Any thread; `wait` with the condition's lock held.

    Attributes:
        jumps: whether it may move on by itself when nobody holds a delivery.
    """

    jumps: bool

    def now(self) -> float: ...
    def wait(self, condition: threading.Condition, pause: Pause) -> bool:
        """Wait for a notice or for the end of the pause. False: the wait is over, whatever `now` says."""


class RealClock:
    """The machine's own clock."""

    jumps = False

    def now(self) -> float:
        return real.now()

    def wait(self, condition: threading.Condition, pause: Pause) -> bool:
        left = (pause.end if pause.due is None else min(pause.end, pause.due)) - real.now()
        if left > 0:
            condition.wait(min(left, threading.TIMEOUT_MAX))
        return True


class VirtualClock:
    """A clock for tests of one store: it stands still until `advance` moves it.

    A receive that waits, while no delivery is in a consumer's hands, moves it to the next delay that ends within the
    wait: delays and back-off never sleep. Leases end by `advance` only. Waiting for an event that nobody has published
    takes real seconds.
    """

    jumps = True

    def __init__(self, now: float = 1_000.0) -> None:
        self._now = now
        self._moved = threading.Lock()

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on. Consumers that wait learn of it when the store is told: `Store.wake`."""
        with self._moved:
            self._now += max(seconds, 0.0)

    def wait(self, condition: threading.Condition, pause: Pause) -> bool:
        if pause.delay is not None and pause.delay <= pause.end:
            with self._moved:
                self._now = max(self._now, pause.delay)
            return True
        left = pause.expires - real.now()
        return left > 0 and condition.wait(min(left, threading.TIMEOUT_MAX))
