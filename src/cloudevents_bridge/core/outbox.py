"""How events are cut into native batches, in what order they go, and when a failed one is sent again.

Sans-I/O: `next_batch` says what to send now, `settled` takes the outcomes, `wake_at` says when to look again, `take`
hands out what is finished. One rule stands above all: within an ordering key nothing overtakes. At most one send of a
key is in flight; while one of its events waits for a retry the others of the key wait behind it; when one fails for
good the rest of its key is not sent, and says so.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from msgspec import Struct

from cloudevents_bridge.driver import Done, Fault, Outbound, SendTraits
from cloudevents_bridge.errors import ErrorCode

_NO_LIMIT = 1 << 62
NOT_SENT = Fault(
    ErrorCode.FAILED_PRECONDITION,
    retryable=False,
    maybe_applied=False,
    message="it was not sent, because an earlier event with its ordering key failed",
)
_TOO_LATE = Fault(
    ErrorCode.DEADLINE_EXCEEDED, retryable=True, maybe_applied=False, message="the time given to the call is over"
)


class Entry(Struct, eq=False):
    """One event on its way out.

    Attributes:
        size: bytes, as the driver counts them.
        tag: the shell's own: an index, a future.
        deadline: no try begins after this; on the shell's clock.
        refusal: why it cannot be sent at all. It takes its turn, so that the events of its key before it are sent
            and those after it are not.
        attempt: the try that is due or under way, 1 = first.
        most: events in a batch with this one, at most; halved each time a batch as a whole was too large.
        maybe_applied: the answer to a try was lost.
        cause: the native error of the last try, where it was one. Its traceback leads back here, so that entries must
            stay within the garbage collector's reach.
    """

    message: Outbound
    size: int
    tag: Any
    deadline: float
    refusal: Fault | None = None
    attempt: int = 1
    most: int = _NO_LIMIT
    maybe_applied: bool = False
    cause: BaseException | None = None


Resolved = tuple[Entry, Done | Fault]


class _Lane(Struct, eq=False):
    """The events of one ordering key, in order. `busy`: one is in flight, or the first waits for its retry."""

    entries: deque[Entry]
    busy: bool = False


class _Batch:
    __slots__ = ("entries", "full", "most", "room")

    def __init__(self, traits: SendTraits) -> None:
        self.entries: list[Entry] = []
        self.room = traits.batch_bytes
        self.most = traits.batch_count
        self.full = False

    def fill(self, queue: deque[Entry], at_most: int) -> None:
        """Move entries from the head of the queue while they fit. A first one always does."""
        entries, room, most = self.entries, self.room, self.most
        until = len(entries) + at_most
        while queue and len(entries) < until:
            entry = queue[0]
            if entry.refusal is not None:
                break
            if entry.most < most:
                most = entry.most
            if entries and (len(entries) >= most or entry.size > room):
                self.full = True
                break
            room -= entry.size
            entries.append(queue.popleft())
        self.room, self.most = room, most
        self.full = self.full or len(entries) >= most


class Outbox:
    """Events waiting to be sent through one publisher driver. Not thread-safe: the shell holds its lock.

    Args:
        traits: what the driver takes in one send.
        backoff: seconds to wait after the given attempt failed with the given retry-after; None: give up.
        ordered: whether the ordering keys count.
    """

    def __init__(
        self, traits: SendTraits, backoff: Callable[[int, float | None], float | None], *, ordered: bool
    ) -> None:
        self._traits = traits
        self._message_bytes = traits.message_bytes
        self._backoff = backoff
        self._ordered = ordered
        self._free: deque[Entry] = deque()
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[str] = deque()
        self._retries: list[tuple[float, int, Entry]] = []
        self._tie = count()
        self._finished: list[Resolved] = []
        self._earliest = float("inf")
        self._keyed_turn = False
        self.unresolved = 0

    def add(self, entry: Entry) -> None:
        """Take one more event, behind all of its key."""
        self.unresolved += 1
        if entry.size > self._message_bytes:
            text = f"it is {entry.size} bytes, encoded, and the limit is {self._message_bytes}"
            entry.refusal = Fault(ErrorCode.TOO_LARGE, retryable=False, maybe_applied=False, message=text)
        if entry.deadline < self._earliest:
            self._earliest = entry.deadline
        key = entry.message.key if self._ordered else None
        if key is None:
            if entry.refusal is not None:
                self._resolve(entry, entry.refusal)
            else:
                self._free.append(entry)
            return
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(deque())
            self._ready.append(key)
        lane.entries.append(entry)

    def next_batch(self, now: float) -> list[Entry] | None:
        """The events to send now, as one native batch; None: nothing before `wake_at`, or before a send is settled."""
        self._expire(now)
        self._wake(now)
        batch = _Batch(self._traits)
        self._keyed_turn = not self._keyed_turn  # so that neither starves where more comes than goes
        fills = (self._fill_keyed, self._fill_free) if self._keyed_turn else (self._fill_free, self._fill_keyed)
        for fill in fills:
            if not batch.full and not (batch.entries and self._traits.keys == "one_key"):
                fill(batch)
        return batch.entries or None

    def _fill_free(self, batch: _Batch) -> None:
        batch.fill(self._free, self._traits.batch_count)

    def _fill_keyed(self, batch: _Batch) -> None:
        of_each = 1 if self._traits.keys == "one_each" else self._traits.batch_count
        while self._ready and not batch.full:
            key = self._ready[0]
            lane = self._lanes[key]
            refusal = lane.entries[0].refusal
            if refusal is not None:
                self._ready.popleft()
                self._fail_lane(key, lane, refusal)
                continue
            before = len(batch.entries)
            batch.fill(lane.entries, of_each)
            if len(batch.entries) == before:
                return
            self._ready.popleft()
            lane.busy = True
            if self._traits.keys == "one_key":
                return

    def wake_at(self) -> float | None:
        """When the next retry is due, on the shell's clock; None: no retry waits."""
        return self._retries[0][0] if self._retries else None

    def settled(self, batch: Sequence[Entry], outcomes: Sequence[Done | Fault], now: float) -> None:
        """Take the outcomes of a batch, one per event, in order."""
        if not self._lanes and set(map(type, outcomes)) == {Done}:
            self._finished += zip(batch, outcomes, strict=True)
            self.unresolved -= len(batch)
        else:
            self._sort_out(batch, outcomes, now)

    def _sort_out(self, batch: Sequence[Entry], outcomes: Sequence[Done | Fault], now: float) -> None:
        too_large = len(batch) > 1 and all(isinstance(o, Fault) and o.code == ErrorCode.TOO_LARGE for o in outcomes)
        back: list[Entry] = []
        pauses: dict[str, float] = {}
        failed: set[str] = set()
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Done):
                self._resolve(entry, outcome)
                continue
            key = self._key(entry)
            self._earliest = min(self._earliest, entry.deadline)
            entry.maybe_applied = entry.maybe_applied or outcome.maybe_applied
            pause: float | None
            if too_large:
                entry.most, pause = len(batch) // 2, 0.0
            else:
                pause = self._backoff(entry.attempt, outcome.retry_after) if outcome.retryable else None
                entry.attempt += 1
            if key is not None and key in failed:
                self._resolve(entry, NOT_SENT)
            elif pause is None or now + pause >= entry.deadline:
                self._resolve(entry, _TOO_LATE if too_large else outcome)
                if key is not None:
                    failed.add(key)
            elif key is None:
                if pause:
                    self._retry_later(entry, now + pause)
                else:
                    back.append(entry)
            else:
                pauses[key] = max(pause, pauses.get(key, 0.0))
                back.append(entry)
        for key in failed:  # what was added behind it; what goes back is before it, and is tried again
            self._fail_entries(self._lanes[key], NOT_SENT)
        for entry in reversed(back):
            key = self._key(entry)
            (self._free if key is None else self._lanes[key].entries).appendleft(entry)
        for key in {key: None for key in map(self._key, batch) if key is not None}:
            self._after_send(key, pauses.get(key, 0.0), now)

    def abandon(self) -> None:
        """Give up everything that waits. What is in flight is left to its send."""
        self._expire(float("inf"))

    def take(self) -> list[Resolved]:
        """What has finished since the last call, each with its last outcome."""
        finished, self._finished = self._finished, []
        return finished

    def _key(self, entry: Entry) -> str | None:
        return entry.message.key if self._ordered else None

    def _resolve(self, entry: Entry, outcome: Done | Fault) -> None:
        self.unresolved -= 1
        self._finished.append((entry, outcome))

    def _retry_later(self, entry: Entry, due: float) -> None:
        heapq.heappush(self._retries, (due, next(self._tie), entry))

    def _wake(self, now: float) -> None:
        while self._retries and self._retries[0][0] <= now:
            entry = heapq.heappop(self._retries)[2]
            key = self._key(entry)
            if key is None:
                self._free.appendleft(entry)
            elif (lane := self._lanes.get(key)) and lane.entries and lane.entries[0] is entry:
                lane.busy = False
                self._ready.append(key)

    def _after_send(self, key: str, pause: float, now: float) -> None:
        lane = self._lanes[key]
        if not lane.entries:
            del self._lanes[key]
        elif pause:
            self._retry_later(lane.entries[0], now + pause)
        else:
            lane.busy = False
            self._ready.append(key)

    def _fail_lane(self, key: str, lane: _Lane, first: Fault) -> None:
        """Nothing of the key is sent any more: its first event for the reason given, the others because of it."""
        del self._lanes[key]
        self._fail_entries(lane, first)

    def _fail_entries(self, lane: _Lane, first: Fault) -> None:
        for place, entry in enumerate(lane.entries):
            self._resolve(entry, first if place == 0 else NOT_SENT)
        lane.entries.clear()

    def _expire(self, now: float) -> None:
        if now < self._earliest:
            return
        self._free = deque(self._keep(self._free, now))
        keyless = self._keep((e for _, _, e in self._retries if self._key(e) is None), now)
        pausing = {id(entry) for _, _, entry in self._retries}
        for key, lane in list(self._lanes.items()):
            if not lane.entries or lane.entries[0].deadline > now:
                continue
            if lane.busy and id(lane.entries[0]) not in pausing:
                self._fail_entries(lane, _TOO_LATE)
            else:
                self._fail_lane(key, lane, _TOO_LATE)
        self._ready = deque(key for key in self._ready if key in self._lanes)
        kept = {id(entry) for entry in keyless}
        self._retries = [r for r in self._retries if id(r[2]) in kept or self._key(r[2]) in self._lanes]
        heapq.heapify(self._retries)
        waiting = [*self._free, *keyless, *(e for lane in self._lanes.values() for e in lane.entries)]
        self._earliest = min((entry.deadline for entry in waiting), default=float("inf"))

    def _keep(self, entries: Iterable[Entry], now: float) -> list[Entry]:
        kept = []
        for entry in entries:
            if entry.deadline <= now:
                self._resolve(entry, _TOO_LATE)
            else:
                kept.append(entry)
        return kept
