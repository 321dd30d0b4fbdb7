"""Topics, queues and subscriptions: what is made, what differs, what is deleted; for other tools; for roles."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_aws import Aws, queue_arn, refusal, topic_arn, url

from cloudevents_bridge import Broker, Subscription, Topic
from cloudevents_bridge.errors import BridgeError, ErrorCode, UnsupportedError
from cloudevents_bridge_aws.errors import action_of

Opened = Callable[..., Broker]
ORDERS = Topic("orders", subscriptions=["billing"])
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
THEIRS = "arn:aws:sns:eu-west-1:999999999999:theirs"
READS = {
    "GetTopicAttributes",
    "GetQueueAttributes",
    "ListTagsForResource",
    "ListQueueTags",
    "ListSubscriptionsByTopic",
    "GetSubscriptionAttributes",
}


def test_everything_is_made_and_a_second_apply_only_reads(aws: Aws, opened: Opened) -> None:
    broker = opened(ORDERS)
    assert {(each.action, each.kind, each.name) for each in broker.topology.plan()} == {
        ("create", "topic", "orders"),
        ("create", "subscription", "orders/billing"),
        ("create", "dead letters", "orders/billing"),
    }
    broker.topology.apply()
    assert set(aws.topics) == {topic_arn("orders")}
    live, dead = aws.queue("orders--billing"), aws.queue("orders--billing--dlq")
    assert (live["VisibilityTimeout"], live["MessageRetentionPeriod"]) == ("60", "1209600")
    assert live["SqsManagedSseEnabled"] == dead["SqsManagedSseEnabled"] == "true"
    assert json.loads(live["RedrivePolicy"])["deadLetterTargetArn"] == queue_arn("orders--billing--dlq")
    assert json.loads(dead["RedriveAllowPolicy"])["sourceQueueArns"] == [queue_arn("orders--billing")]
    [statement] = json.loads(live["Policy"])["Statement"]
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": topic_arn("orders")}}
    assert statement["Resource"] == queue_arn("orders--billing")
    [(topic, queue, attributes)] = aws.subscriptions.values()
    assert (topic, queue) == (topic_arn("orders"), queue_arn("orders--billing"))
    assert attributes["RawMessageDelivery"] == "true"
    assert json.loads(attributes["RedrivePolicy"]) == {"deadLetterTargetArn": queue_arn("orders--billing--dlq")}
    assert all("cloudevents-bridge" in tags for tags in aws.tags.values())
    aws.calls.clear()
    assert broker.topology.plan() == []
    assert broker.topology.apply() == []
    assert set(aws.calls) <= READS


def test_ordered_topics_are_fifo(aws: Aws, opened: Opened) -> None:
    opened(Topic("orders", ordered=True, subscriptions=["billing"])).topology.apply()
    assert aws.topics[topic_arn("orders.fifo")]["FifoTopic"] == "true"
    for name in ("orders--billing.fifo", "orders--billing--dlq.fifo"):
        assert aws.queue(name)["FifoQueue"] == "true"


def test_kms_key_is_for_topic_and_queues(aws: Aws, opened: Opened) -> None:
    broker = opened(Topic("orders", native={"kms_key": KEY}, subscriptions=["billing"]))
    broker.topology.apply()
    assert aws.topics[topic_arn("orders")]["KmsMasterKeyId"] == KEY
    assert {each["KmsMasterKeyId"] for each in aws.queues.values()} == {KEY}
    assert broker.topology.plan() == []


@pytest.mark.parametrize(
    ("attribute", "value", "setting"),
    [
        ("VisibilityTimeout", "30", "lease: 30 → 60"),
        ("MessageRetentionPeriod", "60", "retention: 60 → 1209600"),
        ("SqsManagedSseEnabled", "false", "encryption: false → true"),
        ("RedrivePolicy", "", "redrive: none → "),
        ("Policy", "", "policy: another → orders may send to orders--billing"),
    ],
)
def test_what_differs_is_said_and_mended(aws: Aws, opened: Opened, attribute: str, value: str, setting: str) -> None:
    broker = opened(ORDERS)
    broker.topology.apply()
    aws.queue("orders--billing")[attribute] = value
    [change] = broker.topology.plan()
    assert (change.action, change.name) == ("update", "orders/billing")
    assert change.detail.startswith(setting)
    broker.topology.apply()
    assert broker.topology.plan() == []


def test_subscription_that_is_gone_or_not_raw_is_mended(aws: Aws, opened: Opened) -> None:
    broker = opened(ORDERS)
    broker.topology.apply()
    [arn] = aws.subscriptions
    aws.subscriptions[arn][2]["RawMessageDelivery"] = "false"
    assert [each.detail for each in broker.topology.plan()] == ["subscription_raw: false → true"]
    broker.topology.apply()
    aws.subscriptions.clear()
    assert [each.detail for each in broker.topology.plan()] == ["topic: not subscribed → orders"]
    broker.topology.apply()
    assert broker.topology.plan() == []


def test_tags_are_made_shown_and_mended(aws: Aws, opened: Opened) -> None:
    broker = opened(
        Topic("orders", native={"tags": {"team": "shop"}}, subscriptions=["billing"]), tags={"stage": "test"}
    )
    broker.topology.apply()
    assert aws.tags[topic_arn("orders")] == {"team": "shop", "stage": "test", "cloudevents-bridge": "orders"}
    assert aws.tags[url("orders--billing")]["stage"] == "test"
    aws.tags[topic_arn("orders")]["team"] = "other"
    del aws.tags[url("orders--billing")]["stage"]
    aws.tags[topic_arn("orders")]["of somebody else"] = "x"
    assert sorted(each.detail for each in broker.topology.plan()) == [
        "tags.stage: no value → test",
        "tags.team: other → shop",
    ]
    broker.topology.apply()
    assert broker.topology.plan() == []
    assert aws.tags[topic_arn("orders")]["of somebody else"] == "x"


def test_statements_of_others_stay_in_the_policy_of_a_queue(aws: Aws, opened: Opened) -> None:
    broker = opened(ORDERS)
    broker.topology.apply()
    others = {"Sid": "Others", "Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}
    aws.queue("orders--billing")["Policy"] = json.dumps({"Version": "2012-10-17", "Statement": others})
    broker.topology.apply()
    sids = [each["Sid"] for each in json.loads(aws.queue("orders--billing")["Policy"])["Statement"]]
    assert sids == ["Others", "CloudEventsBridge"]


@pytest.mark.parametrize("ordered", [True, False])
def test_twin_of_the_other_kind_is_a_conflict(aws: Aws, opened: Opened, ordered: bool) -> None:
    opened(Topic("orders", ordered=ordered)).topology.apply()
    with pytest.raises(BridgeError, match=r"ordered") as caught:
        opened(Topic("orders", ordered=not ordered)).topology.apply()
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
    assert len(aws.topics) == 1


def test_topic_of_another_account_is_used_and_left_alone(aws: Aws, opened: Opened) -> None:
    aws.topics[THEIRS] = {}
    broker = opened(Topic("orders", native={"name": THEIRS}, subscriptions=["billing"]))
    broker.topology.apply()
    assert [(topic, queue) for topic, queue, _ in aws.subscriptions.values()] == [
        (THEIRS, queue_arn("orders--billing"))
    ]
    with pytest.raises(BridgeError, match=f"{THEIRS}, which is another account's: it stays") as caught:
        broker.topology.delete()
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
    assert (set(aws.topics), aws.queues, aws.subscriptions) == ({THEIRS}, {}, {})
    assert not {"CreateTopic", "DeleteTopic", "SetTopicAttributes", "TagResource"} & set(aws.calls)


def test_queue_of_another_account_is_never_said_to_be_deleted(aws: Aws, opened: Opened) -> None:
    theirs = "arn:aws:sqs:eu-west-1:999999999999:theirs"
    topic = Topic("orders", native={"name": theirs}, subscriptions=["orders"])
    with pytest.raises(BridgeError, match=f"{theirs}, which is another account's: it stays"):
        opened(topic, scheme="aws-sqs").topology.delete()
    assert "DeleteQueue" not in aws.calls


def test_filters_are_refused(opened: Opened) -> None:
    with pytest.raises(UnsupportedError, match="filter"):
        opened(Topic("orders", subscriptions=[Subscription("billing", filter="type = 'a'")])).topology.plan()


def test_delete_removes_all_that_was_made(aws: Aws, opened: Opened) -> None:
    broker = opened(Topic("orders", subscriptions=["billing", "audit"]))
    broker.topology.apply()
    opened(Topic("orders-eu", subscriptions=["billing"])).topology.apply()
    assert [each.name for each in broker.topology.delete()] == ["orders"]
    assert set(aws.topics) == {topic_arn("orders-eu")}
    assert set(aws.queues) == {url("orders-eu--billing"), url("orders-eu--billing--dlq")}
    assert broker.topology.delete() == []


def test_topic_that_others_made_is_not_deleted_nor_what_hangs_on_it(aws: Aws, opened: Opened) -> None:
    broker = opened(ORDERS)
    broker.topology.apply()
    aws.tags[topic_arn("orders")].clear()
    there = (dict(aws.topics), dict(aws.queues), dict(aws.subscriptions))
    with pytest.raises(BridgeError, match="did not make") as caught:
        broker.topology.delete()
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
    assert (aws.topics, aws.queues, aws.subscriptions) == there


def test_queue_that_others_made_is_not_deleted(aws: Aws, opened: Opened) -> None:
    broker = opened(ORDERS)
    aws.queues[url("orders--theirs")] = {}
    broker.topology.apply()
    broker.topology.delete()
    assert set(aws.queues) == {url("orders--theirs")}


def test_queue_without_topic_that_others_made_is_not_deleted(aws: Aws, opened: Opened) -> None:
    aws.queues[url("orders")] = {}
    with pytest.raises(BridgeError, match="did not make"):
        opened(Topic("orders"), scheme="aws-sqs").topology.delete()
    assert set(aws.queues) == {url("orders")}


def test_deleting_one_kind_leaves_its_twin(aws: Aws, opened: Opened) -> None:
    opened(Topic("orders", ordered=True, subscriptions=["billing"])).topology.apply()
    there = set(aws.queues)
    opened(ORDERS).topology.delete()
    assert set(aws.queues) == there


def test_queues_alone(aws: Aws, opened: Opened) -> None:
    broker = opened(Topic("orders", subscriptions=["orders"]), scheme="aws-sqs")
    broker.topology.apply()
    assert (set(aws.queues), aws.topics) == ({url("orders"), url("orders--dlq")}, {})
    assert "Policy" not in aws.queue("orders")
    assert broker.topology.plan() == []
    broker.topology.delete()
    assert aws.queues == {}


def test_refusal_names_the_action(aws: Aws, opened: Opened) -> None:
    aws.fail["CreateQueue"] = refusal("AccessDenied", "CreateQueue", 403)
    with pytest.raises(BridgeError, match="sqs:CreateQueue is not allowed") as caught:
        opened(ORDERS).topology.apply()
    assert caught.value.code is ErrorCode.PERMISSION_DENIED


# -- for other tools, for roles


@pytest.mark.parametrize("scheme", ["aws", "aws-sqs"])
@pytest.mark.parametrize("ordered", [False, True])
def test_export_names_what_apply_makes(aws: Aws, opened: Opened, scheme: str, ordered: bool) -> None:
    topic = Topic("orders", ordered=ordered, subscriptions=["orders" if scheme == "aws-sqs" else "billing"])
    broker = opened(topic, scheme=scheme)
    broker.topology.apply()
    text = broker.topology.export("terraform")
    for name in [each.rpartition(":")[2] for each in aws.topics] + [each.rpartition("/")[2] for each in aws.queues]:
        assert f'name = "{name}"' in text
    assert text.count('resource "aws_sqs_queue" ') == 2
    assert text.count("fifo_queue = true") == (2 if ordered else 0)
    assert text.count("raw_message_delivery = true") == len(aws.subscriptions)
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("scheme", ["aws", "aws-sqs"])
@pytest.mark.parametrize("ordered", [False, True])
def test_terraform_accepts_the_export(opened: Opened, tmp_path: Path, scheme: str, ordered: bool) -> None:
    """The provider comes from the registry; where that cannot be reached, TF_CLI_ARGS_init=-plugin-dir=… names another
    place."""
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("not run: terraform is not installed")
    topic = Topic("orders", ordered=ordered, subscriptions=["orders" if scheme == "aws-sqs" else "billing"])
    broker = opened(topic, scheme=scheme, queue_bytes=262_144)  # 1 MiB asks for a provider of 2025
    (tmp_path / "main.tf").write_text(broker.topology.export("terraform"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    written = run("fmt", "-no-color")  # reads the whole of it
    assert written.returncode == 0, written.stderr
    begun = run("init", "-backend=false", "-input=false", "-no-color")
    if "query available provider packages" in begun.stderr:
        pytest.skip("not run: terraform cannot get the provider hashicorp/aws here")
    assert begun.returncode == 0, begun.stderr
    done = run("validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


def test_large_queues_ask_for_the_provider_that_knows_them(opened: Opened) -> None:
    assert 'version = ">= 6.8"' in opened(ORDERS).topology.export("terraform")
    assert 'version = ">= 5.0"' in opened(ORDERS, queue_bytes=262_144).topology.export("terraform")


def test_there_is_no_bicep(opened: Opened) -> None:
    with pytest.raises(UnsupportedError, match="terraform"):
        opened(ORDERS).topology.export("bicep")


def _statements(broker: Broker, role: Any) -> dict[str, tuple[set[str], list[str]]]:
    document = json.loads(broker.topology.policy(role))
    return {each["Sid"]: (set(each["Action"]), each["Resource"]) for each in document["Statement"]}


def test_policies_of_publisher_and_consumer(opened: Opened) -> None:
    broker = opened(ORDERS)
    assert _statements(broker, "publisher") == {"Publish": ({"sns:Publish"}, [topic_arn("orders")])}
    taking = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"}
    assert _statements(broker, "consumer") == {
        "Consume": (taking, [queue_arn("orders--billing")]),
        "DeadLetter": ({"sqs:SendMessage"}, [queue_arn("orders--billing--dlq")]),
    }
    moving = {f"sqs:{verb}MessageMoveTask" for verb in ("Start", "Cancel")}
    moving |= {"sqs:ListMessageMoveTasks", "sqs:GetQueueAttributes"}
    assert _statements(broker, "operator") == {
        "DeadLetters": (taking, [queue_arn("orders--billing--dlq")]),
        "Move": (moving, [queue_arn("orders--billing--dlq")]),
        "Replay": ({"sqs:SendMessage"}, [queue_arn("orders--billing")]),
    }


def test_publisher_of_a_queue_sends_to_it(opened: Opened) -> None:
    broker = opened(Topic("orders", subscriptions=["orders"]), scheme="aws-sqs")
    assert _statements(broker, "publisher") == {"Send": ({"sqs:SendMessage"}, [queue_arn("orders")])}


def test_keys_are_in_the_policies(opened: Opened) -> None:
    broker = opened(Topic("orders", native={"kms_key": KEY}, subscriptions=["billing"]))
    for role in ("publisher", "consumer"):
        assert _statements(broker, role)["Keys"] == ({"kms:GenerateDataKey", "kms:Decrypt"}, [KEY])
    alias = opened(Topic("orders", native={"kms_key": "alias/orders"}))
    [*_, statement] = json.loads(alias.topology.policy("publisher"))["Statement"]
    assert statement["Condition"] == {"ForAnyValue:StringEquals": {"kms:ResourceAliases": ["alias/orders"]}}


@pytest.mark.parametrize("scheme", ["aws", "aws-sqs"])
def test_provisioner_may_do_all_that_the_topology_does(aws: Aws, opened: Opened, scheme: str) -> None:
    broker = opened(Topic("orders", subscriptions=["orders" if scheme == "aws-sqs" else "billing"]), scheme=scheme)
    broker.topology.apply()
    for queue in aws.queues.values():
        queue["VisibilityTimeout"] = "7"
    for _, _, attributes in aws.subscriptions.values():
        attributes["RawMessageDelivery"] = "false"
    broker.topology.apply()
    broker.topology.delete()
    allowed = {action for actions, _ in _statements(broker, "provisioner").values() for action in actions}
    assert allowed == {action_of(refusal("AccessDenied", action.partition(":")[2])) for action in allowed}
    allowed = {action.partition(":")[2] for action in allowed}
    assert set(aws.calls) - {"GetCallerIdentity"} <= allowed
