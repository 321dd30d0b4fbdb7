"""Queues that keep events, behind the same few calls, each with what it promises about an event it has taken."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from queue import Empty
from typing import Any, ClassVar

import kombu
import litequeue
import persistqueue

from cloudevents_bridge import CloudEvent, Topic, connect

FSYNC = "on disk before it returns"
POWER = "survives a crash of the program, not a power cut"
FILES = "a file without fsync, taken = deleted"
NONE = "in memory"


class Contender(ABC):
    """One queue, empty at the start.

    Attributes:
        events: how many a measurement takes at scale 1, so that all take about as long.
    """

    name: ClassVar[str]
    durability: ClassVar[str]
    events: ClassVar[int]

    @abstractmethod
    def __init__(self, directory: Path) -> None: ...

    @abstractmethod
    def prepare(self, events: Sequence[CloudEvent]) -> Any:
        """What `put` gets; not measured."""

    @abstractmethod
    def put(self, prepared: Any) -> None: ...

    @abstractmethod
    def take(self, count: int) -> None:
        """Get and acknowledge that many."""

    @abstractmethod
    def close(self) -> None: ...


class Bridge(Contender):
    """This library: `publish_many`, then `receive` and `ack_many`."""

    url: ClassVar[str]

    def __init__(self, directory: Path) -> None:
        topic = Topic("bench", subscriptions=["one"])
        self.broker = connect(self.url.format(directory), topics=[topic])
        self.broker.topology.apply()

    def prepare(self, events: Sequence[CloudEvent]) -> Sequence[CloudEvent]:
        return events

    def put(self, prepared: Sequence[CloudEvent]) -> None:
        self.broker.publish_many("bench", prepared)

    def take(self, count: int) -> None:
        with self.broker.subscriber("bench", "one") as subscriber:
            while count > 0:
                deliveries = subscriber.receive(1000, wait=5)
                subscriber.ack_many(deliveries)
                count -= len(deliveries)
                if not deliveries:
                    raise AssertionError(f"{count} events are missing")

    def close(self) -> None:
        self.broker.close()


class Sqlite(Bridge):
    name = "sqlite:///  publish_many"
    durability = FSYNC
    events = 50_000
    url = "sqlite:///{}/events.db"


class SqliteSingle(Sqlite):
    """One durable `publish` per event, one `ack` per delivery."""

    name = "sqlite:///  publish"
    events = 5_000

    def put(self, prepared: Sequence[CloudEvent]) -> None:
        with self.broker.publisher("bench") as publisher:
            for event in prepared:
                publisher.publish(event)

    def take(self, count: int) -> None:
        with self.broker.subscriber("bench", "one") as subscriber:
            for delivery in subscriber:
                delivery.ack()
                count -= 1
                if not count:
                    return


class Memory(Bridge):
    name = "memory://  publish_many"
    durability = NONE
    events = 50_000
    url = "memory://"


class Bare(Contender):
    """SQLite by hand, with the same durability: no topics, leases, attempts."""

    name = "sqlite3 executemany, 1,000 a commit"
    durability = FSYNC
    events = 50_000
    batch = 1000

    def __init__(self, directory: Path) -> None:
        self.db = sqlite3.connect(directory / "bare.db", isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, body BLOB)")

    def prepare(self, events: Sequence[CloudEvent]) -> list[list[tuple[bytes]]]:
        rows = [(event.to_json(),) for event in events]
        return [rows[at : at + self.batch] for at in range(0, len(rows), self.batch)]

    def put(self, prepared: list[list[tuple[bytes]]]) -> None:
        for batch in prepared:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany("INSERT INTO events (body) VALUES (?)", batch)
            self.db.execute("COMMIT")

    def take(self, count: int) -> None:
        while count > 0:
            self.db.execute("BEGIN IMMEDIATE")
            rows = self.db.execute("SELECT id, body FROM events ORDER BY id LIMIT ?", (self.batch,)).fetchall()
            self.db.execute("DELETE FROM events WHERE id <= ?", (rows[-1][0],))
            self.db.execute("COMMIT")
            count -= len(rows)

    def close(self) -> None:
        self.db.close()


class BareSingle(Bare):
    name = "sqlite3 execute, 1 a commit"
    events = 5_000
    batch = 1


class Kombu(Contender):
    """kombu's SimpleQueue; it has no call for many."""

    def connection(self, directory: Path) -> kombu.Connection:
        raise NotImplementedError

    def __init__(self, directory: Path) -> None:
        self.link = self.connection(directory)
        self.queue = self.link.SimpleQueue(directory.name)  # queues are remembered by name, across connections

    def prepare(self, events: Sequence[CloudEvent]) -> list[str]:
        return [event.to_json().decode() for event in events]

    def put(self, prepared: list[str]) -> None:
        for body in prepared:
            self.queue.put(body, content_type="text/plain", content_encoding="utf-8")

    def take(self, count: int) -> None:
        for _ in range(count):
            self.queue.get(timeout=5).ack()

    def close(self) -> None:
        self.queue.close()
        self.link.close()


class KombuSqlAlchemy(Kombu):
    name = "kombu, SQLAlchemy on SQLite"
    durability = FSYNC + "; taken = acknowledged"
    events = 500

    def connection(self, directory: Path) -> kombu.Connection:
        return kombu.Connection(f"sqla+sqlite:///{directory}/kombu.db")


class KombuFilesystem(Kombu):
    name = "kombu, filesystem"
    durability = FILES
    events = 1_000

    def connection(self, directory: Path) -> kombu.Connection:
        folder = directory / "messages"
        folder.mkdir()
        options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": directory / "control"}
        return kombu.Connection("filesystem://", transport_options={key: str(path) for key, path in options.items()})


class KombuMemory(Kombu):
    name = "kombu, memory"
    durability = NONE
    events = 10_000

    def connection(self, directory: Path) -> kombu.Connection:
        return kombu.Connection("memory://")


class PersistQueue(Contender):
    name = "persist-queue, SQLiteAckQueue"
    durability = FSYNC
    events = 2_000

    def __init__(self, directory: Path) -> None:
        self.queue = persistqueue.SQLiteAckQueue(str(directory / "persist"), auto_commit=True)

    def prepare(self, events: Sequence[CloudEvent]) -> list[bytes]:
        return [event.to_json() for event in events]

    def put(self, prepared: list[bytes]) -> None:
        for body in prepared:
            self.queue.put(body)

    def take(self, count: int) -> None:
        for _ in range(count):
            self.queue.ack(self.queue.get(timeout=5))

    def close(self) -> None:
        self.queue.close()


class LiteQueue(Contender):
    name = "litequeue"
    durability = POWER
    events = 5_000

    def __init__(self, directory: Path) -> None:
        self.queue = litequeue.LiteQueue(directory / "lite.db")

    def prepare(self, events: Sequence[CloudEvent]) -> list[str]:
        return [event.to_json().decode() for event in events]

    def put(self, prepared: list[str]) -> None:
        for body in prepared:
            self.queue.put(body)

    def take(self, count: int) -> None:
        for _ in range(count):
            message = self.queue.pop()
            if message is None:
                raise Empty
            self.queue.done(message.message_id)

    def close(self) -> None:
        self.queue.close()


ALL: list[type[Contender]] = [
    Sqlite, Bare, SqliteSingle, BareSingle, PersistQueue, KombuSqlAlchemy, LiteQueue, KombuFilesystem, Memory,
    KombuMemory,
]  # fmt: skip
