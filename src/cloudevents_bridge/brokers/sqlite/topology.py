"""Topics and subscriptions: what differs, making it so, removing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from cloudevents_bridge.brokers.sqlite.places import find_place, find_topic
from cloudevents_bridge.brokers.sqlite.store import SETUP, Store
from cloudevents_bridge.brokers.sqlite.sweep import empty, purge
from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import BridgeError, ConfigurationError, ErrorCode, NotFoundError
from cloudevents_bridge.faults import place_name

_PURGE = 5000
_SUBSCRIPTION_SETTINGS = ("lease", "max_attempts", "retention", "expires")


def deduplication(topic: Topic) -> float:
    """The deduplication window that a topic declares, in seconds; 0: none.

    Raises:
        ConfigurationError: if the topic declares a native setting that is unknown or wrong.
    """
    for name in topic.native:
        if name != "deduplication":
            raise ConfigurationError(
                f"topic {topic.name} has the native setting {name!r}: on SQLite there is only 'deduplication' (seconds)"
            )
    value = topic.native.get("deduplication", 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise ConfigurationError(
            f"native setting deduplication of topic {topic.name} is {value!r}: "
            "it must be a number of seconds, 0 or more"
        )
    return float(value)


def check(place: Topic | Subscription | DeadLetters) -> None:
    """Raises:
    ConfigurationError: if a native setting is unknown or wrong.
    """
    subscription = place.of if isinstance(place, DeadLetters) else place
    if isinstance(subscription, Topic):
        deduplication(subscription)
        return
    deduplication(subscription.topic)
    if subscription.native:
        raise ConfigurationError(
            f"subscription {subscription.name} of topic {subscription.topic.name} has the native setting "
            f"{next(iter(subscription.native))!r}: on SQLite a subscription has none"
        )


class Topology:
    """The only thing that creates, the file included."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        changes: list[Change] = []
        named: set[str] = set()
        for place in wanted:
            check(place)
            if isinstance(place, Subscription) and place.filter is not None:
                raise self._store.fail(
                    ErrorCode.UNSUPPORTED,
                    f"{self._store.url} has no filters: leave out the filter of {place_name(place)}, "
                    "and let a handler pass over what it does not want",
                )
            topic = place if isinstance(place, Topic) else place.topic
            if topic.name not in named and (isinstance(place, Topic) or topic not in wanted):
                named.add(topic.name)
                if isinstance(place, Topic) or not self._read("SELECT 1 FROM topics WHERE name = ?", topic.name):
                    changes += self._diff_topic(topic)
            if isinstance(place, Subscription):
                changes += self._diff_subscription(place)
        return changes

    def apply(self, changes: Sequence[Change]) -> None:
        for each in changes:
            if each.conflict:
                raise self._conflict(each)
        with self._store.write(SETUP, durable=True, create=True) as db:
            for each in changes:
                self._make(db, each)
            self._store.topics.clear()
        self._store.watch.notify()

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        try:
            with self._store.write(SETUP, durable=True) as db:
                place_id = self._unname(db, place)
                self._store.topics.clear()
        except NotFoundError:
            return
        self._store.watch.notify()
        more = True
        while more:
            with self._store.write(SETUP) as db:
                more = purge(db, _PURGE) if place_id is None else empty(db, place_id, _PURGE)
                if place_id is not None and not more:
                    sql = "UPDATE topics SET swept = id << 40 WHERE id = (SELECT topic FROM subscriptions WHERE id = ?)"
                    db.execute(sql, (-place_id,))

    def export(self, format: str, wanted: Sequence[Topic | Subscription]) -> str:
        del wanted
        raise self._store.fail(
            ErrorCode.UNSUPPORTED,
            f"the topology of {self._store.url} cannot be exported as {format!r}: SQLite needs no other tool; "
            "use `ceb topology apply`",
        )

    def policy(self, role: str, wanted: Sequence[Topic | Subscription]) -> str:
        del wanted
        raise self._store.fail(
            ErrorCode.UNSUPPORTED,
            f"{self._store.url} has no policy for {role!r}: whoever may write {self._store.path} and its directory "
            "may do everything",
        )

    def _read(self, sql: str, *parameters: str) -> tuple[object, ...] | None:
        try:
            rows = self._store.read(sql, parameters)
        except NotFoundError:
            return None
        return rows[0] if rows else None

    def _diff_topic(self, topic: Topic) -> Iterator[Change]:
        row = self._read("SELECT ordered, deduplication FROM topics WHERE name = ?", topic.name)
        if row is None:
            yield Change(topic, "", None, topic.name)
            return
        ordered, window = row
        if bool(ordered) != topic.ordered:
            yield Change(topic, "ordered", _text(bool(ordered)), _text(topic.ordered), conflict=True)
        if window != deduplication(topic):
            yield Change(topic, "deduplication", _text(window), _text(deduplication(topic)))

    def _diff_subscription(self, subscription: Subscription) -> Iterator[Change]:
        row = self._read(
            "SELECT s.lease, s.max_attempts, s.retention, s.expires FROM topics t "
            "JOIN subscriptions s ON s.topic = t.id AND s.name = ? WHERE t.name = ?",
            subscription.name,
            subscription.topic.name,
        )
        if row is None:
            yield Change(subscription, "", None, subscription.name)
            return
        for setting, have in zip(_SUBSCRIPTION_SETTINGS, row, strict=True):
            want = getattr(subscription, setting)
            if have != want:
                yield Change(subscription, setting, _text(have), _text(want))

    def _make(self, db: sqlite3.Connection, change: Change) -> None:
        place = change.place
        if isinstance(place, DeadLetters):
            return
        if isinstance(place, Topic):
            self._make_topic(db, place, change)
        else:
            self._make_subscription(db, place, change)

    def _make_topic(self, db: sqlite3.Connection, topic: Topic, change: Change) -> None:
        if change.setting == "deduplication":
            db.execute("UPDATE topics SET deduplication = ? WHERE name = ?", (deduplication(topic), topic.name))
            return
        row = db.execute("SELECT ordered FROM topics WHERE name = ?", (topic.name,)).fetchone()
        if row is not None:
            if bool(row[0]) != topic.ordered:
                raise self._conflict(Change(topic, "ordered", _text(bool(row[0])), _text(topic.ordered)))
            return
        db.execute(
            "INSERT INTO topics (name, ordered, deduplication) VALUES (?, ?, ?)",
            (topic.name, topic.ordered, deduplication(topic)),
        )
        db.execute("UPDATE topics SET last = id << 40, swept = id << 40 WHERE name = ?", (topic.name,))

    def _make_subscription(self, db: sqlite3.Connection, subscription: Subscription, change: Change) -> None:
        topic = find_topic(db, self._store, subscription.topic)
        if change.setting in _SUBSCRIPTION_SETTINGS:
            db.execute(
                f"UPDATE subscriptions SET {change.setting} = ? WHERE topic = ? AND name = ?",  # noqa: S608 - our names
                (getattr(subscription, change.setting), topic.id, subscription.name),
            )
            return
        db.execute(
            "INSERT INTO subscriptions (topic, name, cursor, lease, max_attempts, retention, expires, used) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (topic, name) DO UPDATE SET lease = excluded.lease, "
            "max_attempts = excluded.max_attempts, retention = excluded.retention, expires = excluded.expires",
            (
                topic.id,
                subscription.name,
                topic.last,
                subscription.lease,
                subscription.max_attempts,
                subscription.retention,
                subscription.expires,
                self._store.now(),
            ),
        )

    def _conflict(self, change: Change) -> BridgeError:
        return self._store.fail(
            ErrorCode.FAILED_PRECONDITION,
            f"{place_name(change.place)} on {self._store.url} has {change.setting} {change.have}, and {change.want} is "
            "wanted: this cannot be changed; delete it first, or declare it as it is",
        )

    def _unname(self, db: sqlite3.Connection, place: Topic | Subscription | DeadLetters) -> int | None:
        """Make the place unreachable at once; a dead-letter place, which stays, gives its id."""
        if isinstance(place, DeadLetters):
            return find_place(db, self._store, place).id
        if isinstance(place, Subscription):
            row = find_place(db, self._store, place)
            db.execute("UPDATE subscriptions SET name = NULL WHERE id = ?", (row.id,))
            return None
        db.execute(
            "UPDATE subscriptions SET name = NULL WHERE topic = (SELECT id FROM topics WHERE name = ?)", (place.name,)
        )
        db.execute("UPDATE topics SET name = NULL WHERE name = ?", (place.name,))
        return None


def _text(value: object) -> str:
    if value is None:
        return "never"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
