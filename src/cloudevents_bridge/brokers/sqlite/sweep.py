"""Housekeeping in small steps, inside transactions that are made anyway: nothing here grows with what is stored."""

from __future__ import annotations

import sqlite3

from cloudevents_bridge.brokers.sqlite import clock as clocks
from cloudevents_bridge.brokers.sqlite.deliveries import remove
from cloudevents_bridge.brokers.sqlite.places import end_of
from cloudevents_bridge.brokers.sqlite.store import Store

TEND = 10.0
"""Seconds between two looks for what has grown old."""

STEP = 2000
SLACK = 10_000
"""Events kept behind the oldest unfinished delivery; past that it is stepped over and its event kept for itself."""

_FLOOR = """
SELECT min(max(s.cursor - ?2, coalesce(
    (SELECT d.event - 1 FROM deliveries d WHERE d.place = s.id ORDER BY d.event LIMIT 1), s.cursor)))
FROM subscriptions s WHERE s.topic = ?1 AND s.name IS NOT NULL
"""
_SWEEP = """
DELETE FROM events WHERE id > ?1 AND id <= ?2 AND id NOT IN (
    SELECT d.event FROM deliveries d WHERE d.event > ?1 AND d.event <= ?2 AND d.place IN (
        SELECT s.id FROM subscriptions s WHERE s.topic = ?3 AND s.name IS NOT NULL UNION ALL
        SELECT -s.id FROM subscriptions s WHERE s.topic = ?3 AND s.name IS NOT NULL))
"""
_NEWEST = "SELECT id FROM events WHERE id > ? AND id < ? ORDER BY id DESC LIMIT 1"


def sweep(db: sqlite3.Connection, topic: int, step: int) -> bool:
    """Remove events that every subscription has finished, `step` at most; whether there may be more.

    An event is finished for a subscription when the cursor is past it and it has no delivery there.
    """
    row = db.execute("SELECT swept, last FROM topics WHERE id = ?", (topic,)).fetchone()
    if row is None:
        return False
    swept, last = row
    newest = db.execute(_NEWEST, (swept, end_of(topic))).fetchone()
    first = db.execute("SELECT id FROM events WHERE id > ? AND id < ? ORDER BY id LIMIT 1", (swept, end_of(topic)))
    oldest = first.fetchone()
    if newest is None or oldest is None:
        return False
    (floor,) = db.execute(_FLOOR, (topic, SLACK)).fetchone()
    floor = newest[0] if floor is None else floor
    upto = min(oldest[0] - 1 + step, floor)
    if upto < oldest[0]:
        return False
    db.execute(_SWEEP, (oldest[0] - 1, upto, topic))
    db.execute("UPDATE topics SET swept = ?, last = ? WHERE id = ?", (upto, max(last, newest[0]), topic))
    return bool(upto < floor)


def tend(db: sqlite3.Connection, store: Store, now: float, done: int) -> None:
    """See to what has grown old, when it is time to; at most some multiple of `done`, the work of this transaction."""
    if now < store.tend_at:
        return
    step = min(STEP, max(100, 4 * done))
    clocks.mark(db, store.clock, now)
    db.execute(
        "UPDATE subscriptions SET name = NULL WHERE expires IS NOT NULL AND used + expires < ? AND name IS NOT NULL",
        (now,),
    )
    more = purge(db, step)
    for place, topic, cursor, retention in db.execute(
        "SELECT id, topic, cursor, retention FROM subscriptions WHERE name IS NOT NULL"
    ).fetchall():
        more |= _retire(db, place, topic, cursor, now - retention, now, step)
    for (topic,) in db.execute("SELECT id FROM topics WHERE name IS NOT NULL").fetchall():
        more |= sweep(db, topic, step)
    store.topics.clear()
    store.tend_at = now if more else now + TEND


def _retire(db: sqlite3.Connection, place: int, topic: int, cursor: int, oldest: float, now: float, step: int) -> bool:
    """Leave behind what is past its retention; whether there may be more."""
    over = cursor
    for event, due in db.execute(
        "SELECT id, due FROM events WHERE id > ? AND id < ? ORDER BY id LIMIT ?", (cursor, end_of(topic), step)
    ):
        if due >= oldest:
            break
        over = event
    if over > cursor:
        db.execute("UPDATE subscriptions SET cursor = ? WHERE id = ?", (over, place))
    events: list[int] = []
    keys: set[str] = set()
    for event, key, due, since in db.execute(
        "SELECT d.event, d.key, d.due, e.due FROM deliveries d LEFT JOIN events e ON e.id = d.event "
        "WHERE d.place = ? ORDER BY d.event LIMIT ?",
        (place, step),
    ):
        if since is not None and since >= oldest:
            break
        if due is None or due <= now:
            events.append(event)
            if key is not None:
                keys.add(key)
    if events:
        remove(db, place, events, keys, now)
    return over >= cursor + step or len(events) == step


def purge(db: sqlite3.Connection, step: int) -> bool:
    """Remove what is left of deleted subscriptions and topics; whether there may be more."""
    gone = db.execute("SELECT id, topic FROM subscriptions WHERE name IS NULL LIMIT 1").fetchone()
    if gone is not None:
        place, topic = gone
        if empty(db, place, step) or empty(db, -place, step):
            return True
        db.execute("DELETE FROM subscriptions WHERE id = ?", (place,))
        db.execute("UPDATE topics SET swept = id << 40 WHERE id = ?", (topic,))
        return True
    row = db.execute("SELECT id FROM topics WHERE name IS NULL LIMIT 1").fetchone()
    if row is None:
        return False
    (topic,) = row
    events = (
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id > ?1 << 40 AND id < (?1 + 1) << 40 LIMIT ?2)"
    )
    again = (
        "DELETE FROM duplicates WHERE topic = ?1 AND dedup IN (SELECT dedup FROM duplicates WHERE topic = ?1 LIMIT ?2)"
    )
    if db.execute(events, (topic, step)).rowcount + db.execute(again, (topic, step)).rowcount == 0:
        db.execute("DELETE FROM topics WHERE id = ?", (topic,))
    return True


def empty(db: sqlite3.Connection, place: int, step: int) -> bool:
    """Remove deliveries of a place, `step` at most; whether there were any."""
    sql = (
        "DELETE FROM deliveries WHERE place = ?1 AND event IN (SELECT event FROM deliveries WHERE place = ?1 LIMIT ?2)"
    )
    return db.execute(sql, (place, step)).rowcount > 0
