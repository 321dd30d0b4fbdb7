"""What topics, queues and subscriptions are to be like, as attributes that AWS knows. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from cloudevents_bridge.driver import Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_aws.names import Address, fifo
from cloudevents_bridge_aws.options import Options
from cloudevents_bridge_aws.subscriber import TOTAL

TAG = "cloudevents-bridge"
"""Tag of what the topology made: nothing else is ever deleted."""
SID = "CloudEventsBridge"
"""Id of our statement in a queue's policy: others are left alone."""
RETENTION = (60, 1_209_600)
_MOST_RECEIVES = 1000


def lease(subscription: Subscription) -> int:
    """The visibility timeout.

    Raises:
        ConfigurationError: if SQS has none so long.
    """
    if subscription.lease > TOTAL:
        raise ConfigurationError(
            f"lease of {place_name(subscription)} is {subscription.lease:g} s: SQS has {TOTAL} s (12 hours) at most"
        )
    return max(math.ceil(subscription.lease), 1)


def receives(subscription: Subscription) -> int:
    """Receives after which SQS itself moves a message to the dead letters. Far above what the library allows (a run
    that killed the process counts from three times `max_attempts`), for SQS cannot tell a failure from a restart.
    """
    return min(10 * subscription.max_attempts + 50, _MOST_RECEIVES)


def topic(place: Topic) -> dict[str, str]:
    """The attributes of an SNS topic."""
    wanted = {"KmsMasterKeyId": str(place.native.get("kms_key", ""))}
    return {"FifoTopic": "true", "ContentBasedDeduplication": "false", **wanted} if fifo(place) else wanted


def queue(place: Subscription, topic: Address | None, dead_letters: Address, options: Options) -> dict[str, str]:
    """The attributes of the queue of a subscription. `topic`: who may send to it; None: it has no topic."""
    redrive = {"deadLetterTargetArn": dead_letters.arn, "maxReceiveCount": receives(place)}
    return {
        **_common(place, options),
        "VisibilityTimeout": str(lease(place)),
        "MessageRetentionPeriod": str(min(max(math.ceil(place.retention), RETENTION[0]), RETENTION[1])),
        "RedrivePolicy": _text(redrive),
        **({} if topic is None else {"Policy": _text(_POLICY)}),
    }


def dead_letters(place: Subscription, source: Address, topic: Address | None, options: Options) -> dict[str, str]:
    """The attributes of the queue of its dead letters."""
    allow = {"redrivePermission": "byQueue", "sourceQueueArns": [source.arn]}
    return {
        **_common(place, options),
        "VisibilityTimeout": str(lease(place)),
        "MessageRetentionPeriod": str(RETENTION[1]),
        "RedriveAllowPolicy": _text(allow),
        **({} if topic is None else {"Policy": _text(_POLICY)}),
    }


def subscription(dead_letters: Address) -> dict[str, str]:
    """The attributes of the subscription of a queue to its topic."""
    return {"RawMessageDelivery": "true", "RedrivePolicy": _text({"deadLetterTargetArn": dead_letters.arn})}


def allowing(policy: str, queue: Address, topic: Address) -> str:
    """The policy of a queue with our statement in it: only this topic may send to it."""
    document: dict[str, Any] = json.loads(policy) if policy else dict(_POLICY)
    statements = document.get("Statement", [])
    others = [each for each in _listed(statements) if each.get("Sid") != SID]
    return _text({**document, "Statement": [*others, statement(queue, topic)]})


def allows(policy: str, queue: Address, topic: Address) -> bool:
    """Whether our statement is in the policy."""
    return bool(policy) and statement(queue, topic) in _listed(json.loads(policy).get("Statement", []))


def statement(queue: Address, topic: Address) -> dict[str, Any]:
    return {
        "Sid": SID,
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue.arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic.arn}},
    }


def same(name: str, have: str, want: str) -> bool:
    """Whether two values of an attribute say the same."""
    if name in ("RedrivePolicy", "RedriveAllowPolicy"):
        return bool(have) and _plain(json.loads(have)) == _plain(json.loads(want))
    return have == want


def tags(place: Topic | Subscription, options: Options) -> dict[str, str]:
    name = place_name(place).partition(" ")[2]
    return {**options.tags, **place.native.get("tags", {}), TAG: name}


_POLICY: Mapping[str, Any] = {"Version": "2012-10-17", "Statement": []}


def _common(place: Subscription, options: Options) -> dict[str, str]:
    key = str(place.native.get("kms_key", place.topic.native.get("kms_key", "")))
    encryption = {"KmsMasterKeyId": key} if key else {"KmsMasterKeyId": "", "SqsManagedSseEnabled": "true"}
    kind = {"FifoQueue": "true", "ContentBasedDeduplication": "false"} if fifo(place.topic) else {}
    return {**kind, **encryption, "MaximumMessageSize": str(options.queue_bytes)}


def _listed(statements: Any) -> list[dict[str, Any]]:
    return statements if isinstance(statements, list) else [statements]


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, int) else value for name, value in document.items()}


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))
