"""One place that events are consumed from: what is ready, leased, delayed and waiting behind its ordering key.

Every call is made with the lock of the store held. A delivery is hidden while it is leased or delayed; all that one
call hid until the same moment is one timer, so that the cost per event does not depend on how many are hidden.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TypeAlias

from msgspec import Struct

from cloudevents_bridge.driver import Done, Fault, Inbound, Outbound, Subscription, Verb
from cloudevents_bridge.errors import ErrorCode

Token: TypeAlias = tuple[int, int]
Outcome: TypeAlias = Done | Fault

_NOTHING = Outbound(b"", {})
_DONE = Done()
_LOST = Fault(ErrorCode.LEASE_LOST, retryable=False, maybe_applied=False, message="the lease is over, or was settled")
_SLACK = 1_000


class Entry(Struct, eq=False, gc=False):
    """One event in one feed.

    Attributes:
        deadline: when it expires.
        due: when it stops being hidden; 0: it is not hidden.
        token: of the receive that leased it; None: it is not leased.
    """

    message: Outbound
    deadline: float
    key: str | None = None
    due: float = 0.0
    attempt: int = 0
    token: Token | None = None


class Feed:
    """The queue of a subscription, or of its dead-letter place."""

    def __init__(self, of: Subscription, lock: threading.RLock, *, ordered: bool, now: float) -> None:
        self.of = of
        self.ordered = ordered
        self.changed = threading.Condition(lock)
        self.waiters = 0
        self.used = now
        self.gone = False
        self.size = 0
        self.leased = 0
        self._ready: deque[Entry] = deque()
        self._lanes: dict[str, deque[Entry] | None] = {}
        self._delayed = 0
        self._timers: list[tuple[float, int, list[Entry]]] = []
        self._timed = 0
        self._calls = count()
        self._sweep_at = _SLACK

    def put(self, batch: Sequence[Outbound], now: float) -> None:
        """Append events. They share the message with the other feeds of the topic."""
        deadline = now + self.of.retention
        for message in batch:
            entry = Entry(message, deadline if message.ttl is None else min(deadline, now + message.ttl))
            if message.delay > 0:
                entry.due = now + message.delay
            if self.ordered and message.key is not None:
                entry.key = message.key
                if message.key in self._lanes:
                    self._follow(message.key, entry)
                    continue
                self._lanes[message.key] = None
            self._show(entry, now)
        self._grown(len(batch), now)

    def put_plain(self, batch: Sequence[Outbound], now: float) -> None:
        """`put` where no event has a delay, a time to live or an order to keep."""
        deadline = now + self.of.retention
        self._ready.extend([Entry(message, deadline) for message in batch])
        self._grown(len(batch), now)

    def take(self, most: int, now: float, holder: int) -> list[Inbound]:
        """Lease what is ready, the oldest first."""
        self.fire(now)
        ready = self._ready
        if not ready:
            return []
        lease = self.of.lease
        token, due = (holder, next(self._calls)), now + lease
        batch: list[Entry] = []
        while ready and len(batch) < most:
            entry = ready.popleft()
            if entry.deadline <= now:
                self._finish(entry, now)
                continue
            entry.attempt += 1
            entry.token = token
            entry.due = due
            batch.append(entry)
        self.leased += len(batch)
        self._time(due, batch)
        return [Inbound(e.message.body, e.message.attributes, (e, token), lease, e.attempt, e.key) for e in batch]

    def ack(self, messages: Sequence[Inbound], now: float) -> list[Outcome]:
        """Forget what the caller still holds."""
        self.fire(now)
        outcomes: list[Outcome] = []
        for message in messages:
            entry, token = message.handle
            if entry.token is not token:
                outcomes.append(_LOST)
                continue
            self.leased -= 1
            self._finish(entry, now)
            outcomes.append(_DONE)
        self._tidy()
        return outcomes

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], now: float, *, seconds: float, bury: Callable[[Entry], None]
    ) -> list[Outcome]:
        """Every verb but ack. `bury` takes what is dead-lettered."""
        self.fire(now)
        outcomes: list[Outcome] = []
        held: list[Entry] = []
        for message in messages:
            entry, token = message.handle
            if entry.token is not token:
                outcomes.append(_LOST)
                continue
            outcomes.append(Done(lease=seconds) if verb == "extend" else _DONE)
            held.append(entry)
            # A delivery that is named twice is settled once.
            if verb != "extend":
                entry.token = None
        if verb == "extend":
            self._hide(held, now + seconds)
        elif verb == "dead":
            self.leased -= len(held)
            for entry in held:
                bury(entry)
                self._finish(entry, now)
        else:
            self.leased -= len(held)
            self._give_back(held, now + seconds if verb == "nack" and seconds > 0 else 0.0, free=verb == "release")
        self._tidy()
        return outcomes

    def reclaim(self, chosen: Callable[[Entry], bool], now: float, *, free: bool) -> None:
        """Take leased events back from their consumers. `free`: it spends no attempt."""
        self.fire(now)
        leased = (e for _, _, batch in sorted(self._timers) for e in batch if e.token is not None and chosen(e))
        # What was extended to the same moment twice is in two timers.
        held = list({id(entry): entry for entry in leased}.values())
        for entry in held:
            entry.token = None
        self.leased -= len(held)
        self._give_back(held, 0.0, free=free)
        self._tidy()

    def fire(self, now: float) -> None:
        """Bring back what is due: the longest hidden first, ahead of what is ready."""
        timers = self._timers
        if not timers or timers[0][0] > now:
            return
        back: list[Entry] = []
        while timers and timers[0][0] <= now:
            due, _, batch = heappop(timers)
            self._timed -= len(batch)
            for entry in batch:
                if entry.due != due:
                    continue
                if entry.token is None:
                    self._delayed -= 1
                else:
                    self.leased -= 1
                    entry.token = None
                entry.due = 0.0
                back.append(entry)
        self._ready.extendleft(reversed(back))

    def next_due(self) -> float | None:
        """When the next hidden delivery comes back."""
        timers = self._timers
        while timers and not any(entry.due == timers[0][0] for entry in timers[0][2]):
            self._timed -= len(heappop(timers)[2])
        return timers[0][0] if timers else None

    def next_delay(self) -> float | None:
        """When the next delay ends; a search, for clocks that jump."""
        return min(
            (due for due, _, batch in self._timers if any(e.due == due and e.token is None for e in batch)),
            default=None,
        )

    def close(self) -> None:
        """The place was deleted: no handle of it is worth anything any more."""
        self.gone = True
        for _, _, batch in self._timers:
            for entry in batch:
                entry.token = None
        self.changed.notify_all()

    def _give_back(self, held: list[Entry], due: float, *, free: bool) -> None:
        if free:
            for entry in held:
                entry.attempt -= 1
        if due:
            self._delayed += len(held)
            self._hide(held, due)
            return
        for entry in held:
            entry.due = 0.0
        # A failed run goes behind what is ready, so that it does not stop the others.
        if free:
            self._ready.extendleft(reversed(held))
        else:
            self._ready.extend(held)
        self.notify(len(held))

    def _follow(self, key: str, entry: Entry) -> None:
        lane = self._lanes[key]
        if lane is None:
            lane = self._lanes[key] = deque()
        lane.append(entry)

    def _show(self, entry: Entry, now: float) -> None:
        if entry.due > now:
            self._delayed += 1
            self._hide([entry], entry.due)
        else:
            entry.due = 0.0
            self._ready.append(entry)
            self.notify(1)

    def _finish(self, entry: Entry, now: float) -> None:
        """Forget an entry that is neither ready nor counted as hidden; the next of its key comes up."""
        entry.token, entry.due, entry.message = None, 0.0, _NOTHING
        self.size -= 1
        if entry.key is None:
            return
        lane = self._lanes[entry.key]
        while lane:
            following = lane.popleft()
            if following.deadline > now:
                self._show(following, now)
                return
            self.size -= 1
        del self._lanes[entry.key]

    def _hide(self, entries: list[Entry], due: float) -> None:
        for entry in entries:
            entry.due = due
        self._time(due, entries)

    def _time(self, due: float, entries: list[Entry]) -> None:
        if not entries:
            return
        timers = self._timers
        if self.waiters and (not timers or due < timers[0][0]):
            self.changed.notify_all()
        heappush(timers, (due, next(self._calls), entries))
        self._timed += len(entries)

    def _tidy(self) -> None:
        """Forget timers of what was settled before they ran out, before they outnumber the others."""
        hidden = self.leased + self._delayed
        if not hidden:
            self._timers.clear()
            self._timed = 0
        elif self._timed > 2 * hidden + _SLACK:
            live = ((due, call, [e for e in batch if e.due == due]) for due, call, batch in self._timers)
            self._timers = [timer for timer in live if timer[2]]
            heapify(self._timers)
            self._timed = sum(len(batch) for _, _, batch in self._timers)

    def _grown(self, by: int, now: float) -> None:
        self.size += by
        self.notify(by)
        if self.size > self._sweep_at:
            self._sweep(now)
            self._sweep_at = 2 * self.size + _SLACK

    def _sweep(self, now: float) -> None:
        """Forget what expired and nobody fetches. Done each time the feed has doubled: a constant cost per event."""
        for lane in self._lanes.values():
            if lane:
                kept = [entry for entry in lane if entry.deadline > now]
                self.size -= len(lane) - len(kept)
                lane.clear()
                lane.extend(kept)
        for _ in range(len(self._ready)):
            entry = self._ready.popleft()
            if entry.deadline > now:
                self._ready.append(entry)
            else:
                self._finish(entry, now)

    def notify(self, events: int) -> None:
        """Wake as many consumers as there are events for."""
        if self.waiters and events:
            self.changed.notify(events)


def wake(feeds: Iterable[Feed]) -> None:
    """Have all who wait look again."""
    for feed in feeds:
        if feed.waiters:
            feed.changed.notify_all()
