"""The cost of a call does not depend on how much is stored: each query is a look-up, and counted instructions agree."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic

_SMALL = re.compile(
    r"SCAN (\d+ CONSTANT ROW|CONSTANT ROW|json_each|h|k|s\b|t\b|subscriptions|topics|clock|list subquery|\(subquery)"
)
"""What may be gone through: the topology, and the arguments of the call."""


def exercise(rig: Any) -> None:
    for topic, of, key in ((rig.topic, rig.billing, None), (rig.ordered, rig.lanes, "k"), (rig.once, rig.reader, None)):
        rig.publish(topic, "a", "b", "c", "d", key=key, dedup="1")
        rig.publish(topic, "e", key=key, delay=5.0, ttl=100.0)
        rig.publish(of, "direct", key=key)
        for verb in ("nack", "release", "extend", "dead", "ack"):
            rig.settle(verb, *rig.take(of)[:2], reason="no")
        rig.settle("ack", *rig.take(DeadLetters(of)))
        rig.time.pass_(11)
        subscriber = rig.subscriber(of)
        subscriber._finished = 1000
        subscriber.settle("ack", subscriber.receive(10, 0.0).messages, timeout=5.0)
    rig.broker.topology.delete(rig.audit)


@pytest.fixture
def full(rig: Any) -> Any:
    rig.once = Topic("once", native={"deduplication": 60})
    rig.reader = Subscription(rig.once, "reader", lease=10.0)
    rig.make(rig.topic, rig.billing, rig.audit, rig.ordered, rig.lanes, rig.once, rig.reader)
    return rig


def test_no_query_goes_through_a_table_that_grows(full: Any) -> None:
    seen: set[str] = set()
    store = full.broker._store
    full.broker.ping(timeout=1.0)
    for each in (store._writer, store._reader):
        each.set_trace_callback(seen.add)
    exercise(full)
    statements = [each for each in seen if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE)", each)]
    assert len(statements) > 40
    db = sqlite3.connect(full.path)
    plans = {each: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {each}")] for each in statements}
    db.close()
    slow = {
        statement: bad
        for statement, plan in plans.items()
        if (bad := [line for line in plan if ("SCAN" in line and not _SMALL.match(line)) or "TEMP B-TREE" in line])
    }
    assert slow == {}


def instructions(rig: Any, call: Callable[[], object]) -> int:
    """How many tens of instructions SQLite runs for a call."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    store = rig.broker._store
    for each in (store._writer, store._reader):
        each.set_progress_handler(step, 10)
    call()
    for each in (store._writer, store._reader):
        each.set_progress_handler(None, 10)
    return count


def test_the_cost_of_a_call_does_not_grow(full: Any) -> None:
    def costs() -> list[int]:
        held: list[Any] = []
        return [
            instructions(full, lambda: full.publish(full.topic, "x")),
            instructions(full, lambda: held.extend(full.take(full.billing, 10))),
            instructions(full, lambda: full.settle("nack", *held[:5], seconds=1e6)),
            instructions(full, lambda: full.settle("ack", *held[5:])),
            instructions(full, lambda: full.subscriber(full.billing)._rest()),
        ]

    full.publish(full.topic, *["x"] * 100)
    few = costs()
    for _ in range(8):
        full.publish(full.topic, *["x"] * 5000)
    for _ in range(10):
        full.settle("nack", *full.take(full.billing, 1000), seconds=1e6)
    many = costs()
    for before, after in zip(few, many, strict=True):
        assert after <= 1.5 * before + 5, (few, many)
