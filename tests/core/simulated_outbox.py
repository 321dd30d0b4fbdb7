"""An outbox beside a broker that misbehaves, in simulated time. Every rule of the outbox is checked at every step."""

from __future__ import annotations

import random
from collections.abc import Sequence

from cloudevents_bridge.core.outbox import Entry, Outbox
from cloudevents_bridge.driver import Done, Fault, Outbound, SendTraits
from cloudevents_bridge.errors import ErrorCode

Outcome = Done | Fault
SPENT = 5
"""Tries after which the back-off gives up."""


def fault(
    code: ErrorCode, *, retryable: bool = False, maybe_applied: bool = False, after: float | None = None
) -> Fault:
    return Fault(code, retryable=retryable, maybe_applied=maybe_applied, retry_after=after)


def backoff(attempt: int, retry_after: float | None) -> float | None:
    return None if attempt >= SPENT else max(float(attempt - 1), retry_after or 0.0)


class Event:
    """What the simulation knows of one entry."""

    def __init__(self, place: int, key: str | None, entry: Entry, culprit: bool) -> None:
        self.place = place
        self.key = key
        self.entry = entry
        self.culprit = culprit
        self.due = 0.0
        self.tries = 0
        self.lost_answer = False
        self.said: Outcome | None = None
        self.outcome: Outcome | None = None


class Simulation:
    """One schedule: `add`, `send`, `answer` and `pass_time` in any order, then `finish`."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.traits = SendTraits(
            batch_count=choose.choice((1, 2, 3, 5, 8)),
            batch_bytes=choose.choice((10, 30, 100)),
            message_bytes=choose.choice((8, 10, 30)),
            keys=choose.choice(("mixed", "one_key", "one_each")),
            sends=choose.choice((1, 1, 2, 3)),
        )
        self.ordered = choose.random() < 0.7
        self.patience = choose.choice((3.0, 10.0, 1e9))
        self.broker_bytes = choose.choice((self.traits.batch_bytes, 12))
        self.mood = choose.choice((0.0, 0.2, 0.6, 0.95))
        self.outbox = Outbox(self.traits, backoff, ordered=self.ordered)
        self.now = 100.0
        self.events: list[Event] = []
        self.by_entry: dict[int, Event] = {}
        self.in_flight: list[list[Event]] = []
        self.applied: dict[str, list[int]] = {}
        self.unresolved = 0
        self.abandoned = False

    # -- what happens

    def add(self, key: str | None, size: int, *, refused: bool = False, culprit: bool = False) -> None:
        refusal = fault(ErrorCode.INVALID_ARGUMENT) if refused else None
        place = len(self.events)
        entry = Entry(Outbound(b"", {}, key), size, place, self.now + self.patience, refusal=refusal)
        event = Event(place, key if self.ordered else None, entry, culprit)
        self.events.append(event)
        self.by_entry[id(entry)] = event
        self.unresolved += 1
        self.outbox.add(entry)
        self._take()

    def send(self) -> bool:
        """Ask for a batch; False: there is none."""
        if len(self.in_flight) >= self.traits.sends:
            return False
        entries = self.outbox.next_batch(self.now)
        self._take()
        if entries is None:
            self._check_idle()
            return False
        batch = [self.by_entry[id(entry)] for entry in entries]
        self._check_batch(batch)
        for event in batch:
            event.tries += 1
        self.in_flight.append(batch)
        return True

    def answer(self, which: int = 0) -> None:
        batch = self.in_flight.pop(which % len(self.in_flight))
        outcomes = self._broker(batch)
        bisected = len(batch) > 1 and all(isinstance(o, Fault) and o.code == ErrorCode.TOO_LARGE for o in outcomes)
        for event, outcome in zip(batch, outcomes, strict=True):
            event.said = outcome
            if isinstance(outcome, Fault):
                event.lost_answer |= outcome.maybe_applied
                pause = 0.0 if bisected else backoff(event.entry.attempt, outcome.retry_after)
                event.due = self.now + (pause or 0.0)
        self.outbox.settled([event.entry for event in batch], outcomes, self.now)
        self._take()
        back = [event for event in batch if event.outcome is None]
        assert all(event.entry.most <= len(batch) // 2 for event in back if bisected)
        for event in back:  # of a key, none goes before the last one may
            event.due = max(other.due for other in back if other is event or other.key == event.key is not None)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def abandon(self) -> None:
        self.abandoned = True
        self.outbox.abandon()
        self._take()
        flying = {event.place for batch in self.in_flight for event in batch}
        assert {event.place for event in self._open()} == flying

    def finish(self) -> None:
        """Go on until everything is resolved, as a shell does, and check that it ends."""
        for _ in range(200 + 40 * len(self.events)):
            if not self.outbox.unresolved:
                break
            if self.send():
                continue
            if self.in_flight:
                self.answer(self.choose.randrange(len(self.in_flight)))
            else:
                wake = self.outbox.wake_at()
                if wake is not None:
                    assert wake > self.now
                    self.now = wake
                else:
                    assert not self.outbox.unresolved, "stuck: nothing to send, nothing in flight, no time to wake"
        assert not self.outbox.unresolved
        self._check_end()

    # -- the broker

    def _broker(self, batch: Sequence[Event]) -> list[Outcome]:
        if len(batch) > 1 and sum(event.entry.size for event in batch) > self.broker_bytes:
            return [fault(ErrorCode.TOO_LARGE)] * len(batch)
        if any(event.culprit for event in batch):
            return [fault(ErrorCode.TOO_LARGE)] * len(batch)
        choose = self.choose
        if choose.random() >= self.mood:
            return [self._accept(event) for event in batch]
        if choose.random() < 0.5:
            whole = self._any_fault()
            if whole.maybe_applied and choose.random() < 0.5:
                for event in batch:
                    self._accept(event)
            return [whole] * len(batch)
        outcomes: list[Outcome] = []
        broken: set[str | None] = set()
        for event in batch:
            if event.key in broken or choose.random() < 0.5:
                said = self._any_fault()
                # In order per key: what comes after a failure was not applied.
                if said.maybe_applied and event.key not in broken and choose.random() < 0.5:
                    self._accept(event)
                if event.key is not None:
                    broken.add(event.key)
                outcomes.append(said)
            else:
                outcomes.append(self._accept(event))
        return outcomes

    def _any_fault(self) -> Fault:
        choose = self.choose
        return fault(
            choose.choice((ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL, ErrorCode.PERMISSION_DENIED)),
            retryable=choose.random() < 0.75,
            maybe_applied=choose.random() < 0.4,
            after=choose.choice((None, None, 0.5, 4.0)),
        )

    def _accept(self, event: Event) -> Done:
        if event.key is not None:
            self.applied.setdefault(event.key, []).append(event.place)
        return Done(str(event.place))

    # -- the rules

    def _open(self) -> list[Event]:
        return [event for event in self.events if event.outcome is None]

    def _check_batch(self, batch: Sequence[Event]) -> None:
        traits = self.traits
        assert 1 <= len(batch) <= traits.batch_count
        assert len(batch) == 1 or sum(event.entry.size for event in batch) <= traits.batch_bytes
        assert len(batch) <= min(event.entry.most for event in batch)
        keys = [event.key for event in batch]
        named = [key for key in keys if key is not None]
        if self.ordered and traits.keys == "one_key":
            assert len(set(keys)) == 1
        if self.ordered and traits.keys == "one_each":
            assert len(set(named)) == len(named)
        flying = [event for other in self.in_flight for event in other]
        assert not {event.place for event in batch} & {event.place for event in flying}
        assert not set(named) & {event.key for event in flying}, "a second send of a key is in flight"
        for event in batch:
            assert event.outcome is None, "sent after it was resolved"
            assert event.entry.refusal is None
            assert event.entry.size <= traits.message_bytes
            assert event.entry.deadline > self.now, "sent too late"
            assert event.due <= self.now, "sent again too early"
        for key in set(named):
            mine = [event.place for event in batch if event.key == key]
            waiting = [event.place for event in self._open() if event.key == key]
            assert mine == waiting[: len(mine)], "overtaken within its key"

    def _check_idle(self) -> None:
        """There was no batch: then there is none to be had."""
        flying = {event.place for batch in self.in_flight for event in batch}
        busy = {event.key for batch in self.in_flight for event in batch if event.key is not None}
        heads: dict[str, Event] = {}
        dues: list[float] = []
        for event in self._open():
            if event.place in flying:
                continue
            if event.key is None:
                dues.append(event.due)
            elif event.key not in busy:
                heads.setdefault(event.key, event)
        dues += [event.due for event in heads.values()]
        assert all(due > self.now for due in dues), "something could have been sent"
        assert self.outbox.wake_at() == min(dues, default=None)

    def _take(self) -> None:
        resolved = self.outbox.take()
        for entry, outcome in resolved:
            event = self.by_entry[id(entry)]
            assert event.outcome is None, "resolved twice"
            event.outcome = outcome
            self.unresolved -= 1
            if isinstance(outcome, Done):
                assert outcome is event.said
            elif event.lost_answer:
                assert entry.maybe_applied or outcome.maybe_applied, "a lost answer was forgotten"
        assert self.outbox.unresolved == self.unresolved
        places = {entry.tag for entry, _ in resolved}
        for place in places:
            if self.events[place].key is not None and isinstance(self.events[place].outcome, Fault):
                self._check_key(self.events[place], places)

    def _check_key(self, failed: Event, resolved: set[int]) -> None:
        mine = [event for event in self.events if event.key == failed.key]
        for later in mine[mine.index(failed) + 1 :]:
            assert later.outcome is not None, "a later event of a failed key is still to be sent"
            if later.place in resolved:
                assert isinstance(later.outcome, Fault)
                assert later.outcome.code == ErrorCode.FAILED_PRECONDITION
        assert isinstance(failed.outcome, Fault)
        if failed.outcome.code == ErrorCode.FAILED_PRECONDITION:
            blamed = [event for event in mine[: mine.index(failed)] if event.place in resolved]
            assert any(isinstance(event.outcome, Fault) for event in blamed), "no earlier event of the key failed"

    def _check_end(self) -> None:
        for applied in self.applied.values():
            first = list(dict.fromkeys(applied))
            assert first == sorted(first), "first accepted out of order"
        for event in self.events:
            limit = self.traits.message_bytes
            if isinstance(event.outcome, Done):
                assert not event.culprit
                assert event.entry.size <= limit
            elif not (self.ordered or self.mood or self.abandoned) and self.patience > 1e6:
                assert event.culprit or event.entry.size > limit or event.entry.refusal is not None, "a good one failed"
        outbox = self.outbox
        assert not [left for left in (outbox._lanes, outbox._retries, outbox._ready, outbox._free) if left]
