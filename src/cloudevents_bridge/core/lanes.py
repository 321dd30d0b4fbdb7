"""Which delivery may start. Sans-I/O.

Deliveries without an ordering key start in the order they came. Of each key one at a time is under way: it starts, runs
and is held for a retry while the others of its key wait behind it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

from cloudevents_bridge.core.leases import Held

State: TypeAlias = Literal["waiting", "running", "held", "settling", "gone"]


class Entry(Held):
    """One delivery in memory. `item`: its native message, which stays the same over held retries.

    Attributes:
        delivery: the shell's own, of the run that is due or under way.
        key: its ordering key; None: it waits for nobody.
        stream: session, partition or shard.
        size: bytes.
        why: the shell's own: the reason of a dead letter.
        lost: the lease ended, or the broker took it away.
    """

    delivery: Any = None
    key: str | None = None
    stream: str | None = None
    size: int = 0
    why: Any = None
    state: State = "waiting"
    lost: bool = False


class _Lane(Struct, eq=False):
    """One ordering key: the delivery under way, and those that wait behind it."""

    head: Entry
    queue: deque[Entry] = field(default_factory=deque)


class Lanes:
    """Deliveries that wait, and the lanes of those that run.

    Attributes:
        ready: those that may start now.
        blocked: those that wait behind another of their key.
        parked: those of them that wait behind one that is held.
    """

    def __init__(self) -> None:
        self._queue: deque[Entry] = deque()
        self._lanes: dict[str, _Lane] = {}
        self.ready = 0
        self.blocked = 0
        self.parked = 0

    def add(self, entry: Entry) -> None:
        """One more that waits for its turn."""
        if entry.key is not None:
            lane = self._lanes.get(entry.key)
            if lane is not None:
                lane.queue.append(entry)
                self.blocked += 1
                self.parked += lane.head.state == "held"
                return
            self._lanes[entry.key] = _Lane(entry)
        self._queue.append(entry)
        self.ready += 1

    def start(self, most: int) -> list[Entry]:
        """Up to `most` that start now, in the order they came; of each key one at most."""
        started: list[Entry] = []
        queue = self._queue
        while queue and len(started) < most:
            entry = queue.popleft()
            if entry.state == "waiting":
                entry.state = "running"
                started.append(entry)
        self.ready -= len(started)
        return started

    def hold(self, entry: Entry) -> None:
        """It runs again later, and those behind it wait."""
        entry.state = "held"
        self.parked += self.behind(entry)

    def resume(self, entry: Entry) -> None:
        """What was held may start, before all that wait."""
        self.parked -= self.behind(entry)
        entry.state = "waiting"
        self._queue.appendleft(entry)
        self.ready += 1

    def end(self, entry: Entry, state: State) -> None:
        """It ran for the last time, and the next of its key may start."""
        assert entry.state == "running"
        entry.state = state
        if entry.key is None:
            return
        lane = self._lanes[entry.key]
        if lane.queue:
            lane.head = lane.queue.popleft()
            self.blocked -= 1
            self.ready += 1
            self._queue.append(lane.head)
        else:
            del self._lanes[entry.key]

    def behind(self, entry: Entry) -> int:
        """How many wait behind the one that is under way in its lane."""
        return 0 if entry.key is None else len(self._lanes[entry.key].queue)

    def head(self, key: str) -> Entry | None:
        """The one that is under way in a lane."""
        lane = self._lanes.get(key)
        return None if lane is None else lane.head

    def drop(self, entry: Entry) -> list[Entry]:
        """Take it out, with all that wait behind it: they come again in order. One that runs goes on running.

        Returns:
            Those taken out, in order; what runs is not among them.
        """
        held, running = entry.state == "held", entry.state == "running"
        dropped = [] if running else [entry]
        if entry.key is not None:
            lane = self._lanes[entry.key]
            under_way = lane.head.state == "held"
            if lane.head is entry:
                behind = list(lane.queue)
                lane.queue.clear()
                if not running:
                    del self._lanes[entry.key]
            else:
                place = next(n for n, each in enumerate(lane.queue) if each is entry)
                behind = list(lane.queue)[place:]
                for _ in behind:
                    lane.queue.pop()
                dropped = []
            self.blocked -= len(behind)
            self.parked -= len(behind) if under_way else 0
            if lane.head is entry and entry.state == "waiting":
                self.ready -= 1
            dropped += behind
        elif not held and not running:
            self.ready -= 1
        for each in dropped:
            each.state = "gone"
        return dropped
