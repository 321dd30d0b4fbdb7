"""The state of deliveries: leasing, settling, and who is next of an ordering key. All in the caller's transaction.

Of the deliveries of one key in one place only the first has a `due`; the others get theirs when it goes. One that waits
past its expiry is due then, so that it goes and its key goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from msgspec import json

from cloudevents_bridge.brokers.sqlite.places import Place, end_of, topic_of
from cloudevents_bridge.driver import Verb

BUDGET = 64 << 20
"""Bytes of bodies after which a receive takes no more, whatever the count asked for."""

_SCAN = 2000
"""Events that one transaction looks at past the cursor, at most."""


class Taken(NamedTuple):
    """One delivery, leased."""

    event: int
    serial: int
    attempt: int
    key: str | None
    reason: str | None
    attributes: str | None
    body: bytes


_READY = """
SELECT d.event, (d.serial + 1) | 1, d.attempts + 1, d.key, d.reason, e.attributes, e.body, e.due, e.expires
FROM deliveries d LEFT JOIN events e ON e.id = d.event
WHERE d.place = ? AND d.due <= ? ORDER BY d.due, d.event LIMIT ?
"""
_NEW = """
SELECT id, due, expires, key, target, attributes, body FROM events WHERE id > ? AND id < ? ORDER BY id LIMIT ?
"""
_LEASE_READY = """
UPDATE deliveries SET due = ?, serial = (serial + 1) | 1, attempts = attempts + 1
WHERE place = ? AND event IN (SELECT value FROM json_each(?))
"""
_ADD = """
INSERT INTO deliveries (place, event, due, serial, attempts, key)
SELECT ?1, id, {due}, {serial}, {serial}, key FROM events WHERE id IN (SELECT value FROM json_each(?2))
"""
_ADD_LEASED = _ADD.format(due="?3", serial=1)
_ADD_WAITING = _ADD.format(due="min(due, coalesce(expires, due))", serial=0)
_ADD_BLOCKED = _ADD.format(due="NULL", serial=0)
_NEXT_OF_KEY = """
UPDATE deliveries SET due =
    max(?1, (SELECT min(e.due, coalesce(e.expires, e.due)) FROM events e WHERE e.id = deliveries.event))
WHERE place = ?2 AND due IS NULL AND event IN
    (SELECT (SELECT min(d.event) FROM deliveries d WHERE d.place = ?2 AND d.key = k.value) FROM json_each(?3) k)
"""
_OWNED = """
SELECT json_group_array(event) FROM deliveries
WHERE place = ? AND event IN (SELECT value FROM json_each(?)) AND serial = ? AND +due > ?
"""  # + keeps SQLite from looking through all that is due later
_DELETE = "DELETE FROM deliveries WHERE place = ?1 AND event IN (SELECT value FROM json_each(?2))"
_EXTEND = "UPDATE deliveries SET due = ?3 WHERE place = ?1 AND event IN (SELECT value FROM json_each(?2))"
_NACK = """
UPDATE deliveries SET serial = serial + 1, due = CASE WHEN key IS NULL THEN ?3 ELSE
    min(?3, coalesce((SELECT e.expires FROM events e WHERE e.id = deliveries.event), ?3)) END
WHERE place = ?1 AND event IN (SELECT value FROM json_each(?2))
"""
_RELEASE = """
UPDATE deliveries SET due = ?3, serial = serial + 1, attempts = attempts - 1
WHERE place = ?1 AND event IN (SELECT value FROM json_each(?2))
"""
_BURY = """
INSERT INTO deliveries (place, event, due, serial, attempts, reason)
SELECT -place, event, ?3, 0, 0, ?4 FROM deliveries
WHERE place = ?1 AND event IN (SELECT value FROM json_each(?2))
"""
_FORGET = """
DELETE FROM events WHERE id IN (SELECT value FROM json_each(?1)) AND NOT EXISTS (
    SELECT 1 FROM deliveries d WHERE d.event = events.id AND d.place IN (
        SELECT s.id FROM subscriptions s WHERE s.topic = ?2 UNION ALL
        SELECT -s.id FROM subscriptions s WHERE s.topic = ?2))
"""


def take(db: sqlite3.Connection, place: Place, now: float, limit: int) -> list[Taken]:
    """Lease up to `limit` deliveries: first what has come back, then what is new."""
    taken = _take_ready(db, place, now, limit)
    size = sum(len(each.body) for each in taken)
    if place.id > 0 and len(taken) < limit and size < BUDGET:
        taken += _take_new(db, place, now, limit - len(taken), BUDGET - size)
    return taken


def _take_ready(db: sqlite3.Connection, place: Place, now: float, limit: int) -> list[Taken]:
    taken: list[Taken] = []
    over: dict[int, str | None] = {}
    size = 0
    for *row, due, expires in db.execute(_READY, (place.id, now, limit)):
        each = Taken(*row)
        if due is None or (place.id > 0 and _is_over(place, now, due, expires)):
            over[each.event] = each.key
            continue
        taken.append(each)
        size += len(each.body)
        if size >= BUDGET:
            break
    if taken:
        db.execute(_LEASE_READY, (now + place.lease, place.id, ids_json([each.event for each in taken])))
    if over:
        remove(db, place.id, list(over), {key for key in over.values() if key is not None}, now)
    return taken


def _take_new(db: sqlite3.Connection, place: Place, now: float, limit: int, budget: int) -> list[Taken]:
    taken: list[Taken] = []
    waiting: list[int] = []
    blocked: list[int] = []
    keys = _Keys(db, place.id)
    cursor = place.cursor
    for event, due, expires, key, target, attributes, body in db.execute(
        _NEW, (cursor, end_of(place.topic), max(limit, _SCAN))
    ):
        cursor = event
        if (target is not None and target != place.id) or _is_over(place, now, due, expires):
            continue
        if key is not None and not keys.claim(key):
            blocked.append(event)
        elif due > now:
            waiting.append(event)
        else:
            taken.append(Taken(event, 1, 1, key, None, attributes, body))
            budget -= len(body)
            if len(taken) == limit or budget <= 0:
                break
    if cursor == place.cursor:
        return taken
    if taken:
        db.execute(_ADD_LEASED, (place.id, ids_json([each.event for each in taken]), now + place.lease))
    if waiting:
        db.execute(_ADD_WAITING, (place.id, ids_json(waiting)))
    if blocked:
        db.execute(_ADD_BLOCKED, (place.id, ids_json(blocked)))
    db.execute("UPDATE subscriptions SET cursor = ?, used = ? WHERE id = ?", (cursor, now, place.id))
    return taken


def _is_over(place: Place, now: float, due: float, expires: float | None) -> bool:
    return due < now - place.retention or (expires is not None and expires <= now)


class _Keys:
    """Which ordering keys have a delivery in the place."""

    def __init__(self, db: sqlite3.Connection, place: int) -> None:
        self._db = db
        self._place = place
        self._taken: set[str] = set()

    def claim(self, key: str) -> bool:
        """Whether the key was free; it is not any more."""
        if key in self._taken:
            return False
        self._taken.add(key)
        sql = "SELECT 1 FROM deliveries WHERE place = ? AND key = ? LIMIT 1"
        return self._db.execute(sql, (self._place, key)).fetchone() is None


def owned(db: sqlite3.Connection, place: int, events: Collection[int], serial: int, now: float) -> set[int]:
    """Those of the events that are still leased under this serial."""
    (found,) = db.execute(_OWNED, (place, ids_json(events), serial, now)).fetchone()
    return set(json.decode(found, type=list[int]))


def settle(
    db: sqlite3.Connection,
    verb: Verb,
    place: int,
    events: Sequence[int],
    keys: Collection[str],
    *,
    now: float,
    seconds: float,
    reason: str,
) -> None:
    """Apply one verb to deliveries that are `owned`; `keys` are their ordering keys."""
    these = ids_json(events)
    if verb == "ack":
        remove(db, place, events, keys, now)
    elif verb == "extend":
        db.execute(_EXTEND, (place, these, now + seconds))
    elif verb == "nack":
        db.execute(_NACK, (place, these, now + seconds))
    elif verb == "release":
        db.execute(_RELEASE, (place, these, now))
    else:
        db.execute(_BURY, (place, these, now, reason))
        remove(db, place, events, keys, now)


def remove(db: sqlite3.Connection, place: int, events: Sequence[int], keys: Collection[str], now: float) -> None:
    """Finish deliveries: the next of their keys may go, and events that the sweep has left behind go with the last."""
    db.execute(_DELETE, (place, ids_json(events)))
    if keys:
        db.execute(_NEXT_OF_KEY, (now, place, json.encode(list(keys)).decode()))
    topic = topic_of(events[0])
    row = db.execute("SELECT swept FROM topics WHERE id = ?", (topic,)).fetchone()
    late = [each for each in events if row is not None and each <= row[0]]
    if late:
        db.execute(_FORGET, (ids_json(late), topic))


def ids_json(events: Collection[int]) -> str:
    return json.encode(list(events)).decode()
