"""Which delivery may start. Sans-I/O.

Deliveries without an ordering key start in the order they came. Of each key one at a time is under way: it starts, runs
and is held for a retry while the others of its key wait behind it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

from cloudevents_bridge.core.leases import Held

SPARE = 100
"""Deliveries that will not start that are kept until their turn would have come."""

State: TypeAlias = Literal["waiting", "running", "held", "settling", "gone"]


class Entry(Held):
    """One delivery in memory. `item`: its native message, which stays the same over held retries.

    Attributes:
        delivery: the shell's own, of the run that is due or under way.
        key: its ordering key; None: it waits for nobody.
        stream: session, partition or shard.
        size: bytes.
        handle_size: bytes of what names it in a settle.
        why: the shell's own: the reason of a dead letter.
        suspect: it seems to have ended the processes that ran it, so it runs alone.
        lost: the lease ended, or the broker took it away.
        runs_at: while it is held: when it shall run again.
        unrun: while it is held: it could not be run, through no fault of its own.
    """

    delivery: Any = None
    key: str | None = None
    stream: str | None = None
    size: int = 0
    handle_size: int = 0
    why: Any = None
    state: State = "waiting"
    suspect: bool = False
    lost: bool = False
    runs_at: float = 0.0
    unrun: bool = False


class _Lane(Struct, eq=False):
    """One ordering key: the delivery under way, and those that wait behind it."""

    head: Entry
    queue: deque[Entry] = field(default_factory=deque)


class Lanes:
    """Deliveries that wait, and the lanes of those that run.

    Attributes:
        ready: those that may start now.
        suspects: those that may start when nothing else runs.
        blocked: those that wait behind another of their key.
        parked: those of them that wait behind one that is held.
    """

    def __init__(self) -> None:
        self._queue: deque[Entry] = deque()
        self._lanes: dict[str, _Lane] = {}
        self.suspects: list[Entry] = []
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
        self._is_next(entry)

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

    def start_alone(self, entry: Entry) -> None:
        """A suspect starts."""
        self.suspects.remove(entry)
        entry.state = "running"

    def hold(self, entry: Entry) -> None:
        """It runs again later, and those behind it wait."""
        entry.state = "held"
        self.parked += self.behind(entry)

    def resume(self, entry: Entry) -> None:
        """What was held may start, before all that wait."""
        self.parked -= self.behind(entry)
        entry.state = "waiting"
        if entry.suspect:
            self.suspects.append(entry)
        else:
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
            self._is_next(lane.head)
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
        dropped = [] if entry.state == "running" else [entry]
        lane = None if entry.key is None else self._lanes[entry.key]
        if lane is not None and lane.head is not entry:
            place = next(n for n, each in enumerate(lane.queue) if each is entry)
            dropped = self._cut(lane, place)
        else:
            dropped += self.drop_behind(entry)
            if entry.state == "waiting":
                self._is_not_next(entry)
            if entry.key is not None and entry.state != "running":
                del self._lanes[entry.key]
        for each in dropped:
            each.state = "gone"
        return dropped

    def drop_behind(self, entry: Entry) -> list[Entry]:
        """Take out what waits behind the one that is under way in its lane. Returns it, in order."""
        return [] if entry.key is None else self._cut(self._lanes[entry.key], 0)

    def _cut(self, lane: _Lane, place: int) -> list[Entry]:
        """Take out those of a lane that wait from this place on."""
        cut = [lane.queue.pop() for _ in range(len(lane.queue) - place)][::-1]
        self.blocked -= len(cut)
        self.parked -= len(cut) if lane.head.state == "held" else 0
        for each in cut:
            each.state = "gone"
        return cut

    def _is_next(self, entry: Entry) -> None:
        if entry.suspect:
            self.suspects.append(entry)
        else:
            self._queue.append(entry)
            self.ready += 1

    def _is_not_next(self, entry: Entry) -> None:
        """It will not start: `start` passes over it."""
        if entry.suspect:
            self.suspects.remove(entry)
            return
        self.ready -= 1
        if len(self._queue) > 2 * self.ready + SPARE:
            self._queue = deque(each for each in self._queue if each.state == "waiting" and each is not entry)
