"""The least rights of a role, as the JSON of an IAM policy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_aws.names import Names
from cloudevents_bridge_aws.options import Options

Place = Topic | Subscription
ROLES = ("publisher", "consumer", "operator", "provisioner")
_TAKE = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility")
_SEND = ("sqs:SendMessage",)
_MOVE = (
    "sqs:StartMessageMoveTask",
    "sqs:ListMessageMoveTasks",
    "sqs:CancelMessageMoveTask",
    "sqs:GetQueueAttributes",
)
_QUEUES = (
    "sqs:CreateQueue",
    "sqs:DeleteQueue",
    "sqs:GetQueueAttributes",
    "sqs:ListQueueTags",
    "sqs:PurgeQueue",
    "sqs:SetQueueAttributes",
    "sqs:TagQueue",
)
_TOPICS = (
    "sns:CreateTopic",
    "sns:DeleteTopic",
    "sns:GetTopicAttributes",
    "sns:ListSubscriptionsByTopic",
    "sns:ListTagsForResource",
    "sns:SetTopicAttributes",
    "sns:Subscribe",
    "sns:TagResource",
)
_SUBSCRIPTIONS = ("sns:GetSubscriptionAttributes", "sns:SetSubscriptionAttributes", "sns:Unsubscribe")
_TO_SEND = ("kms:GenerateDataKey", "kms:Decrypt")
_TO_TAKE = ("kms:Decrypt",)


def write(role: str, wanted: Sequence[Place], names: Names, options: Options) -> str:
    """The policy of a role on these places.

    Raises:
        ConfigurationError: if there is no such role.
    """
    if role not in ROLES:
        raise ConfigurationError(f"{role!r} is no role: there are {', '.join(ROLES)}")
    topics = [each for each in wanted if isinstance(each, Topic)]
    subscriptions = [each for each in wanted if isinstance(each, Subscription)]
    live = [names.queue(each).arn for each in subscriptions]
    letters = [names.queue(DeadLetters(each)).arn for each in subscriptions]
    sns = [names.topic(each).arn for each in topics] if options.fan_out else []
    topic_queues = [] if options.fan_out else [names.queue(each).arn for each in topics]
    if role == "publisher":
        statements = [
            _allow("Publish", ("sns:Publish",), sns),
            _allow("Send", _SEND, topic_queues),
            *_keys(_TO_SEND, topics),
        ]
    elif role == "consumer":
        statements = [
            _allow("Consume", _TAKE, live),
            _allow("DeadLetter", _SEND, letters),
            *_keys(_TO_SEND, subscriptions),
        ]
    elif role == "operator":
        statements = [
            _allow("DeadLetters", _TAKE, letters),
            _allow("Move", _MOVE, letters),
            _allow("Replay", _SEND, live),
            *_keys(_TO_SEND, subscriptions),
        ]
    else:
        statements = [
            _allow("Topics", _TOPICS, sns),
            _allow("Subscriptions", _SUBSCRIPTIONS, [f"{arn}:*" for arn in sns]),
            _allow("Queues", _QUEUES, dict.fromkeys([*topic_queues, *live, *letters])),
            _allow("ListQueues", ("sqs:ListQueues",), ["*"] if sns else []),
        ]
    document = {"Version": "2012-10-17", "Statement": [each for each in statements if each is not None]}
    return json.dumps(document, indent=2)


def _allow(sid: str, actions: Iterable[str], resources: Iterable[str]) -> dict[str, Any] | None:
    listed = list(resources)
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": listed} if listed else None


def _keys(actions: Iterable[str], places: Sequence[Place]) -> Iterable[dict[str, Any] | None]:
    """The use of the KMS keys that the places name. An alias is no resource: it is a condition."""
    keys = {key for each in places if (key := _key(each)) is not None}
    arns = sorted(key for key in keys if key.startswith("arn:"))
    yield _allow("Keys", actions, arns)
    aliases = sorted(key for key in keys if key.startswith("alias/") and not key.startswith("alias/aws/"))
    if aliases:
        condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": aliases}}
        yield {"Sid": "Aliases", "Effect": "Allow", "Action": list(actions), "Resource": ["*"], "Condition": condition}


def _key(place: Place) -> str | None:
    of_topic = place.native if isinstance(place, Topic) else place.topic.native
    key = place.native.get("kms_key", of_topic.get("kms_key"))
    return None if key is None else str(key)
