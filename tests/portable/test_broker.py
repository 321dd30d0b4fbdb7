"""Connecting, capabilities, topology, creating what is missing, and the end of it all."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from scripted import NativeError, Scripted, busy, event, refused, until

from cloudevents_bridge import Broker, Capability, PublishError, Subscription, Topic, UnsupportedError, connect, driver
from cloudevents_bridge.driver import Change
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    ConfigurationError,
    ErrorCode,
    PermissionDeniedError,
)
from cloudevents_bridge.faults import place_name

TOPICS = [Topic("orders", subscriptions=["billing", "shipping"]), Topic("returns")]


def test_connecting_asks_nothing_of_the_broker(opened: Any, scripted: Scripted) -> None:
    broker = opened(topics=TOPICS, create_missing=True)
    broker.publisher("orders")
    broker.subscriber("orders", "billing")
    broker.dead_letters("orders", "billing")
    assert dict(scripted.calls) == {"connect": 1}
    assert broker.url == "scripted://here"
    assert broker.native is scripted


def test_ping(broker: Broker, scripted: Scripted) -> None:
    broker.ping()
    assert scripted.calls["ping"] == 1
    broker.close()
    with pytest.raises(ClosedError):
        broker.ping()


def test_native_errors_of_a_ping_are_ours(broker: Broker, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    def ping(self: object, *, timeout: float) -> None:
        raise NativeError(refused(ErrorCode.UNAUTHENTICATED))

    monkeypatch.setattr("scripted.ScriptedConnection.ping", ping)
    with pytest.raises(BridgeError) as caught:
        broker.ping()
    assert caught.value.code == ErrorCode.UNAUTHENTICATED


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_timeout_that_is_none(opened: Any, timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        opened(timeout=timeout)


def test_unknown_options_are_refused(opened: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'sekret'.*secret"):
        opened(sekret="hunter2")


# -- capabilities


def test_what_is_required_is_checked_when_connecting(opened: Any) -> None:
    opened(requires=["ordering", Capability.DELAY])
    with pytest.raises(UnsupportedError, match=r"scripted://here does not have the capability 'filter'"):
        opened(requires=["filter"])
    with pytest.raises(ConfigurationError, match="'teleport' is no capability; the capabilities are"):
        opened(requires=["teleport"])


def test_what_is_declared_is_checked_when_connecting(opened: Any, scripted: Scripted) -> None:
    filtered = Topic("orders", subscriptions=[Subscription("billing", filter="type = 'a'")])
    with pytest.raises(UnsupportedError, match=r"orders/billing.*'filter'"):
        opened(topics=[filtered])
    scripted.capabilities = frozenset()
    with pytest.raises(UnsupportedError, match=r"orders.*'ordering'"):
        opened(topics=[Topic("orders", ordered=True)])


def test_what_is_given_to_the_topology_is_checked_too(opened: Any, scripted: Scripted) -> None:
    scripted.capabilities -= {Capability.ORDERING}
    topology = opened().topology
    filtered = Topic("orders", subscriptions=[Subscription("billing", filter="type = 'a'")])
    for topic in (filtered, Topic("orders", ordered=True)):
        for call in (topology.plan, topology.apply):
            with pytest.raises(UnsupportedError, match="orders"):
                call(topic)
    assert not scripted.exists


def test_a_connection_that_does_not_do_is_closed_again(opened: Any, scripted: Scripted) -> None:
    with pytest.raises(UnsupportedError):
        opened(requires=["filter"])
    assert all(each.closed for each in scripted.opened)


def test_a_refused_connection_leaves_no_shared_memory_behind() -> None:
    with pytest.raises(UnsupportedError):
        connect("memory://refused", requires=["filter"])
    with connect("memory://refused") as broker:
        broker.topology.apply(Topic("orders"))
    with connect("memory://refused") as broker:
        assert broker.topology.plan(Topic("orders"))


# -- topology


def test_plan_apply_and_apply_again(opened: Any, scripted: Scripted) -> None:
    topology = opened(topics=TOPICS).topology
    planned = topology.plan()
    assert [(change.action, change.kind, change.name) for change in planned] == [
        ("create", "topic", "orders"),
        ("create", "subscription", "orders/billing"),
        ("create", "subscription", "orders/shipping"),
        ("create", "topic", "returns"),
    ]
    assert scripted.calls["apply"] == 0
    assert topology.apply() == planned
    assert topology.plan() == []
    assert topology.apply() == []
    assert scripted.calls["apply"] == 1


def test_given_topics_go_before_the_declared(opened: Any, scripted: Scripted) -> None:
    topology = opened(topics=TOPICS).topology
    assert [change.name for change in topology.apply(Topic("others"))] == ["others"]
    assert scripted.exists == {"topic others"}


def test_a_conflict_is_refused_and_nothing_is_done(opened: Any, scripted: Scripted) -> None:
    place = driver.Topic("returns")
    scripted.conflicts["topic returns"] = Change(place, "ordered", "yes", "no", conflict=True)
    broker = opened(topics=TOPICS, create_missing=True)
    assert [change.detail for change in broker.topology.plan()][-1] == "ordered: yes → no (cannot be changed)"
    for call in (broker.topology.apply, lambda: broker.publish("orders", event())):
        with pytest.raises(BridgeError, match=r"topic returns on scripted://here has ordered yes") as caught:
            call()
        assert caught.value.code == ErrorCode.FAILED_PRECONDITION
    assert not scripted.exists
    assert not scripted.sends


def test_a_setting_that_differs_is_shown(opened: Any, scripted: Scripted) -> None:
    scripted.conflicts["topic returns"] = Change(driver.Topic("returns"), "retention", None, "5 d")
    [change] = [each for each in opened(topics=TOPICS).topology.plan() if each.action == "update"]
    assert change == ("update", "topic", "returns", "retention: nothing → 5 d")


def test_delete_says_what_was_there(opened: Any, scripted: Scripted) -> None:
    topology = opened(topics=TOPICS).topology
    topology.apply(Topic("orders"))
    deleted = topology.delete()
    assert [(change.action, change.name) for change in deleted] == [("delete", "orders")]
    assert topology.delete() == []


def test_what_was_deleted_is_made_again(opened: Any, scripted: Scripted) -> None:
    broker = opened(create_missing=True)
    broker.publish("orders", event())
    broker.topology.delete(Topic("orders"))
    broker.publish("orders", event())
    assert "topic orders" in scripted.exists


@pytest.mark.parametrize(
    "call",
    [
        lambda topology: topology.plan(),
        lambda topology: topology.apply(),
        lambda topology: topology.delete(),
        lambda topology: topology.export("terraform"),
        lambda topology: topology.policy("publisher"),
    ],
)
def test_native_errors_of_the_topology_are_ours(opened: Any, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    def fail(*_: object) -> None:
        raise NativeError(refused())

    for name in ("diff", "apply", "delete", "export", "policy"):
        monkeypatch.setattr(f"scripted.ScriptedTopology.{name}", fail)
    with pytest.raises(PermissionDeniedError, match="scripted://here") as caught:
        call(opened(topics=TOPICS).topology)
    assert isinstance(caught.value.__cause__, NativeError)


def test_export_and_policy(opened: Any) -> None:
    topology = opened(topics=TOPICS).topology
    with pytest.raises(UnsupportedError, match="terraform"):
        topology.export("terraform")
    assert topology.policy("consumer", Topic("others")) == "consumer: topic others"


def test_a_broker_without_topology_says_so(opened: Any, scripted: Scripted) -> None:
    scripted.capabilities -= {Capability.TOPOLOGY}
    broker = opened(topics=TOPICS)
    for call in (broker.topology.apply, broker.topology.delete):
        with pytest.raises(UnsupportedError, match="'topology'") as caught:
            call()
        assert not hasattr(caught.value, "__notes__")
    assert not scripted.calls["apply"]
    assert broker.topology.policy("consumer", Topic("others")) == "consumer: topic others", "this makes nothing"
    broker.publish("orders", event())
    with pytest.raises(UnsupportedError, match="'topology'"):
        opened(create_missing=True).publish("orders", event())


def test_a_broker_whose_topology_others_make_says_what_to_run(
    opened: Any, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(self: object, format: str, wanted: Sequence[driver.Topic | driver.Subscription]) -> str:
        return "".join(f"{format}: {place_name(place)}\n" for place in wanted)

    monkeypatch.setattr("scripted.ScriptedTopology.export", export)
    monkeypatch.setattr("scripted.ScriptedTopology.unseen", "Settings cannot be seen.", raising=False)
    scripted.capabilities -= {Capability.TOPOLOGY}
    scripted.exists = {"topic orders", "subscription orders/billing"}
    topology = opened(topics=TOPICS).topology
    assert topology.unseen == "Settings cannot be seen."
    assert [change.name for change in topology.plan()] == ["orders/shipping", "returns"]
    with pytest.raises(UnsupportedError, match="about subscription orders/shipping, topic returns: run the") as caught:
        topology.apply()
    assert caught.value.__notes__ == ["commands: subscription orders/shipping\ncommands: topic returns"]
    scripted.exists |= {"subscription orders/shipping", "topic returns"}
    assert topology.apply() == []
    assert not scripted.calls["apply"]


# -- creating what is missing


def test_steady_state_asks_the_topology_nothing(opened: Any, scripted: Scripted) -> None:
    broker = opened(topics=TOPICS)
    broker.publish("orders", event())
    subscriber = broker.subscriber("orders", "billing")
    scripted.put(event())
    subscriber.ack_many(subscriber.receive())
    list(broker.dead_letters("orders", "billing").find())
    assert not scripted.calls["diff"]
    assert not scripted.calls["apply"]


def test_first_use_creates_all_that_is_declared_once(opened: Any, scripted: Scripted) -> None:
    broker = opened(topics=TOPICS, create_missing=True)
    for _ in range(3):
        broker.publish("orders", event())
    assert scripted.exists == {
        "topic orders",
        "subscription orders/billing",
        "subscription orders/shipping",
        "topic returns",
    }
    assert scripted.calls["apply"] == 1
    broker.publish("others", event())
    assert "topic others" in scripted.exists


def test_first_use_from_many_threads_creates_once(opened: Any, scripted: Scripted) -> None:
    broker = opened(topics=TOPICS, create_missing=True)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: broker.publish("orders", event(str(n))), range(32)))
    assert scripted.calls["apply"] == 1


def test_creating_is_tried_again(opened: Any, scripted: Scripted) -> None:
    said = [busy(), busy(), refused()]

    def on_apply(changes: Sequence[Change]) -> None:
        if said:
            raise NativeError(said.pop(0))

    scripted.on_apply = on_apply
    broker = opened(create_missing=True)
    with pytest.raises(PermissionDeniedError):
        broker.publish("orders", event())
    broker.publish("orders", event())


# -- the end


def test_close_in_spite_of_errors(opened: Any, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened()
    broker.publish("orders", event())
    one, other = broker.subscriber("orders", "billing"), broker.subscriber("orders", "shipping")
    one.receive(wait=0)
    other.receive(wait=0)

    def fail(self: Any) -> None:
        self.closed += 1
        raise NativeError(refused())

    for kind in ("Publisher", "Subscriber"):
        monkeypatch.setattr(f"scripted.Scripted{kind}.close", fail)
    with pytest.raises(PermissionDeniedError):
        broker.close()
    assert all(each.closed for each in scripted.opened)
    assert one.closed
    assert other.closed
    broker.close()


def test_the_context_manager_closes(opened: Any, scripted: Scripted) -> None:
    with opened() as broker:
        future = broker.publisher("orders", linger=3600.0).submit(event())
    assert future.result(0)
    with pytest.raises(ClosedError):
        broker.publish("orders", event())


def test_an_error_inside_is_not_hidden_by_one_of_closing(opened: Any, scripted: Scripted) -> None:
    scripted.on_send = lambda sent, timeout: [refused()] * len(sent.batch)
    with pytest.raises(PublishError) as caught, opened() as broker:
        broker.publisher("orders").submit(event())
        raise ZeroDivisionError
    assert isinstance(caught.value.__context__, ZeroDivisionError)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files cannot be counted here")
@pytest.mark.parametrize("url", ["memory://", "memory://shared", "sqlite"])
def test_nothing_is_left_after_close(url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db" if url == "sqlite" else url

    def use() -> None:
        topics = [Topic("orders", subscriptions=["billing"])]
        with connect(url, topics=topics, create_missing=True) as broker:
            broker.publisher("orders").submit(event())
            with broker.subscriber("orders", "billing") as subscriber:
                for delivery in subscriber:
                    delivery.nack(delay=5.0)
                    break
                subscriber.receive(wait=0)
            list(broker.dead_letters("orders", "billing").find())

    use()
    files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(3):
        use()
    gc.collect()
    until(lambda: threading.active_count() <= threads)
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


def test_brokers_that_are_dropped_are_collected(opened: Any, scripted: Scripted) -> None:
    import weakref

    gone = []
    for _ in range(3):
        with connect("memory://") as broker:
            gone.append(weakref.ref(broker))
        del broker
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


def test_many_publishers_and_subscribers_leave_nothing_behind(opened: Any, scripted: Scripted) -> None:
    broker = opened()
    for n in range(50):
        with broker.publisher("orders") as publisher:
            publisher.submit(event(str(n)))
        broker.subscriber("orders", "billing").close()
    assert len(scripted.opened) < 60
    assert len(broker._consuming) <= 1
