"""Sending: one transaction per batch, on disk before it returns."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from cloudevents_bridge.bindings import STRUCTURED
from cloudevents_bridge.brokers.sqlite.places import Place, TopicRow, find_place, find_topic, sequence_of
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.brokers.sqlite.sweep import tend
from cloudevents_bridge.driver import (
    DEAD_LETTER,
    DeadLetters,
    Done,
    Fault,
    Outbound,
    SendTraits,
    Subscription,
    Topic,
)
from cloudevents_bridge.errors import ErrorCode

USUAL: Mapping[str, str] = STRUCTURED.structured
"""The attributes that are not stored, because nearly every event has just these."""
assert USUAL == {"content-type": "application/cloudevents+json"}  # as NULL means in every file there is

_ROWS = 100
"""Rows in one INSERT. One statement per row would let go of Python's lock at each, and win it back slowly in a busy
process."""


class Publisher:
    """Sends to a topic, to one subscription, or to a dead-letter place."""

    def __init__(self, store: Store, to: Topic | Subscription | DeadLetters, deduplication: float) -> None:
        self.traits = SendTraits(
            batch_count=5000, batch_bytes=64 << 20, message_bytes=64 << 20, dedup_window=deduplication
        )
        self._store = store
        self._to = to
        self._closed = False

    def size(self, message: Outbound) -> int:
        attributes, key = _attributes(message), message.key
        if attributes is key is None:
            return len(message.body)
        return len(message.body) + len((attributes or "").encode()) + len((key or "").encode())

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        if self._closed:
            raise self._store.fail(ErrorCode.CLOSED, f"this publisher of {self._store.url} is closed")
        with self._store.write(timeout, durable=True) as db:
            now = self._store.now()
            done = self._append(db, batch, now)
            tend(db, self._store, now, len(batch))
        self._store.watch.notify()
        return done

    def close(self) -> None:
        self._closed = True

    def _append(self, db: sqlite3.Connection, batch: Sequence[Outbound], now: float) -> list[Done | Fault]:
        if isinstance(self._to, Topic):
            topic, place = find_topic(db, self._store, self._to), None
            reached = topic.places
        else:
            place = find_place(db, self._store, self._to)
            subscription = self._to.of if isinstance(self._to, DeadLetters) else self._to
            topic, reached = find_topic(db, self._store, subscription.topic), 1
        if topic.deduplication > 0:
            return self._append_once(db, batch, now, topic, place, reached)
        first = sequence_of(topic.last + 1)
        self._store_events(db, batch, now, topic, place, reached)
        return [Done(text, text, 0.0, reached) for text in map(str, range(first, first + len(batch)))]

    def _append_once(
        self,
        db: sqlite3.Connection,
        batch: Sequence[Outbound],
        now: float,
        topic: TopicRow,
        place: Place | None,
        reached: int,
    ) -> list[Done | Fault]:
        """As `_append`, without the events that were sent within the deduplication window."""
        known: dict[str, int] = dict(
            db.execute(
                "SELECT dedup, event FROM duplicates WHERE topic = ? AND until > ? "
                "AND dedup IN (SELECT value FROM json_each(?))",
                (topic.id, now, to_json([each.dedup for each in batch if each.dedup is not None])),
            ).fetchall()
        )
        fresh: list[Outbound] = []
        ids: list[int] = []
        new: list[tuple[int, str, float, int]] = []
        for each in batch:
            event = known.get(each.dedup) if each.dedup is not None else None
            if event is None:
                fresh.append(each)
                event = topic.last + len(fresh)
                if each.dedup is not None:
                    known[each.dedup] = event
                    new.append((topic.id, each.dedup, now + topic.deduplication, event))
            ids.append(event)
        self._store_events(db, fresh, now, topic, place, reached)
        db.execute(
            "DELETE FROM duplicates WHERE topic = ?1 AND dedup IN (SELECT dedup FROM duplicates "
            "WHERE topic = ?1 AND until <= ?2 ORDER BY until LIMIT ?3)",
            (topic.id, now, 2 * len(batch)),
        )
        db.executemany("INSERT OR REPLACE INTO duplicates (topic, dedup, until, event) VALUES (?, ?, ?, ?)", new)
        return [Done(text, text, 0.0, reached) for text in map(str, map(sequence_of, ids))]

    def _store_events(
        self,
        db: sqlite3.Connection,
        batch: Sequence[Outbound],
        now: float,
        topic: TopicRow,
        place: Place | None,
        reached: int,
    ) -> None:
        if not batch:
            return
        first = topic.last + 1
        topic.last += len(batch)
        if not reached:
            db.execute("UPDATE topics SET last = ? WHERE id = ?", (topic.last, topic.id))
            return
        target = place.id if place else None
        ordered = topic.ordered
        for start in range(0, len(batch), _ROWS):
            part = batch[start : start + _ROWS]
            plain = [
                each.body
                for each in part
                if (each.attributes is USUAL or each.attributes == USUAL)
                and each.ttl is None
                and not each.delay
                and (each.key is None or not ordered)
            ]
            if len(plain) == len(part):  # as nearly always, and the less SQLite is handed, the sooner it is done
                db.execute(_insert_plain(len(part)), (first + start, target, now, *plain))
                continue
            values: list[Any] = [first + start, target]
            for each in part:
                values += (
                    now + each.delay,
                    None if each.ttl is None else now + each.ttl,
                    each.key if ordered else None,
                    _attributes(each),
                    each.body,
                )
            db.execute(_insert(len(part)), values)
        if target is not None and target < 0:
            rows = (
                (target, first + n, now + each.delay, each.attributes.get(DEAD_LETTER, ""))
                for n, each in enumerate(batch)
            )
            db.executemany(
                "INSERT INTO deliveries (place, event, due, serial, attempts, reason) VALUES (?, ?, ?, 0, 0, ?)", rows
            )


def to_json(value: Sequence[int] | Sequence[str]) -> str:
    return msgspec.json.encode(value).decode()


def _attributes(message: Outbound) -> str | None:
    if message.attributes is USUAL or message.attributes == USUAL:
        return None
    return msgspec.json.encode(dict(message.attributes)).decode()


@lru_cache(_ROWS)
def _insert_plain(count: int) -> str:
    rows = ", ".join(f"(?1 + {row}, ?2, ?3, ?{row + 4})" for row in range(count))
    return f"INSERT INTO events (id, target, due, body) VALUES {rows}"  # noqa: S608 - numbers


@lru_cache(_ROWS)
def _insert(count: int) -> str:
    rows = ", ".join(
        f"(?1 + {row}, ?2, ?{n}, ?{n + 1}, ?{n + 2}, ?{n + 3}, ?{n + 4})"
        for row, n in ((row, 3 + 5 * row) for row in range(count))
    )
    return f"INSERT INTO events (id, target, due, expires, key, attributes, body) VALUES {rows}"  # noqa: S608 - numbers
