"""Finding topics and subscriptions, and the errors when they are not there."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from msgspec import Struct

from cloudevents_bridge.brokers.sqlite.schema import SEQUENCE_BITS
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import BridgeError, ErrorCode


class TopicRow(Struct):
    """A topic as the file has it. `last`: the newest event id given out. `places`: how many subscriptions it has."""

    id: int
    ordered: int
    deduplication: float
    last: int
    places: int


class Place(NamedTuple):
    """A subscription, or its dead-letter place, as the file has it; `id` as in `deliveries.place`."""

    id: int
    topic: int
    cursor: int
    lease: float
    retention: float


_TOPIC = """
SELECT t.id, t.ordered, t.deduplication,
       max(t.last, coalesce((SELECT id FROM events WHERE id > t.id << 40 AND id < (t.id + 1) << 40
                             ORDER BY id DESC LIMIT 1), 0)),
       (SELECT count(*) FROM subscriptions s WHERE s.topic = t.id AND s.name IS NOT NULL)
FROM topics t WHERE t.name = ?
"""
_PLACE = """
SELECT s.id, s.topic, s.cursor, s.lease, s.retention
FROM topics t JOIN subscriptions s ON s.topic = t.id AND s.name = ? WHERE t.name = ?
"""
assert SEQUENCE_BITS == 40  # as the SQL has it


def end_of(topic: int) -> int:
    """Every event id of the topic is below this."""
    return (topic + 1) << SEQUENCE_BITS


def sequence_of(event: int) -> int:
    return event & ((1 << SEQUENCE_BITS) - 1)


def topic_of(event: int) -> int:
    return event >> SEQUENCE_BITS


def find_topic(db: sqlite3.Connection, store: Store, topic: Topic) -> TopicRow:
    """The topic, in the caller's transaction, which keeps `last` up to date if it adds events."""
    known = store.topics.get(topic.name)
    if known is not None:
        return known
    row = db.execute(_TOPIC, (topic.name,)).fetchone()
    if row is None:
        raise no_topic(store, topic)
    found = store.topics[topic.name] = TopicRow(*row)
    return found


def find_place(db: sqlite3.Connection, store: Store, of: Subscription | DeadLetters) -> Place:
    subscription = of.of if isinstance(of, DeadLetters) else of
    row = db.execute(_PLACE, (subscription.name, subscription.topic.name)).fetchone()
    if row is None:
        find_topic(db, store, subscription.topic)
        raise no_subscription(store, subscription)
    place = Place(*row)
    return place._replace(id=-place.id) if isinstance(of, DeadLetters) else place


def no_topic(store: Store, topic: Topic) -> BridgeError:
    return store.fail(
        ErrorCode.NOT_FOUND,
        f"topic {topic.name} does not exist on {store.url}: apply the topology (`ceb topology apply`, "
        "or connect with create_missing=True)",
    )


def no_subscription(store: Store, subscription: Subscription) -> BridgeError:
    return store.fail(
        ErrorCode.NOT_FOUND,
        f"subscription {subscription.name} of topic {subscription.topic.name} does not exist on {store.url}: "
        "apply the topology (`ceb topology apply`, or connect with create_missing=True)",
    )
