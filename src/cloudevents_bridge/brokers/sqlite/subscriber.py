"""Receiving and settling, for a subscription or its dead-letter place."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec import json

from cloudevents_bridge.brokers.sqlite.deliveries import Taken, owned, settle, take
from cloudevents_bridge.brokers.sqlite.places import find_place, topic_of
from cloudevents_bridge.brokers.sqlite.publisher import USUAL
from cloudevents_bridge.brokers.sqlite.store import SETUP, Store
from cloudevents_bridge.brokers.sqlite.sweep import STEP, sweep, tend
from cloudevents_bridge.driver import (
    DEAD_LETTER,
    DeadLetters,
    Done,
    Fault,
    Inbound,
    Received,
    ReceiveTraits,
    Subscription,
    Verb,
)
from cloudevents_bridge.errors import BridgeError, DeadlineExceededError, ErrorCode

_BATCH = 1000
_NO_DEAD = Fault(
    ErrorCode.FAILED_PRECONDITION,
    retryable=False,
    maybe_applied=False,
    message="a dead letter cannot be dead-lettered: ack it, or publish it to its subscription",
)
_LOST = Fault(
    ErrorCode.LEASE_LOST, retryable=False, maybe_applied=False, message="its lease is over, or it was settled before"
)
_SWEEP_AFTER = 500
_LOOK = 1.0
"""Seconds after which one who waits looks again at what is due: a machine that was suspended has slept over it."""
_USUAL = MappingProxyType(dict(USUAL))

_PEEK = """
SELECT s.used, s.expires, {new},
    (SELECT d.due FROM deliveries d WHERE d.place = {sign} s.id AND d.due IS NOT NULL ORDER BY d.due LIMIT 1)
FROM topics t JOIN subscriptions s ON s.topic = t.id AND s.name = ? WHERE t.name = ?
"""
_PEEK_EVENTS = _PEEK.format(
    new="EXISTS (SELECT 1 FROM events e WHERE e.id > s.cursor AND e.id < (s.topic + 1) << 40)", sign="+"
)
_PEEK_DEAD = _PEEK.format(new="0", sign="-")


class Handle(NamedTuple):
    """Names one lease: of one event in one place, by its serial."""

    place: int
    event: int
    serial: int


class Subscriber:
    """Receives from one place. Threads share it; it has none of its own."""

    def __init__(self, store: Store, of: Subscription | DeadLetters) -> None:
        self.traits = ReceiveTraits(
            batch_count=_BATCH,
            settle_count=5 * _BATCH,
            receives=1,
            wait=(0.0, 3600.0),
            stop_within=0.1,
            nack_delay=1_209_600.0,
            lease_total=math.inf,
            removes_after=None,
            settle="each",
            free_release=True,
            dead=not isinstance(of, DeadLetters),
        )
        self._store = store
        self._of = of
        self._subscription = of.of if isinstance(of, DeadLetters) else of
        self._peek = _PEEK_DEAD if isinstance(of, DeadLetters) else _PEEK_EVENTS
        self._stopped = False
        self._closed = False
        self._out: dict[Handle, float] = {}
        self._prune_at = 2 * _BATCH
        self._finished = 0

    def receive(self, max_messages: int, wait: float) -> Received:
        end = time.monotonic() + wait
        while max_messages > 0 and not self._stopped:
            version = self._store.watch.version
            rest = self._rest()
            if rest <= 0.0:
                messages = self._take(min(max_messages, _BATCH))
                if messages and not self._closed:
                    return Received(messages)
                self._give_back()
                continue
            left = end - time.monotonic()
            if left <= 0.0:
                return Received()
            self._store.watch.wait(version, min(left, rest, _LOOK), self._is_stopped)
        self._check()
        return Received()

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        self._check()
        if verb == "dead" and not self.traits.dead:
            return [_NO_DEAD] * len(messages)
        kept = self._settle(verb, {each.handle: each.key for each in messages}, seconds, reason, timeout)
        if verb == "extend":
            done = Done(lease=seconds)
            return [done if each.handle in kept else _LOST for each in messages]
        outcomes: list[Done | Fault] = []
        done = Done()
        for each in messages:
            outcomes.append(done if each.handle in kept else _LOST)
            kept.discard(each.handle)  # one that is named twice is settled once
        return outcomes

    def stop(self) -> None:
        self._stopped = True
        self._store.watch.notify()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.stop()
            self._give_back()

    def _check(self) -> None:
        if self._closed:
            raise self._store.fail(ErrorCode.CLOSED, f"this subscriber of {self._store.url} is closed")

    def _settle(
        self, verb: Verb, handles: Mapping[Handle, str | None], seconds: float, reason: str, timeout: float
    ) -> set[Handle]:
        """Settle in one transaction; the handles, given with their ordering keys, that were still leased."""
        leases: dict[tuple[int, int], dict[int, str | None]] = {}
        for (place, event, serial), key in handles.items():
            leases.setdefault((place, serial), {})[event] = key
        kept: set[Handle] = set()
        with self._store.write(timeout) as db:
            now = self._store.now()
            for (place, serial), keys in leases.items():
                mine = owned(db, place, keys, serial, now)
                if mine:
                    lanes = {key for event, key in keys.items() if key is not None and event in mine}
                    settle(db, verb, place, sorted(mine), lanes, now=now, seconds=seconds, reason=reason)
                    kept.update(Handle(place, event, serial) for event in mine)
            self._tidy(db, now, kept if verb in ("ack", "dead") else ())
        if verb == "extend":
            self._out.update(dict.fromkeys(kept, time.monotonic() + seconds))
        else:
            for handle in handles:
                self._out.pop(handle, None)
        if verb != "ack" or any(key is not None for key in handles.values()):
            self._store.watch.notify()
        return kept

    def _give_back(self) -> None:
        """Release what is still out, once this is closed."""
        if self._closed and self._out:
            with contextlib.suppress(BridgeError, sqlite3.Error):  # the leases end by themselves
                self._settle("release", dict.fromkeys(list(self._out)), 0.0, "", 1.0)

    def _is_stopped(self) -> bool:
        return self._stopped

    def _rest(self) -> float:
        """Seconds until it is worth trying to take something; 0: now."""
        row = self._store.read(self._peek, (self._subscription.name, self._subscription.topic.name))
        if not row:
            with self._store.write(SETUP) as db:  # which raises what is missing
                find_place(db, self._store, self._of)
            return 0.0
        used, expires, new, due = row[0]
        if new:
            return 0.0
        now = self._store.now()
        rest = math.inf if due is None else due - now
        if expires is not None:
            unused = used + expires / 4 - now
            if unused <= 0.0:
                self._touch()
                unused = expires / 4
            rest = min(rest, unused)
        return float(rest)

    def _touch(self) -> None:
        """Keep a subscription that expires, while somebody waits at it."""
        with self._store.write(SETUP, stopped=self._is_stopped) as db:
            place = abs(find_place(db, self._store, self._of).id)
            db.execute("UPDATE subscriptions SET used = ? WHERE id = ?", (self._store.now(), place))

    def _take(self, limit: int) -> list[Inbound]:
        try:
            with self._store.write(SETUP, stopped=self._is_stopped) as db:
                now = self._store.now()
                place = find_place(db, self._store, self._of)
                taken = take(db, place, now, limit)
                self._tidy(db, now, ())
        except DeadlineExceededError:
            if self._stopped:
                return []
            raise
        lease = place.lease - (self._store.now() - now)
        messages = [
            Inbound(
                each.body,
                _USUAL if each.attributes is None and each.reason is None else _attributes(each),
                Handle(place.id, each.event, each.serial),
                lease,
                each.attempt,
                each.key,
            )
            for each in taken
        ]
        ends = time.monotonic() + lease
        self._out.update((each.handle, ends) for each in messages)
        if len(self._out) > self._prune_at:
            self._out = {handle: end for handle, end in self._out.copy().items() if end > time.monotonic()}
            self._prune_at = 2 * (_BATCH + len(self._out))
        return messages

    def _tidy(self, db: sqlite3.Connection, now: float, finished: Collection[Handle]) -> None:
        self._finished += len(finished)
        if finished and self._finished >= _SWEEP_AFTER:
            sweep(db, topic_of(next(iter(finished)).event), max(STEP, 2 * self._finished))
            self._finished = 0
        tend(db, self._store, now, len(finished))


def _attributes(taken: Taken) -> Mapping[str, str]:
    attributes = dict(USUAL) if taken.attributes is None else json.decode(taken.attributes, type=dict[str, str])
    if taken.reason is not None:
        attributes[DEAD_LETTER] = taken.reason
    return attributes
