"""Topics and subscriptions on the emulator: made, compared, changed, refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from azure.servicebus.management import CorrelationRuleFilter, SqlRuleFilter

from cloudevents_bridge import Broker, CloudEvent, RetryPolicy, Subscription, Topic, connect
from cloudevents_bridge.errors import BridgeError, ErrorCode
from cloudevents_bridge_contract.azure import ServiceBusRig
from cloudevents_bridge_contract.emulators.faults import Answer, FaultyProxy
from cloudevents_bridge_contract.rig import NotRun


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    rig = ServiceBusRig({})
    try:
        with rig.start() as url:
            yield url
    except NotRun as reason:
        pytest.skip(f"not run ({reason})")


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[Topic], Broker]]:
    with ExitStack() as stack:
        yield lambda topic: stack.enter_context(connect(url, topics=[topic]))


@pytest.fixture
def name() -> str:
    return f"orders-{time.monotonic_ns() % 10**12}"


def _admin(broker: Broker) -> Any:
    return broker.native.administration


def test_what_is_declared_is_made(opened: Callable[[Topic], Broker], name: str) -> None:
    billing = Subscription("billing", lease=30, max_attempts=4, filter="type LIKE 'com.example.%'")
    topic = Topic(name, ordered=True, subscriptions=[billing], native={"deduplication": 60, "megabytes": 2048})
    broker = opened(topic)
    assert [(each.action, each.kind) for each in broker.topology.apply()] == [
        ("create", "topic"),
        ("create", "subscription"),
    ]
    assert broker.topology.plan() == []
    made, subscription = _admin(broker).get_topic(name), _admin(broker).get_subscription(name, "billing")
    assert (made.requires_duplicate_detection, made.max_size_in_megabytes) == (True, 2048)
    assert (made.duplicate_detection_history_time_window.total_seconds(), made.support_ordering) == (60, True)
    assert (subscription.lock_duration.total_seconds(), subscription.requires_session) == (30, True)
    assert (subscription.max_delivery_count, subscription.dead_lettering_on_message_expiration) == (14, True)
    assert subscription.default_message_time_to_live.total_seconds() == 1_209_600
    (rule,) = _admin(broker).list_rules(name, "billing")
    assert rule.filter.sql_expression == "user.cloudEvents_type LIKE 'com.example.%'"


def test_what_differs_is_shown_and_changed(opened: Callable[[Topic], Broker], name: str) -> None:
    opened(Topic(name, subscriptions=[Subscription("billing", lease=30)])).topology.apply()
    wanted = Subscription("billing", lease=60, max_attempts=7, filter="type = 'a'")
    broker = opened(Topic(name, subscriptions=[wanted]))
    shown = {each.detail.partition(":")[0]: each.detail for each in broker.topology.plan()}
    assert set(shown) == {"lease", "max_attempts", "filter"}
    assert shown["lease"] == "lease: 30 s → 60 s"
    assert shown["filter"] == "filter: none → user.cloudEvents_type = 'a'"
    broker.topology.apply()
    assert broker.topology.plan() == []
    plain = opened(Topic(name, subscriptions=[Subscription("billing", lease=60, max_attempts=7)]))
    assert [each.detail for each in plain.topology.apply()] == ["filter: user.cloudEvents_type = 'a' → none"]
    assert plain.topology.plan() == []


def test_rules_of_others_are_shown_and_replaced(opened: Callable[[Topic], Broker], name: str) -> None:
    broker = opened(Topic(name, subscriptions=["billing"]))
    broker.topology.apply()
    admin = _admin(broker)
    admin.delete_rule(name, "billing", "$Default")
    admin.create_rule(name, "billing", "red", filter=SqlRuleFilter("colour = 'red'"))
    admin.create_rule(name, "billing", "mine", filter=CorrelationRuleFilter(label="mine"))
    (change,) = broker.topology.plan()
    assert "colour = 'red'" in change.detail
    assert "rule mine" in change.detail
    broker.topology.apply()
    assert broker.topology.plan() == []
    broker.publish(name, CloudEvent(type="a.b", source="/shop"))
    with broker.subscriber(name, "billing") as subscriber:
        (delivery,) = subscriber.receive(wait=15)
        delivery.ack()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"ordered": True}, "has ordered no, declared is yes"),
        ({"native": {"deduplication": 60}}, {"native": {}}, None),
        ({}, {"native": {"deduplication": 60}}, "has deduplication no, declared is yes"),
    ],
)
def test_what_cannot_be_changed_is_refused(
    opened: Callable[[Topic], Broker],
    name: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    said: str | None,
) -> None:
    opened(Topic(name, subscriptions=["billing"], **before)).topology.apply()
    broker = opened(Topic(name, subscriptions=["billing"], **after))
    if said is None:  # what a declaration does not say is left as it is
        assert broker.topology.plan() == []
        return
    with pytest.raises(BridgeError, match=said) as caught:
        broker.topology.apply()
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
    assert not _admin(broker).get_subscription(name, "billing").requires_session


def test_a_tail_expires_and_no_secret_is_shown(opened: Callable[[Topic], Broker], name: str, url: str) -> None:
    broker = opened(Topic(name))
    broker.topology.apply()
    assert "SAS_KEY_VALUE" not in repr(broker) + repr(broker.native)
    with pytest.raises(BridgeError) as caught, connect(url) as other:
        other.publish("nowhere", CloudEvent(type="a.b", source="/shop"))
    assert caught.value.code is ErrorCode.NOT_FOUND
    assert "nowhere" in str(caught.value)
    assert "SAS_KEY_VALUE" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "code"), [("503", ErrorCode.UNAVAILABLE), ("throttled", ErrorCode.RESOURCE_EXHAUSTED)]
)
def test_a_refusal_of_the_administration_is_asked_for_once(fault: str, code: ErrorCode) -> None:
    busy = Answer(429, {"Retry-After": "1"}, b"")
    with (
        FaultyProxy(0, chance=1, throttled=busy, faults=(fault,)) as proxy,
        connect(
            f"azure-servicebus://local?endpoint=amqp://127.0.0.1:1&administration=http://127.0.0.1:{proxy.port}",
            topics=[Topic("orders")],
            retry=RetryPolicy(attempts=1),
        ) as broker,
    ):
        with pytest.raises(BridgeError) as caught:
            broker.topology.plan()
        assert caught.value.code is code
        assert proxy.done == {fault: 1}, "the SDK has tried again by itself"
