"""What the tests of the SQLite broker share."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge.brokers.sqlite.adapter import Connection
from cloudevents_bridge.brokers.sqlite.clock import Clock
from cloudevents_bridge.brokers.sqlite.publisher import Publisher
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.brokers.sqlite.subscriber import Subscriber
from cloudevents_bridge.driver import DeadLetters, Done, Fault, Inbound, Outbound, Subscription, Topic, Verb

CONTENT = {"content-type": "application/cloudevents+json"}


class FakeTime:
    """A machine's clocks, moved by hand."""

    def __init__(self) -> None:
        self.boot = "first"
        self.up = 1000.0
        self.wall = 1_700_000_000.0

    def pass_(self, seconds: float) -> None:
        self.up += seconds
        self.wall += seconds

    def reboot(self, *, down: float) -> None:
        self.boot += "'"
        self.up = 5.0
        self.wall += down

    def clock(self) -> Clock:
        return Clock(self.boot, lambda: self.up, lambda: self.wall)


class Rig:
    """A file, and short words for what tests do with it."""

    topic = Topic("orders")
    billing = Subscription(topic, "billing", lease=10.0)
    audit = Subscription(topic, "audit", lease=10.0)
    ordered = Topic("moves", ordered=True)
    lanes = Subscription(ordered, "lanes", lease=10.0)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = FakeTime()
        self._opened: list[Connection] = []
        self.broker = self.connect()

    def connect(self, **options: Any) -> Connection:
        options.setdefault("clock", self.time.clock())
        connection = Connection(Store(self.path, f"sqlite:///{self.path.name}", **options))
        self._opened.append(connection)
        return connection

    def make(self, *wanted: Topic | Subscription) -> None:
        self.broker.topology.apply(self.broker.topology.diff(wanted))

    @staticmethod
    def message(body: str, **fields: Any) -> Outbound:
        return Outbound(body.encode(), CONTENT, dedup=body, **fields)

    def publish(self, to: Topic | Subscription | DeadLetters, *bodies: str, **fields: Any) -> list[Done | Fault]:
        batch = [Outbound(body.encode(), CONTENT, **fields) for body in bodies]
        return list(self.broker.open_publisher(to).send(batch, timeout=5.0))

    def publisher(self, to: Topic | Subscription | DeadLetters) -> Publisher:
        return self.broker.open_publisher(to)

    def subscriber(self, of: Subscription | DeadLetters) -> Subscriber:
        return self.broker.open_subscriber(of)

    def take(self, of: Subscription | DeadLetters, most: int = 100) -> list[Inbound]:
        return list(self.subscriber(of).receive(most, 0.0).messages)

    def settle(self, verb: Verb, *messages: Inbound, **fields: Any) -> list[str]:
        """The outcome of each: "ok", or the code of its fault."""
        outcomes = self.subscriber(self.billing).settle(verb, messages, timeout=5.0, **fields)
        return ["ok" if isinstance(each, Done) else str(each.code) for each in outcomes]

    @staticmethod
    def bodies(messages: Sequence[Inbound]) -> list[str]:
        return [each.body.decode() for each in messages]

    @staticmethod
    def until(what: Callable[[], object], seconds: float = 10.0) -> None:
        """Poll until it is true."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.005)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What is stored, read from beside."""
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return db.execute(sql).fetchall()

    def close(self) -> None:
        for each in self._opened:
            each.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "events.db")
    yield made
    made.close()
