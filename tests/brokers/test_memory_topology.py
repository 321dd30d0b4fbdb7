"""What the memory broker says differs, and what it makes of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cloudevents_bridge.brokers.memory import MemoryAdapter, MemoryConnection
from cloudevents_bridge.driver import DeadLetters, Outbound, Subscription, Topic, Url
from cloudevents_bridge.errors import BridgeError, ConfigurationError, ErrorCode, UnsupportedError

TOPIC = Topic("orders")
BILLING = Subscription(TOPIC, "billing")


@pytest.fixture
def connection() -> MemoryConnection:
    return MemoryAdapter()(Url("memory://", "memory", "", "", {}), {})


def test_apply_makes_what_diff_shows_and_a_second_one_does_nothing(connection: MemoryConnection) -> None:
    topology = connection.topology
    changes = topology.diff([TOPIC, BILLING])
    assert [(change.place, change.setting, change.have) for change in changes] == [
        (TOPIC, "", None),
        (BILLING, "", None),
    ]
    assert topology.diff([TOPIC, BILLING]) == changes
    topology.apply(changes)
    topology.apply(changes)
    assert topology.diff([TOPIC, BILLING]) == []


@pytest.mark.parametrize(
    ("setting", "value", "have", "want"),
    [
        ("lease", 5.5, "60", "5.5"),
        ("max_attempts", 9, "5", "9"),
        ("retention", 3600.0, "1.2096e+06", "3600"),
        ("expires", 30.0, "never", "30"),
    ],
)
def test_a_setting_that_differs_is_shown_and_applied_alone(
    connection: MemoryConnection, setting: str, value: float, have: str, want: str
) -> None:
    topology = connection.topology
    topology.apply(topology.diff([TOPIC, BILLING]))
    wanted = replace(BILLING, **{setting: value})
    [change] = topology.diff([TOPIC, wanted])
    assert (change.setting, change.have, change.want, change.conflict) == (setting, have, want, False)
    topology.apply([change])
    assert topology.diff([TOPIC, wanted]) == []


def test_a_new_lease_and_retention_are_what_counts_from_then_on(connection: MemoryConnection) -> None:
    topology = connection.topology
    topology.apply(topology.diff([TOPIC, BILLING]))
    topology.apply(topology.diff([Subscription(TOPIC, "billing", lease=7.0)]))
    connection.open_publisher(TOPIC).send([Outbound(b"1", {})], timeout=1.0)
    [message] = connection.open_subscriber(BILLING).receive(1, 0.0).messages
    assert message.lease == 7.0


def test_a_new_lease_counts_for_dead_letters_too(connection: MemoryConnection) -> None:
    topology = connection.topology
    topology.apply(topology.diff([TOPIC, BILLING]))
    topology.apply(topology.diff([Subscription(TOPIC, "billing", lease=7.0)]))
    connection.open_publisher(DeadLetters(BILLING)).send([Outbound(b"1", {})], timeout=1.0)
    [letter] = connection.open_subscriber(DeadLetters(BILLING)).receive(1, 0.0).messages
    assert letter.lease == 7.0


def test_a_change_keeps_what_is_stored(connection: MemoryConnection) -> None:
    topology = connection.topology
    topology.apply(topology.diff([TOPIC, BILLING]))
    connection.open_publisher(TOPIC).send([Outbound(b"1", {})], timeout=1.0)
    topology.apply(
        topology.diff([Topic("orders", native={"deduplication": 5}), Subscription(TOPIC, "billing", lease=7.0)])
    )
    assert len(connection.open_subscriber(BILLING).receive(1, 0.0).messages) == 1


def test_order_cannot_be_changed(connection: MemoryConnection) -> None:
    topology = connection.topology
    topology.apply(topology.diff([TOPIC]))
    [change] = topology.diff([Topic("orders", ordered=True)])
    assert (change.setting, change.have, change.want, change.conflict) == ("ordered", "no", "yes", True)
    with pytest.raises(BridgeError, match="topic orders on memory:// has ordered no, and yes is wanted") as caught:
        topology.apply([change])
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION


def test_a_twin_made_in_between_is_refused(connection: MemoryConnection) -> None:
    topology = connection.topology
    changes = topology.diff([Topic("orders", ordered=True)])
    topology.apply(topology.diff([TOPIC]))
    with pytest.raises(BridgeError, match="cannot be changed"):
        topology.apply(changes)


def test_a_conflict_stops_the_other_changes(connection: MemoryConnection) -> None:
    topology = connection.topology
    topology.apply(topology.diff([TOPIC]))
    with pytest.raises(BridgeError):
        topology.apply(topology.diff([BILLING, Topic("orders", ordered=True)]))
    assert len(topology.diff([BILLING])) == 1


def test_delete_takes_all_that_is_in_a_place_and_is_silent_when_there_is_none(connection: MemoryConnection) -> None:
    topology = connection.topology
    topology.apply(topology.diff([TOPIC, BILLING, Subscription(TOPIC, "audit")]))
    topology.delete(BILLING)
    topology.delete(BILLING)
    assert len(topology.diff([TOPIC, BILLING])) == 1
    topology.apply(topology.diff([BILLING]))
    topology.delete(TOPIC)
    topology.delete(TOPIC)
    topology.delete(BILLING)
    topology.delete(DeadLetters(BILLING))
    assert len(topology.diff([TOPIC, BILLING, Subscription(TOPIC, "audit")])) == 3


def test_a_dead_letter_place_that_was_deleted_is_made_again(connection: MemoryConnection) -> None:
    topology = connection.topology
    topology.apply(topology.diff([TOPIC, BILLING]))
    topology.delete(DeadLetters(BILLING))
    changes = topology.diff([TOPIC, BILLING])
    assert [change.place for change in changes] == [DeadLetters(BILLING)]
    topology.apply(changes)
    assert topology.diff([TOPIC, BILLING]) == []


def test_what_it_has_no_use_for_says_what_to_use_instead(connection: MemoryConnection) -> None:
    topology = connection.topology
    with pytest.raises(UnsupportedError, match=r"terraform.*create_missing"):
        topology.export("terraform", [TOPIC])
    with pytest.raises(UnsupportedError, match=r"publisher.*cloud"):
        topology.policy("publisher", [TOPIC])
    with pytest.raises(UnsupportedError, match=r"memory:// has no filters.*orders/billing"):
        topology.diff([Subscription(TOPIC, "billing", filter="type = 'x'")])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Topic("orders", native={"kms_key": "x"}), r"topic orders .*'kms_key'.*known: deduplication"),
        (Topic("orders", native={"deduplication": -1}), "is -1: give seconds"),
        (Topic("orders", native={"deduplication": True}), "is True: give seconds"),
        (Topic("orders", native={"deduplication": float("nan")}), "is nan: give seconds"),
        (Subscription(TOPIC, "billing", native={"queue": "x"}), r"subscription orders/billing .*'queue'.*it has none"),
    ],
)
def test_native_settings_of_another_broker_are_refused(
    connection: MemoryConnection, place: Topic | Subscription, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        connection.topology.diff([place])
