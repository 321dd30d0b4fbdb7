"""The Service Bus emulator by Azure's own clients: topics, rules, the administration API, errors and rights."""

from __future__ import annotations

import json
import urllib.request
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloudevents_bridge_contract.emulators.process import wait_until
from cloudevents_bridge_contract.emulators.servicebus.launcher import KEY, KEY_NAME, Running, started

pytest.importorskip("azure.servicebus", reason="not run (azure-servicebus is not installed)")
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusError,
)
from azure.servicebus.management import (
    CorrelationRuleFilter,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from cloudevents_bridge_contract.emulators.servicebus.sdk import Plain

if TYPE_CHECKING:
    from conftest import Bus

WAIT = 10.0


def _bodies(receiver: Any) -> list[bytes]:
    """All there is now."""
    return [b"".join(each.body) for each in receiver.receive_messages(20, max_wait_time=1)]


def test_every_subscription_gets_every_message(bus: Bus) -> None:
    topic = bus.topic()
    for name in ("one", "two"):
        bus.admin.create_subscription(topic, name)
    bus.send(topic, ServiceBusMessage(b"a"), ServiceBusMessage(b"b"))
    one, two = bus.receiver(topic, "one"), bus.receiver(topic, "two")
    assert _bodies(one) == _bodies(two) == [b"a", b"b"]
    bus.admin.create_subscription(topic, "late")
    assert bus.admin.get_subscription_runtime_properties(topic, "late").total_message_count == 0


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (TrueRuleFilter(), [b"0", b"1", b"2"]),
        (FalseRuleFilter(), []),
        (SqlRuleFilter("colour = 'red'"), [b"0"]),
        (SqlRuleFilter("size > @least", {"@least": 5}), [b"1", b"2"]),
        (SqlRuleFilter("sys.Label LIKE 'first%' OR size IN (20, 30)"), [b"0", b"2"]),
        (SqlRuleFilter("colour IS NULL"), [b"2"]),
        (CorrelationRuleFilter(label="second"), [b"1"]),
        (CorrelationRuleFilter(properties={"colour": "blue", "size": 10}), [b"1"]),
        (CorrelationRuleFilter(label="second", properties={"colour": "red"}), []),
    ],
    ids=["true", "false", "equal", "parameter", "like-in", "null", "label", "properties", "both"],
)
def test_a_rule_chooses(bus: Bus, filter: Any, expected: list[bytes]) -> None:
    topic = bus.topic()
    bus.admin.create_subscription(topic, "s")
    bus.admin.delete_rule(topic, "s", "$Default")
    bus.admin.create_rule(topic, "s", "mine", filter=filter)
    sent = [
        ("first", {"colour": "red", "size": 1}),
        ("second", {"colour": "blue", "size": 10}),
        ("third", {"size": 20}),
    ]
    messages = [
        ServiceBusMessage(b"%d" % number, subject=label, application_properties=properties)
        for number, (label, properties) in enumerate(sent)
    ]
    bus.send(topic, messages)
    assert _bodies(bus.receiver(topic, "s")) == expected
    kept = bus.admin.get_rule(topic, "s", "mine").filter
    assert type(kept) is type(filter)
    assert (getattr(kept, "parameters", None) or None) == getattr(filter, "parameters", None)
    if isinstance(filter, CorrelationRuleFilter):
        assert (kept.label, kept.properties or None) == (filter.label, filter.properties)


def test_an_action_changes_a_copy(bus: Bus) -> None:
    topic = bus.topic()
    bus.admin.create_subscription(topic, "s")
    action = SqlRuleAction("SET colour = 'dark ' + colour; SET sys.Label = 'seen'; REMOVE size")
    bus.admin.create_rule(topic, "s", "paint", filter=SqlRuleFilter("size = 1"), action=action)
    bus.send(topic, ServiceBusMessage(b"a", subject="x", application_properties={"colour": "red", "size": 1}))
    receiver = bus.receiver(topic, "s")
    got = sorted(receiver.receive_messages(2, max_wait_time=1), key=lambda each: str(each.subject))
    assert [each.subject for each in got] == ["seen", "x"]
    assert got[0].application_properties == {b"colour": b"dark red", b"RuleName": b"paint"}
    assert got[1].application_properties == {b"colour": b"red", b"size": 1}
    assert bus.admin.get_rule(topic, "s", "paint").action.sql_expression == action.sql_expression


def test_what_is_no_rule_is_refused(bus: Bus) -> None:
    topic = bus.topic()
    bus.admin.create_subscription(topic, "s")
    with pytest.raises(HttpResponseError, match="syntax error") as caught:
        bus.admin.create_rule(topic, "s", "bad", filter=SqlRuleFilter("colour = = 1"))
    assert caught.value.status_code == 400
    assert [rule.name for rule in bus.admin.list_rules(topic, "s")] == ["$Default"]


def test_scheduled_on_a_topic(bus: Bus) -> None:
    topic = bus.topic()
    bus.admin.create_subscription(topic, "s")
    with bus.client.get_topic_sender(topic) as sender:
        sender.schedule_messages(ServiceBusMessage(b"a"), datetime.now(UTC) + timedelta(seconds=1))
        (number,) = sender.schedule_messages(ServiceBusMessage(b"b"), datetime.now(UTC) + timedelta(seconds=1))
        sender.cancel_scheduled_messages([number])
    (got,) = bus.receiver(topic, "s").receive_messages(1, max_wait_time=WAIT)
    assert b"".join(got.body) == b"a"


def test_dead_letters_of_a_subscription(bus: Bus) -> None:
    topic = bus.topic()
    bus.admin.create_subscription(topic, "s")
    bus.send(topic, ServiceBusMessage(b"a"))
    receiver = bus.receiver(topic, "s")
    receiver.dead_letter_message(receiver.receive_messages(1, max_wait_time=WAIT)[0], reason="why")
    (dead,) = bus.receiver(topic, "s", sub_queue="deadletter").receive_messages(1, max_wait_time=WAIT)
    assert dead.dead_letter_reason == "why"
    assert bus.admin.get_subscription_runtime_properties(topic, "s").dead_letter_message_count == 1


# -- administration


def test_a_queue_is_made_read_changed_and_removed(bus: Bus) -> None:
    name = bus.queue(lock_duration=timedelta(seconds=30), max_delivery_count=3, user_metadata="mine")
    queue = bus.admin.get_queue(name)
    assert (queue.name, queue.lock_duration, queue.max_delivery_count) == (name, timedelta(seconds=30), 3)
    assert (queue.user_metadata, queue.status, queue.requires_session) == ("mine", "Active", False)
    assert queue.default_message_time_to_live > timedelta(days=36_500)
    queue.lock_duration, queue.max_delivery_count = timedelta(seconds=40), 7
    bus.admin.update_queue(queue)
    changed = bus.admin.get_queue(name)
    assert (changed.lock_duration, changed.max_delivery_count) == (timedelta(seconds=40), 7)
    queue.requires_session = True
    with pytest.raises(HttpResponseError, match="RequiresSession of an existing entity cannot be changed"):
        bus.admin.update_queue(queue)
    with pytest.raises(ResourceExistsError):
        bus.admin.create_queue(name)
    assert name in [each.name for each in bus.admin.list_queues()]
    assert bus.admin.get_queue_runtime_properties(name).created_at_utc is not None
    bus.admin.delete_queue(name)
    with pytest.raises(ResourceNotFoundError):
        bus.admin.get_queue(name)
    with pytest.raises(ResourceNotFoundError):
        bus.admin.delete_queue(name)
    with pytest.raises(ResourceNotFoundError):
        bus.admin.update_queue(changed)


def test_topics_subscriptions_and_rules(bus: Bus) -> None:
    topic = bus.topic(default_message_time_to_live=timedelta(hours=1))
    bus.admin.create_subscription(topic, "one", requires_session=True, max_delivery_count=4)
    bus.admin.create_subscription(topic, "two", dead_lettering_on_message_expiration=True)
    assert bus.admin.get_topic(topic).default_message_time_to_live == timedelta(hours=1)
    assert bus.admin.get_topic_runtime_properties(topic).subscription_count == 2
    assert topic in [each.name for each in bus.admin.list_topics()]
    found = {each.name: each for each in bus.admin.list_subscriptions(topic)}
    assert (found["one"].requires_session, found["one"].max_delivery_count) == (True, 4)
    assert found["two"].dead_lettering_on_message_expiration is True
    found["two"].max_delivery_count = 6
    bus.admin.update_subscription(topic, found["two"])
    assert bus.admin.get_subscription(topic, "two").max_delivery_count == 6
    bus.admin.create_rule(topic, "one", "r", filter=SqlRuleFilter("a = 1"))
    rule = bus.admin.get_rule(topic, "one", "r")
    rule.filter = SqlRuleFilter("a = 2")
    bus.admin.update_rule(topic, "one", rule)
    assert [each.filter.sql_expression for each in bus.admin.list_rules(topic, "one")] == ["1=1", "a = 2"]
    for gone, names in (
        (bus.admin.get_rule, (topic, "one", "no")),
        (bus.admin.get_subscription, (topic, "no")),
        (bus.admin.get_topic, ("no",)),
        (bus.admin.create_subscription, ("no", "s")),
    ):
        with pytest.raises(ResourceNotFoundError):
            gone(*names)
    bus.admin.delete_subscription(topic, "one")
    assert [each.name for each in bus.admin.list_subscriptions(topic)] == ["two"]
    bus.admin.delete_topic(topic)
    with pytest.raises(ResourceNotFoundError):
        bus.admin.get_subscription(topic, "two")


def test_lists_come_in_pages(bus: Bus) -> None:
    topic = bus.topic()
    names = [f"s{number:03}" for number in range(105)]
    for name in names:
        bus.admin.create_subscription(topic, name)
    assert [each.name for each in bus.admin.list_subscriptions(topic)] == names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lock_duration": timedelta(minutes=6)}, "LockDuration"),
        ({"max_delivery_count": 0}, "MaxDeliveryCount"),
        ({"forward_to": "nowhere"}, "could not be found"),
    ],
    ids=str,
)
def test_what_a_queue_cannot_be(bus: Bus, options: dict[str, Any], words: str) -> None:
    with pytest.raises(HttpResponseError, match=words) as caught:
        bus.queue(**options)
    assert caught.value.status_code == 400


# -- errors and rights


def test_entities_that_are_not_there(bus: Bus) -> None:
    with pytest.raises(MessagingEntityNotFoundError):
        bus.receiver("nowhere")
    with pytest.raises(MessagingEntityNotFoundError):
        bus.receiver("nowhere", "s")
    with pytest.raises(MessagingEntityNotFoundError):
        bus.send("nowhere", ServiceBusMessage(b"a"))


def test_an_open_link_to_what_is_removed_ends(bus: Bus) -> None:
    name = bus.queue()
    receiver = bus.receiver(name)
    bus.admin.delete_queue(name)
    with pytest.raises(MessagingEntityNotFoundError):
        receiver.receive_messages(1, max_wait_time=5)


def test_a_disabled_entity(bus: Bus) -> None:
    name = bus.queue()
    queue = bus.admin.get_queue(name)
    queue.status = "SendDisabled"
    bus.admin.update_queue(queue)
    with pytest.raises(MessagingEntityDisabledError):
        bus.send(name, ServiceBusMessage(b"a"))
    bus.receiver(name)
    queue.status = "ReceiveDisabled"
    bus.admin.update_queue(queue)
    bus.send(name, ServiceBusMessage(b"a"))
    with pytest.raises(MessagingEntityDisabledError):
        bus.receiver(name)


def test_a_message_that_is_too_large(bus: Bus) -> None:
    name = bus.queue()
    with pytest.raises(MessageSizeExceededError):
        bus.send(name, ServiceBusMessage(b"x" * 262_200))
    bus.send(name, ServiceBusMessage(b"x" * 261_000))


def test_keys_and_their_rights(bus: Bus, servicebus: Running) -> None:
    name = bus.queue()
    bus.send(name, ServiceBusMessage(b"a"))
    for key, secret, may_send, may_listen in (("sender", "one", True, False), ("listener", "two", False, True)):
        connection = servicebus.connection_as(key, secret)
        with ServiceBusClient.from_connection_string(connection, retry_total=0) as client:
            sender, receiver = client.get_queue_sender(name), client.get_queue_receiver(name)
            with nullcontext() if may_send else pytest.raises(ServiceBusAuthorizationError):
                sender.send_messages(ServiceBusMessage(b"b"))
            with nullcontext() if may_listen else pytest.raises(ServiceBusAuthorizationError):
                receiver.receive_messages(1, max_wait_time=1)
            sender.close()
            receiver.close()
        admin = ServiceBusAdministrationClient.from_connection_string(
            connection, transport=Plain(servicebus.administration)
        )
        with admin, pytest.raises(ClientAuthenticationError):
            admin.get_queue(name)


def test_a_wrong_key(bus: Bus, servicebus: Running) -> None:
    name = bus.queue()
    connection = servicebus.connection_as(KEY_NAME, "wrong")
    with (
        ServiceBusClient.from_connection_string(connection, retry_total=0) as client,
        pytest.raises((ServiceBusAuthenticationError, ServiceBusAuthorizationError)),
    ):
        client.get_queue_sender(name).send_messages(ServiceBusMessage(b"a"))


def test_a_message_by_one_http_request(bus: Bus, servicebus: Running) -> None:
    from azure.servicebus._pyamqp.utils import generate_sas_token

    name = bus.queue()
    request = urllib.request.Request(
        f"{servicebus.administration}/{name}/messages",
        b'{"a": 1}',
        {
            "Authorization": generate_sas_token(f"http://{servicebus.server.address}/{name}", KEY_NAME, KEY),
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "BrokerProperties": json.dumps({"MessageId": "m-1", "Label": "x"}),
            "colour": '"red"',
            "size": "7",
        },
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
    (got,) = bus.receiver(name).receive_messages(1, max_wait_time=WAIT)
    assert (b"".join(got.body), got.message_id, got.subject) == (b'{"a": 1}', "m-1", "x")
    assert got.content_type == "application/cloudevents+json; charset=utf-8"
    properties = {key.lower(): value for key, value in got.application_properties.items()}
    assert properties == {b"colour": b"red", b"size": 7}


def test_a_restart_forgets_and_serves_again(servicebus: Running) -> None:
    with started() as running:
        admin = ServiceBusAdministrationClient.from_connection_string(
            running.connection, transport=Plain(running.administration)
        )
        with admin:
            admin.create_queue("q")
            running.server.restart()
            assert wait_until(lambda: [each.name for each in admin.list_queues()] == [], WAIT)
            admin.create_queue("q")
            with (
                ServiceBusClient.from_connection_string(running.connection) as client,
                client.get_queue_sender("q") as s,
            ):
                s.send_messages(ServiceBusMessage(b"a"))
            assert admin.get_queue_runtime_properties("q").active_message_count == 1


def test_sessions_are_listed(bus: Bus) -> None:
    name = bus.queue(requires_session=True)
    bus.send(name, *[ServiceBusMessage(b"a", session_id=session) for session in ("b", "a", "b")])
    before = datetime.now(UTC)
    assert sorted(bus.client.list_queue_sessions(name)) == ["a", "b"]
    assert list(bus.client.list_queue_sessions(name, state_updated_after=before)) == []
    bus.receiver(name, session_id="b").session.set_state(b"s")
    assert list(bus.client.list_queue_sessions(name, state_updated_after=before)) == ["b"]


def test_an_operation_that_is_unknown_is_refused(bus: Bus) -> None:
    receiver = bus.receiver(bus.queue())
    from azure.servicebus._common import mgmt_handlers

    with pytest.raises(ServiceBusError, match="is not implemented"):
        receiver._mgmt_request_response(b"com.microsoft:dance", {}, mgmt_handlers.default, timeout=5)
