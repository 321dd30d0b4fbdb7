"""Which deliveries are settled in one request, and when. Sans-I/O."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import Literal, TypeAlias

from msgspec import Struct, field

from cloudevents_bridge.core.lanes import Entry

Verb: TypeAlias = Literal["ack", "nack", "release", "dead"]


class Settlement(Struct, eq=False):
    """What is settled in one go.

    Attributes:
        verb: "dead" is for the shell to do one by one: each has a reason of its own.
        seconds: the delay of a nack.
        since: when the first of them came.
        entries: what it settles.
        marks: what is named to the broker: all of them, or the last of each run that an ack covers.
        size: bytes of the marks' handles.
    """

    verb: Verb
    seconds: float
    since: float
    entries: list[Entry] = field(default_factory=list)
    marks: list[Entry] = field(default_factory=list)
    size: int = 0


class Settlements:
    """Deliveries whose runs ended, waiting for company.

    Args:
        most: deliveries in one request, at most.
        most_bytes: bytes of their handles, at most; 0: no limit.
        linger: seconds that one waits for company.
    """

    def __init__(self, most: int, most_bytes: int, linger: float) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._linger = linger
        self._open: dict[tuple[Verb, float], Settlement] = {}
        self._full: deque[Settlement] = deque()
        self._later: list[tuple[float, int, Verb, Entry]] = []
        self._tie = count()

    def __bool__(self) -> bool:
        return bool(self._open or self._full or self._later)

    def add(self, entries: list[Entry], mark: Entry, verb: Verb, seconds: float, now: float) -> None:
        """Settle these, by naming one of them."""
        group = self._open.get((verb, seconds))
        if group is not None and 0 < self._most_bytes < group.size + mark.handle_size:
            self._full.append(self._open.pop((verb, seconds)))
            group = None
        if group is None:
            group = self._open[verb, seconds] = Settlement(verb, seconds, now)
        group.entries += entries
        group.marks.append(mark)
        group.size += mark.handle_size
        if len(group.marks) >= self._most:
            self._full.append(self._open.pop((verb, seconds)))

    def postpone(self, entry: Entry, verb: Verb, until: float) -> None:
        """Settle it from that time on."""
        heapq.heappush(self._later, (until, next(self._tie), verb, entry))

    def recall(self) -> list[Entry]:
        """Give what was postponed, which is not to be settled any more."""
        later, self._later = self._later, []
        return [entry for _, _, _, entry in sorted(later)]

    def next(self, now: float, *, hurry: bool = False) -> Settlement | None:
        """What to settle now: what is full, what has waited, and with `hurry` whatever there is."""
        while self._later and self._later[0][0] <= now:
            _, _, verb, entry = heapq.heappop(self._later)
            self.add([entry], entry, verb, 0.0, now)
        if self._full:
            return self._full.popleft()
        for at, oldest in self._open.items():
            return self._open.pop(at) if hurry or now >= oldest.since + self._linger else None
        return None

    def wake_at(self, *, hurry: bool = False) -> float | None:
        """When `next` has something; None: there is nothing."""
        if self._full:
            return self._full[0].since
        later = self._later[0][0] if self._later else None
        for oldest in self._open.values():
            at = oldest.since if hurry else oldest.since + self._linger
            return at if later is None else min(at, later)
        return later


class Watermarks:
    """Where an ack covers all before it in its stream: how far each stream is done."""

    def __init__(self) -> None:
        self._streams: dict[str | None, deque[Entry]] = {}
        self._done: set[int] = set()

    def add(self, entry: Entry) -> None:
        """It was received, after all of its stream before it."""
        self._streams.setdefault(entry.stream, deque()).append(entry)

    def done(self, entry: Entry) -> list[Entry]:
        """It is done. Returns what can be acked now, in order: an ack of the last one covers them."""
        queue = self._streams[entry.stream]
        self._done.add(id(entry))
        covered: list[Entry] = []
        while queue and id(queue[0]) in self._done:
            covered.append(queue.popleft())
            self._done.discard(id(covered[-1]))
        self._tidy(entry.stream)
        return covered

    def rewind(self, entry: Entry) -> list[tuple[Entry, bool]]:
        """It is not to be acked from here, so neither is what follows it in its stream.

        Returns:
            It and those that follow it, in order, each with whether it was done.
            None, if it is not there any more.
        """
        queue = self._streams.get(entry.stream)
        if queue is None or entry not in queue:
            return []
        after: list[tuple[Entry, bool]] = []
        while not after or after[-1][0] is not entry:
            each = queue.pop()
            after.append((each, id(each) in self._done))
            self._done.discard(id(each))
        self._tidy(entry.stream)
        return after[::-1]

    def _tidy(self, stream: str | None) -> None:
        if not self._streams[stream]:
            del self._streams[stream]
