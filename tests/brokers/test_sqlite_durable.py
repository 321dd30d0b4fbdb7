"""What a kill cannot show, as the system keeps its pages: that a commit waits for the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloudevents_bridge.brokers.sqlite.adapter import Connection
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.driver import DeadLetters, Outbound

OFF, NORMAL, FULL = 0, 1, 2  # https://sqlite.org/pragma.html#pragma_synchronous


@contextmanager
def commits(store: Store) -> Iterator[list[int]]:
    """The synchronous mode in force at each commit of the block."""
    writer = store._writer
    assert writer is not None
    mode = int(writer.execute("PRAGMA synchronous").fetchone()[0])
    found: list[int] = []

    def saw(statement: str) -> None:
        nonlocal mode
        if statement.startswith("PRAGMA synchronous ="):
            mode = {"OFF": OFF, "NORMAL": NORMAL, "FULL": FULL}[statement.rpartition(" ")[2]]
        elif statement == "COMMIT":
            found.append(mode)

    writer.set_trace_callback(saw)
    try:
        yield found
    finally:
        writer.set_trace_callback(None)


@pytest.mark.parametrize(("asked", "got"), [("FULL", FULL), ("NORMAL", NORMAL)])
def test_a_publish_is_on_disk_before_it_returns(rig: Any, asked: str, got: int) -> None:
    rig.make(rig.topic, rig.billing)
    store = Store(rig.path, "sqlite:///x", synchronous=asked, clock=rig.time.clock())
    broker = Connection(store)
    subscriber = broker.open_subscriber(rig.billing)
    for to in (rig.topic, rig.billing, DeadLetters(rig.billing)):
        publisher = broker.open_publisher(to)
        publisher.send([Outbound(b"1", {})], timeout=5.0)
        messages = subscriber.receive(10, 0.0).messages
        with commits(store) as settled:
            subscriber.settle("ack", messages, timeout=5.0)
        assert set(settled) <= {NORMAL, FULL}, "a file that a power cut may damage"
        with commits(store) as sent:  # after a settle, which need not wait
            publisher.send([Outbound(b"2", {})], timeout=5.0)
        assert sent == [got]
    assert rig.rows("PRAGMA journal_mode") == [("wal",)]
    broker.close()
