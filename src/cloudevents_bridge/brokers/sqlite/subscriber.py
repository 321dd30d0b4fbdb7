"""Receiving and settling, for a subscription or its dead-letter place."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
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
from cloudevents_bridge.errors import BridgeError, ErrorCode

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
        self._out: dict[Handle, Inbound] = {}
        self._finished = 0

    def receive(self, max_messages: int, wait: float) -> Received:
        end = time.monotonic() + wait
        while max_messages > 0 and not self._stopped:
            version = self._store.watch.version
            rest = self._rest()
            if rest <= 0.0:
                messages = self._take(min(max_messages, _BATCH))
                if messages:
                    return Received(messages)
                continue
            left = end - time.monotonic()
            if left <= 0.0:
                return Received()
            self._store.watch.wait(version, min(left, rest), self._is_stopped)
        if self._closed:
            raise self._store.fail(ErrorCode.CLOSED, f"this subscriber of {self._store.url} is closed")
        return Received()

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        if self._closed:
            raise self._store.fail(ErrorCode.CLOSED, f"this subscriber of {self._store.url} is closed")
        if verb == "dead" and not self.traits.dead:
            return [_NO_DEAD] * len(messages)
        leases: dict[tuple[int, int], dict[int, str | None]] = {}
        for each in messages:
            handle: Handle = each.handle
            leases.setdefault((handle.place, handle.serial), {})[handle.event] = each.key
        kept: set[Handle] = set()
        with self._store.write(timeout) as db:
            now = self._store.now()
            for (place, serial), keys in leases.items():
                mine = owned(db, place, keys, serial, now)
                if not mine:
                    continue
                lanes = {key for event, key in keys.items() if key is not None and event in mine}
                settle(db, verb, place, sorted(mine), lanes, now=now, seconds=seconds, reason=reason)
                kept.update(Handle(place, event, serial) for event in mine)
            self._tidy(db, now, kept if verb in ("ack", "dead") else ())
        if verb != "ack" or any(each.key is not None for each in messages):
            self._store.watch.notify()
        done = Done(lease=seconds if verb == "extend" else 0.0)
        outcomes: list[Done | Fault] = []
        for each in messages:
            if verb != "extend":
                self._out.pop(each.handle, None)
            outcomes.append(done if each.handle in kept else _LOST)
            if verb != "extend":
                kept.discard(each.handle)
        return outcomes

    def stop(self) -> None:
        self._stopped = True
        self._store.watch.notify()

    def close(self) -> None:
        if self._closed:
            return
        if self._out:
            with contextlib.suppress(BridgeError, sqlite3.Error):  # the leases end by themselves
                self.settle("release", list(self._out.values()), timeout=1.0)
        self._closed = True
        self.stop()

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
        with self._store.write(SETUP, stopped=self._is_stopped) as db:
            now = self._store.now()
            place = find_place(db, self._store, self._of)
            taken = take(db, place, now, limit)
            self._tidy(db, now, ())
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
        self._out.update((each.handle, each) for each in messages)
        return messages

    def _tidy(self, db: sqlite3.Connection, now: float, finished: Sequence[Handle] | set[Handle]) -> None:
        self._finished += len(finished)
        if self._finished >= _SWEEP_AFTER:
            topic = topic_of(next(iter(finished)).event) if finished else None
            if topic is not None:
                sweep(db, topic, max(STEP, 2 * self._finished))
                self._finished = 0
        tend(db, self._store, now, len(finished))


def _attributes(taken: Taken) -> Mapping[str, str]:
    attributes = dict(USUAL) if taken.attributes is None else json.decode(taken.attributes, type=dict[str, str])
    if taken.reason is not None:
        attributes[DEAD_LETTER] = taken.reason
    return attributes
