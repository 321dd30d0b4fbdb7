"""Which held delivery is to be looked at when. Sans-I/O."""

from __future__ import annotations

import heapq
from itertools import count

from cloudevents_bridge.core.lanes import Entry

SPARE = 100
"""Times of deliveries that are held no more that are kept until they come up."""


class Holding:
    """Deliveries held for a later run: `state` is "held" as long as they are.

    Attributes:
        count: how many they are.
        unrun: how many of them could not be run, through no fault of theirs.
        size: bytes of them.
    """

    def __init__(self) -> None:
        self._times: list[tuple[float, int, Entry]] = []
        self._tie = count()
        self.count = self.unrun = 0
        self.size = 0

    def add(self, entry: Entry, until: float) -> None:
        """Hold it until that time."""
        self.count += 1
        self.unrun += entry.unrun
        self.size += entry.size
        heapq.heappush(self._times, (until, next(self._tie), entry))

    def remove(self, entry: Entry) -> None:
        """It is held no more."""
        self.count -= 1
        self.unrun -= entry.unrun
        self.size -= entry.size
        if len(self._times) > 2 * self.count + SPARE:
            self._times = [each for each in self._times if each[2].state == "held" and each[2] is not entry]
            heapq.heapify(self._times)

    def due(self, now: float) -> Entry | None:
        """One that was held until now, to be removed. Each is given once."""
        at = self.wake_at()
        return heapq.heappop(self._times)[2] if at is not None and at <= now else None

    def wake_at(self) -> float | None:
        """When `due` has something next; None: nothing is held."""
        while self._times and self._times[0][2].state != "held":
            heapq.heappop(self._times)
        return self._times[0][0] if self._times else None
