"""Topics and subscriptions of Pub/Sub: every setting made, compared and changed; for other tools; for roles."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudevents_bridge import Broker, RetryPolicy, Subscription, Topic, connect
from cloudevents_bridge.errors import BridgeError, ErrorCode, UnsupportedError
from cloudevents_bridge_gcp.policy import PROVISIONS

Opened = Callable[..., Broker]
P = "projects/ceb-test"


def _full(name: str) -> Topic:
    return Topic(
        name,
        ordered=True,
        native={"labels": {"team": "shop"}, "retention": 86_400, "kms_key": f"{P}/locations/l/keyRings/r/cryptoKeys/k"},
        subscriptions=[
            Subscription(
                "billing",
                lease=30.0,
                max_attempts=4,
                filter="type LIKE 'com.example.%'",
                native={
                    "exactly_once": True,
                    "retain_acked": True,
                    "labels": {"team": "shop"},
                    "retry": {"minimum": 1.5, "maximum": 600},
                },
            )
        ],
    )


def test_every_setting_is_made_as_declared(opened: Opened, name: str) -> None:
    broker = opened(_full(name))
    assert broker.topology.plan() == []
    publisher, subscriber = broker.native.publisher, broker.native.subscriber
    topic = publisher.get_topic(topic=f"{P}/topics/{name}")
    assert dict(topic.labels) == {"team": "shop"}
    assert topic.message_retention_duration.total_seconds() == 86_400
    assert topic.kms_key_name.endswith("/k")
    made = subscriber.get_subscription(subscription=f"{P}/subscriptions/{name}--billing")
    assert made.topic == topic.name
    assert (made.ack_deadline_seconds, made.enable_message_ordering) == (30, True)
    assert (made.enable_exactly_once_delivery, made.retain_acked_messages) == (True, True)
    assert made.filter == 'hasPrefix(attributes."ce-type", "com.example.")'
    assert made.retry_policy.minimum_backoff.total_seconds() == 1.5
    assert made.retry_policy.maximum_backoff.total_seconds() == 600
    assert made.dead_letter_policy.dead_letter_topic == f"{P}/topics/{name}--billing--dlq"
    assert made.dead_letter_policy.max_delivery_attempts == 14
    assert "ttl" not in made.expiration_policy, "an unused subscription is removed by Pub/Sub"
    dead = subscriber.get_subscription(subscription=f"{P}/subscriptions/{name}--billing--dlq")
    assert (dead.topic, dead.filter) == (f"{P}/topics/{name}--billing--dlq", "")
    assert publisher.get_topic(topic=dead.topic).kms_key_name.endswith("/k"), "letters are kept without the key"


def test_what_can_be_changed_is_shown_and_changed(opened: Opened, name: str) -> None:
    opened(Topic(name, native={"retention": 86_400}, subscriptions=[Subscription("billing", lease=30.0)]))
    retry = {"minimum": 1, "maximum": 2}
    billing = Subscription("billing", lease=45.0, max_attempts=9, native={"retry": retry, "exactly_once": True})
    broker = opened(Topic(name, native={"retention": 172_800}, subscriptions=[billing]), make=False)
    details = {change.detail for change in broker.topology.plan()}
    assert details == {
        "retention: 86400 s → 172800 s",
        "lease: 30 s → 45 s",
        "max_attempts: 17 deliveries → 29 deliveries",
        "retry: at once → after 1 to 2 s",
        "exactly_once: no → yes",
    }
    broker.topology.apply()
    assert broker.topology.plan() == []


@pytest.mark.parametrize(
    ("ordered", "subscription", "setting"),
    [
        (True, Subscription("billing"), "ordered no, declared is yes"),
        (False, Subscription("billing", filter="type = 'a'"), "filter none, declared is"),
    ],
)
def test_what_cannot_be_changed_is_a_conflict(
    opened: Opened, name: str, ordered: bool, subscription: Subscription, setting: str
) -> None:
    opened(Topic(name, subscriptions=["billing"]))
    changed = opened(Topic(name, ordered=ordered, subscriptions=[subscription]), make=False)
    assert any("cannot be changed" in change.detail for change in changed.topology.plan())
    with pytest.raises(BridgeError) as caught:
        changed.topology.apply()
    assert caught.value.code == ErrorCode.FAILED_PRECONDITION
    assert setting in str(caught.value)


def test_what_is_not_declared_is_left_as_others_made_it(opened: Opened, name: str) -> None:
    opened(_full(name))
    portable = Subscription("billing", lease=30.0, max_attempts=4, filter="type LIKE 'com.example.%'")
    bare = opened(Topic(name, ordered=True, subscriptions=[portable]), make=False)
    assert bare.topology.plan() == []


def test_what_half_exists_is_completed(opened: Opened, name: str) -> None:
    topic = Topic(name, subscriptions=["billing"])
    broker = opened(topic)
    broker.native.subscriber.delete_subscription(subscription=f"{P}/subscriptions/{name}--billing--dlq")
    [change] = broker.topology.plan()
    assert (change.action, change.kind, change.name) == ("create", "dead letters", f"{name}/billing")
    broker.topology.apply()
    assert broker.topology.plan() == []


def test_delete_takes_the_dead_letters_and_undeclared_subscriptions(opened: Opened, name: str) -> None:
    opened(Topic(name, subscriptions=["billing", "shipping"]))
    broker = opened(Topic(name), make=False)
    broker.topology.delete()
    publisher, subscriber = broker.native.publisher, broker.native.subscriber
    left = [each.name for each in publisher.list_topics(project=P) if name in each.name]
    left += [each.name for each in subscriber.list_subscriptions(project=P) if name in each.name]
    assert left == []


def test_a_tail_takes_its_subscription_with_it_and_leaves_no_dead_letters(opened: Opened, name: str) -> None:
    from cloudevents_bridge import CloudEvent

    broker = opened(Topic(name))
    with broker._tail(name) as subscriber:
        [made] = broker.native.publisher.list_topic_subscriptions(topic=f"{P}/topics/{name}")
        found = broker.native.subscriber.get_subscription(subscription=made)
        assert found.expiration_policy.ttl.total_seconds() == 86_400, "Pub/Sub has no shorter one"
        broker.publish(name, CloudEvent(type="a", source="b", id="seen"))
        [delivery] = subscriber.receive(wait=10)
        assert delivery.event.id == "seen"
        delivery.ack()
    assert list(broker.native.publisher.list_topic_subscriptions(topic=f"{P}/topics/{name}")) == []
    assert [each.name for each in broker.native.publisher.list_topics(project=P) if name in each.name] == [
        f"{P}/topics/{name}"
    ]


def test_commands() -> None:
    with connect("gcp://my-project", topics=[_full("orders")]) as broker:
        lines = broker.topology.export("commands").splitlines()
    assert lines[0] == (
        "gcloud pubsub topics create projects/my-project/topics/orders --message-retention-duration=86400s "
        "--topic-encryption-key=projects/ceb-test/locations/l/keyRings/r/cryptoKeys/k --labels=team=shop"
    )
    made = "subscriptions create projects/my-project/subscriptions/orders--billing "
    billing = next(line for line in lines if made in line)
    for flag in (
        "--topic=projects/my-project/topics/orders",
        "--ack-deadline=30",
        "--expiration-period=never",
        "--dead-letter-topic=projects/my-project/topics/orders--billing--dlq",
        "--max-delivery-attempts=14",
        "--enable-message-ordering",
        "--enable-exactly-once-delivery",
        '--message-filter=\'hasPrefix(attributes."ce-type", "com.example.")\'',
        "--min-retry-delay=1.5s",
    ):
        assert flag in billing
    agent = (
        "--member=\"serviceAccount:service-$(gcloud projects describe my-project --format='value(projectNumber)')"
        '@gcp-sa-pubsub.iam.gserviceaccount.com"'
    )
    assert lines[-2:] == [
        f"gcloud pubsub {place} {agent} --role=roles/pubsub.{role}"
        for place, role in (
            ("topics add-iam-policy-binding projects/my-project/topics/orders--billing--dlq", "publisher"),
            ("subscriptions add-iam-policy-binding projects/my-project/subscriptions/orders--billing", "subscriber"),
        )
    ]
    order = [line for line in lines if " create " in line]
    assert ["--dlq" in line.split()[4] for line in order] == [False, True, True, False], "a place comes before its use"


def test_the_commands_are_ones_that_a_shell_reads(tmp_path: Path) -> None:
    if shutil.which("sh") is None:
        pytest.skip("not run: there is no sh here")
    with connect("gcp://my-project", topics=[_full("orders")]) as broker:
        script = tmp_path / "made.sh"
        roles = [broker.topology.policy(role) for role in ("publisher", "consumer", "operator", "provisioner")]
        script.write_text(broker.topology.export("commands") + "".join(roles))
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_terraform() -> None:
    with connect("gcp://my-project", topics=[_full("orders")]) as broker:
        text = broker.topology.export("terraform")
    for part in (
        'resource "google_pubsub_topic" "orders" {',
        'resource "google_pubsub_subscription" "orders__billing" {',
        "  topic = google_pubsub_topic.orders.id",
        "    dead_letter_topic = google_pubsub_topic.orders__billing__dlq.id",
        '  filter = "hasPrefix(attributes.\\"ce-type\\", \\"com.example.\\")"',
        '  expiration_policy { ttl = "" }',
        "  enable_exactly_once_delivery = true",
        'data "google_project" "this" {',
    ):
        assert part in text
    assert text.count("{") == text.count("}")


def test_a_format_of_another_cloud_is_refused() -> None:
    with (
        connect("gcp://my-project", topics=[Topic("orders")]) as broker,
        pytest.raises(UnsupportedError, match="bicep"),
    ):
        broker.topology.export("bicep")


def test_roles_are_granted_on_the_resources_they_need() -> None:
    with connect("gcp://my-project", topics=[Topic("orders", subscriptions=["billing"])]) as broker:
        granted = {
            role: [line.split(" --member")[0].split()[-1] + " " + line.rpartition("--role=")[2] for line in text[1:]]
            for role in ("publisher", "consumer", "operator")
            if (text := broker.topology.policy(role).splitlines())
        }
        provisioner = broker.topology.policy("provisioner")
    topics, subscriptions = "projects/my-project/topics", "projects/my-project/subscriptions"
    assert granted == {
        "publisher": [f"{topics}/orders roles/pubsub.publisher"],
        "consumer": [
            f"{subscriptions}/orders--billing roles/pubsub.subscriber",
            f"{topics}/orders--billing--dlq roles/pubsub.publisher",
        ],
        "operator": [
            f"{subscriptions}/orders--billing--dlq roles/pubsub.subscriber",
            f"{topics}/orders roles/pubsub.publisher",
        ],
    }
    assert all(permission in provisioner for permission in PROVISIONS)
    assert not any("consume" in each or "publish" in each for each in PROVISIONS)


def test_redelivery_is_the_portable_layers_unless_a_native_one_is_declared(opened: Opened, name: str) -> None:
    billing = Subscription("billing", redelivery=RetryPolicy(initial=5.0, maximum=60.0))
    broker = opened(Topic(name, subscriptions=[billing]))
    made = broker.native.subscriber.get_subscription(subscription=f"{P}/subscriptions/{name}--billing")
    assert "retry_policy" not in made, "Pub/Sub would add its own back-off to ours"
