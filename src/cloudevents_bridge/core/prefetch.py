"""How many deliveries to ask for, and when. Sans-I/O."""

from __future__ import annotations

AHEAD = 0.5
"""Seconds of work that are fetched ahead of the handlers, at most: what waits longer is another consumer's to have."""
SAMPLE = 8
"""Deliveries that tell how fast the handlers are."""
SURVIVED = 0.25
"""Seconds of running handlers that count as a success for the number of deliveries asked for."""
MAX_BYTES = 64 * 1024 * 1024
"""Bytes of deliveries in memory from which nothing more is fetched."""


class Prefetch:
    """Decides on receives. Not thread-safe: the shell holds its lock.

    After a start it asks for one delivery, and for twice as many each time that as many were handled, or that handlers
    ran for a moment: a delivery that kills the process takes few others with it. While the subscription is empty one
    receive waits; there are more only after receives that came back full. Where more than a receive brings may be in
    memory, a receive asks for all it can bring, unless a slot is free with nothing for it.

    Args:
        slots: deliveries that can be handled at once.
        batch_count: deliveries in one receive, at most.
        receives: receives that may wait at once, at most.
        ahead: seconds of work to fetch ahead.
        max_bytes: bytes in memory from which nothing more is fetched.

    Attributes:
        polls: receives under way.
        most: deliveries in memory, at most: those that run, and what the handlers do in a moment.
    """

    def __init__(
        self, slots: int, batch_count: int, receives: int, *, ahead: float = AHEAD, max_bytes: int = MAX_BYTES
    ) -> None:
        self._slots = slots
        self._batch = batch_count
        self._receives = receives
        self._ahead = ahead
        self._max_bytes = max_bytes
        self._deepest = batch_count * 2 * receives
        self._window = 1
        self._grows_at: float | None = None
        self._allowed = 1
        self._asked = 0
        self.polls = 0
        self.most = slots
        self._not_before = 0.0
        self._handled = 0
        self._since: float | None = None
        self._rate = 0.0
        self._average = 0.0

    def wanted(self, now: float, *, active: int, ready: int, free: int, size: int) -> int:
        """How many one more receive is to ask for now; 0: none is to begin.

        Args:
            active: deliveries in memory that run, or will as soon as there is a slot.
            ready: those of them that wait for a slot.
            free: slots that are free.
            size: bytes in memory.
        """
        self._measure(now, idle=active == 0)
        if self._not_before and now >= self._not_before:
            self._not_before = 0.0
        if self.polls >= self._allowed or self._not_before or (size >= self._max_bytes and active):
            return 0
        window = min(self._window, self.most)
        room = window - active - self._asked
        enough = self._batch if self._batch <= window - self._slots else (window + 1) // 2
        starving = free > ready + self._asked
        if room < 1 or (room < enough and not starving):
            return 0
        asked = min(room, self._batch)
        if self._average:
            asked = min(asked, max(int((self._max_bytes - size) / self._average) - self._asked, 1))
        return asked

    def begin(self, asked: int) -> None:
        """A receive begins."""
        self.polls += 1
        self._asked += asked

    def received(self, asked: int, sizes: list[int]) -> None:
        """A receive came back."""
        self.polls -= 1
        self._asked -= asked
        if not sizes:
            self._allowed = 1
        elif len(sizes) >= asked:
            self._allowed = min(2 * self._allowed, self._receives)
        if sizes:
            average = sum(sizes) / len(sizes)
            self._average = max(average, 0.8 * self._average + 0.2 * average)  # they may all have become large at once

    def failed(self, asked: int, until: float) -> None:
        """A receive failed; no other begins before `until`."""
        self.polls -= 1
        self._asked -= asked
        self._allowed = 1
        self._not_before = until

    def restart(self) -> None:
        """Begin with one delivery again."""
        self._window = 1

    def handled(self, now: float, *, well: bool) -> None:
        """A delivery was handled, well or not."""
        if self._since is None:
            self._since = now
        else:
            self._handled += 1
        if not self._rate:  # the first one tells already whether it is worth to fetch ahead
            self._rate_until(now)
        if well and self._window < self.most:
            self._window += 1

    def wake_at(self) -> float | None:
        """When to ask `wanted` again although nothing happened; None: never."""
        if self._not_before and not self.polls:
            return self._not_before
        return self._grows_at if self._window < self.most else None

    def _measure(self, now: float, *, idle: bool) -> None:
        if idle:
            self._grows_at = None
        elif self._grows_at is None:
            self._grows_at = now + SURVIVED
        elif now >= self._grows_at:
            self._window = min(2 * self._window, max(self.most, 1))
            self._grows_at = now + SURVIVED
        if self._since is None:
            self._since = None if idle else now
        elif self._handled >= max(self._window, SAMPLE) or now - self._since >= AHEAD / 2:
            self._rate_until(now)
            self._since = None if idle else now

    def _rate_until(self, now: float) -> None:
        """How fast the handlers were since they began, or were last looked at."""
        if self._since is None or now <= self._since:
            return
        rate = self._handled / (now - self._since)
        self._rate = rate if not self._rate else (self._rate + rate) / 2
        self.most = self._slots + min(int(self._rate * self._ahead), self._deepest)
        self._handled, self._since = 0, now
