"""Making, comparing and removing places in an SQLite file, and its housekeeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import BridgeError, ConfigurationError, ErrorCode, NotFoundError, UnsupportedError


def differences(rig: Any, *wanted: Topic | Subscription) -> list[tuple[str, str | None, str, bool]]:
    return [(c.setting, c.have, c.want, c.conflict) for c in rig.broker.topology.diff(wanted)]


def test_apply_makes_what_diff_says_and_then_there_is_nothing_to_do(rig: Any) -> None:
    wanted = [rig.topic, rig.billing, rig.audit]
    changes = rig.broker.topology.diff(wanted)
    assert [(c.place, c.have) for c in changes] == [(each, None) for each in wanted]
    rig.broker.topology.apply(changes)
    assert rig.broker.topology.diff(wanted) == []
    rig.broker.topology.apply(changes)
    assert rig.broker.topology.diff(wanted) == []


def test_a_subscription_brings_its_topic(rig: Any) -> None:
    assert [c.place for c in rig.broker.topology.diff([rig.billing, rig.audit])] == [rig.topic, rig.billing, rig.audit]
    rig.make(rig.billing, rig.audit)
    assert rig.publish(rig.topic, "a")[0].reached == 2
    assert [c.place for c in rig.broker.topology.diff([rig.billing, rig.topic])] == []


def test_settings_that_change(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    topic = Topic("orders", native={"deduplication": 30})
    billing = Subscription(topic, "billing", lease=20.0, max_attempts=2, retention=50.0, expires=7.5)
    assert differences(rig, topic, billing) == [
        ("deduplication", "0", "30", False),
        ("lease", "10", "20", False),
        ("max_attempts", "5", "2", False),
        ("retention", "1.2096e+06", "50", False),
        ("expires", "never", "7.5", False),
    ]
    rig.make(topic, billing)
    assert differences(rig, topic, billing) == []
    rig.publish(topic, "a")
    assert [m.lease for m in rig.take(billing)] == [20.0]


def test_an_order_cannot_be_changed(rig: Any) -> None:
    rig.make(rig.topic)
    other = Topic("orders", ordered=True)
    assert differences(rig, other) == [("ordered", "no", "yes", True)]
    for changes in (rig.broker.topology.diff([other]), [Change(other, "", None, "orders")]):
        with pytest.raises(BridgeError, match=r"topic orders on sqlite:///events.db has ordered no") as caught:
            rig.broker.topology.apply(changes)
        assert caught.value.code == ErrorCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (Topic("orders", native={"fifo": True}), "native setting 'fifo'"),
        (Topic("orders", native={"deduplication": "1h"}), "'1h': it must be a number"),
        (Topic("orders", native={"deduplication": -1}), "-1: it must be a number"),
        (Topic("orders", native={"deduplication": True}), "True: it must be a number"),
        (Subscription(Topic("orders"), "billing", native={"x": 1}), "native setting 'x'"),
    ],
)
def test_native_settings_that_do_not_exist(rig: Any, place: Topic | Subscription, says: str) -> None:
    uses: list[Callable[[], object]] = [lambda: rig.broker.topology.diff([place]), lambda: rig.publisher(place)]
    for use in uses:
        with pytest.raises(ConfigurationError) as caught:
            use()
        assert says in str(caught.value)


def test_what_this_broker_has_not(rig: Any) -> None:
    with pytest.raises(UnsupportedError, match="no filters"):
        rig.broker.topology.diff([Subscription(rig.topic, "billing", filter="type = 'x'")])
    with pytest.raises(UnsupportedError, match="cannot be exported as 'terraform'"):
        rig.broker.topology.export("terraform", [])
    with pytest.raises(UnsupportedError, match="no policy for 'publisher'"):
        rig.broker.topology.policy("publisher", [])


def test_deleting_a_subscription_leaves_the_others(rig: Any) -> None:
    rig.make(rig.topic, rig.billing, rig.audit)
    rig.publish(rig.topic, "a", "b", "c")
    a, b, _ = rig.take(rig.billing)
    rig.settle("dead", a, reason="no")
    rig.broker.topology.delete(rig.billing)
    rig.broker.topology.delete(rig.billing)
    with pytest.raises(NotFoundError, match="subscription billing"):
        rig.take(rig.billing)
    with pytest.raises(NotFoundError, match="subscription billing"):
        rig.take(DeadLetters(rig.billing))
    assert rig.settle("ack", b) == ["LEASE_LOST"]
    assert rig.rows("SELECT count(*) FROM deliveries") == [(0,)]
    assert rig.bodies(rig.take(rig.audit)) == ["a", "b", "c"]
    rig.make(rig.topic, rig.billing)
    assert rig.take(rig.billing) == rig.take(DeadLetters(rig.billing)) == []
    rig.publish(rig.topic, "d")
    assert rig.bodies(rig.take(rig.billing)) == ["d"]


def test_deleting_a_topic_takes_all_that_is_in_it(rig: Any) -> None:
    once = Topic("once", ordered=True, native={"deduplication": 60})
    reader = Subscription(once, "reader")
    rig.make(once, reader, rig.topic, rig.billing)
    rig.publish(rig.topic, "kept")
    for n in range(10):
        rig.publish(once, *["x"] * 1000, key="k", dedup=None)
        rig.publish(once, "y", dedup=str(n))
    rig.take(reader)
    rig.broker.topology.delete(once)
    rig.broker.topology.delete(once)
    uses: list[Callable[[], object]] = [lambda: rig.publish(once, "z"), lambda: rig.take(reader)]
    for use in uses:
        with pytest.raises(NotFoundError):
            use()
    assert rig.rows("SELECT name FROM topics") == [("orders",)]
    for table in ("deliveries", "duplicates"):
        assert rig.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    assert rig.bodies(rig.take(rig.billing)) == ["kept"]
    rig.make(once, reader)
    rig.publish(once, "new", dedup="1")
    assert rig.bodies(rig.take(reader)) == ["new"]


def test_emptying_a_dead_letter_place_leaves_the_subscription(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    rig.publish(rig.topic, "a", "b")
    a, b = rig.take(rig.billing)
    rig.settle("dead", a, reason="no")
    rig.broker.topology.delete(DeadLetters(rig.billing))
    assert rig.take(DeadLetters(rig.billing)) == []
    assert rig.settle("dead", b, reason="no") == ["ok"]
    assert rig.bodies(rig.take(DeadLetters(rig.billing))) == ["b"]


def test_a_deletion_that_was_interrupted_is_finished_later(rig: Any) -> None:
    rig.make(rig.topic, rig.billing, rig.audit)
    rig.publish(rig.topic, *"abc")
    rig.take(rig.billing)
    with rig.broker._store.write(1.0) as db:
        db.execute("UPDATE subscriptions SET name = NULL WHERE name = 'billing'")
    for _ in range(5):
        rig.time.pass_(11)
        rig.publish(rig.topic, "x")
    assert rig.rows("SELECT name FROM subscriptions") == [("audit",)]
    assert rig.rows("SELECT count(*) FROM deliveries") == [(0,)]


# -- housekeeping


def drain(rig: Any, of: Subscription) -> None:
    subscriber = rig.subscriber(of)
    while held := subscriber.receive(1000, 0.0).messages:
        subscriber.settle("ack", held, timeout=5.0)


def test_events_go_when_every_subscription_has_finished_them(rig: Any) -> None:
    rig.make(rig.topic, rig.billing, rig.audit)
    for _ in range(3):
        rig.publish(rig.topic, *["x"] * 1000)
    drain(rig, rig.billing)
    assert rig.rows("SELECT count(*) FROM events") == [(3000,)]
    drain(rig, rig.audit)
    assert rig.rows("SELECT count(*) FROM events") == [(0,)]
    assert rig.publish(rig.topic, "y")[0].id == "3001"


def test_events_go_when_a_subscription_that_nobody_uses_is_deleted(rig: Any) -> None:
    rig.make(rig.topic, rig.billing, rig.audit)
    for _ in range(3):
        rig.publish(rig.topic, *["x"] * 1000)
    drain(rig, rig.billing)
    rig.broker.topology.delete(rig.audit)
    for _ in range(40):
        rig.time.pass_(11)
        rig.publish(rig.topic, "y")
        drain(rig, rig.billing)
    assert rig.rows("SELECT count(*) FROM events")[0][0] < 40


def test_what_stays_unfinished_does_not_keep_the_rest(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudevents_bridge.brokers.sqlite.sweep.SLACK", 100)
    rig.make(rig.topic, rig.billing, rig.audit)
    rig.publish(rig.topic, "stuck")
    [stuck] = rig.take(rig.billing)
    rig.settle("nack", stuck, seconds=100_000.0)
    for _ in range(4):
        rig.publish(rig.topic, *["x"] * 1000)
        drain(rig, rig.billing)
        drain(rig, rig.audit)
    assert rig.rows("SELECT count(*) FROM events")[0][0] < 1200
    rig.time.pass_(100_001)
    [stuck] = rig.take(rig.billing)
    assert stuck.body == b"stuck"
    assert rig.settle("ack", stuck) == ["ok"]
    assert rig.rows("SELECT count(*) FROM events WHERE body = CAST('stuck' AS BLOB)") == [(0,)]


def test_retention_purges_what_nobody_fetches(rig: Any) -> None:
    brief = Subscription(rig.topic, "brief", retention=100.0)
    lanes = Subscription(rig.ordered, "lanes", retention=100.0)
    rig.make(rig.topic, brief, rig.ordered, lanes)
    rig.publish(rig.topic, *["x"] * 1000)
    rig.publish(rig.ordered, *["x"] * 500, key="k")
    assert len(rig.take(lanes)) == 1
    rig.time.pass_(101)
    rig.publish(rig.ordered, "fresh", key="k")
    for _ in range(100):
        rig.publish(rig.topic, "y")
    assert rig.rows("SELECT count(*) FROM events")[0][0] <= 101
    assert rig.bodies(rig.take(brief)) == ["y"] * 100
    assert rig.bodies(rig.take(lanes)) == ["fresh"]


def test_a_subscription_that_expires_goes_when_it_is_unused(rig: Any) -> None:
    tail = Subscription(rig.topic, "tail", lease=1000.0, expires=60.0)
    rig.make(rig.topic, rig.billing, tail)
    for _ in range(5):
        rig.time.pass_(40)
        assert rig.publish(rig.topic, "a")[0].reached == 2
        assert len(rig.take(tail)) == 1
    for _ in range(5):
        rig.time.pass_(40)
        assert rig.take(tail) == []
    rig.time.pass_(61)
    rig.publish(rig.topic, "b")
    with pytest.raises(NotFoundError):
        rig.take(tail)
    assert rig.publish(rig.topic, "c")[0].reached == 1
