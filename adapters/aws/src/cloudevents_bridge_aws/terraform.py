"""The topology as Terraform, for the provider hashicorp/aws."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge_aws import settings
from cloudevents_bridge_aws.names import Address, Names, fifo
from cloudevents_bridge_aws.options import SNS_BYTES, Options

Place = Topic | Subscription
_HEAD = """terraform {{
  required_providers {{
    aws = {{
      source  = "hashicorp/aws"
      version = {version}
    }}
  }}
}}

provider "aws" {{
  region = {region}
}}
"""


class _Expression(str):
    """Terraform's own words, not to be quoted."""

    __slots__ = ()


def write(wanted: Sequence[Place], names: Names, options: Options) -> str:
    """The text of a `main.tf`."""
    # The first provider that knows queues of 1 MiB; earlier ones refuse them.
    version = ">= 6.8" if options.queue_bytes > SNS_BYTES else ">= 5.0"
    parts = [_HEAD.format(region=_value(options.region), version=_value(version))]
    for place in wanted:
        if isinstance(place, Topic):
            if options.fan_out:
                parts.append(_topic(place, names.topic(place), options))
        else:
            parts += _subscription(place, names, options)
    return "\n".join(parts)


def _topic(topic: Topic, address: Address, options: Options) -> str:
    fields: dict[str, Any] = {"name": address.name}
    if fifo(topic):
        fields |= {"fifo_topic": True, "content_based_deduplication": False}
    if key := topic.native.get("kms_key"):
        fields["kms_master_key_id"] = key
    return _resource("aws_sns_topic", topic.name, {**fields, "tags": settings.tags(topic, options)})


def _subscription(subscription: Subscription, names: Names, options: Options) -> list[str]:
    queue, letters = names.queue(subscription), names.queue(DeadLetters(subscription))
    topic = names.topic(subscription.topic) if options.fan_out else None
    label = f"{subscription.topic.name}_{subscription.name}"
    live = settings.queue(subscription, topic, letters, options)
    dead = settings.dead_letters(subscription, queue, topic, options)
    redrive = _Expression(
        f"jsonencode({{ deadLetterTargetArn = aws_sqs_queue.{label}_dlq.arn, "
        f"maxReceiveCount = {settings.receives(subscription)} }})"
    )
    tags = settings.tags(subscription, options)
    parts = [
        _resource("aws_sqs_queue", f"{label}_dlq", {**_queue(letters, dead), "tags": tags}),
        _resource("aws_sqs_queue", label, {**_queue(queue, live), "redrive_policy": redrive, "tags": tags}),
        _resource(
            "aws_sqs_queue_redrive_allow_policy",
            f"{label}_dlq",
            {
                "queue_url": _Expression(f"aws_sqs_queue.{label}_dlq.id"),
                "redrive_allow_policy": _Expression(
                    f'jsonencode({{ redrivePermission = "byQueue", sourceQueueArns = [aws_sqs_queue.{label}.arn] }})'
                ),
            },
        ),
    ]
    if topic is None:
        return parts
    to_dlq = _Expression(f"jsonencode({{ deadLetterTargetArn = aws_sqs_queue.{label}_dlq.arn }})")
    parts += [
        _resource(
            "aws_sqs_queue_policy",
            each,
            {
                "queue_url": _Expression(f"aws_sqs_queue.{each}.id"),
                "policy": settings.allowing("", address, topic),
            },
        )
        for each, address in ((label, queue), (f"{label}_dlq", letters))
    ]
    parts.append(
        _resource(
            "aws_sns_topic_subscription",
            label,
            {
                "topic_arn": _Expression(f"aws_sns_topic.{subscription.topic.name}.arn"),
                "protocol": "sqs",
                "endpoint": _Expression(f"aws_sqs_queue.{label}.arn"),
                "raw_message_delivery": True,
                "redrive_policy": to_dlq,
            },
        )
    )
    return parts


def _queue(address: Address, attributes: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": address.name,
        "visibility_timeout_seconds": int(attributes["VisibilityTimeout"]),
        "message_retention_seconds": int(attributes["MessageRetentionPeriod"]),
        "max_message_size": int(attributes["MaximumMessageSize"]),
    }
    if attributes["KmsMasterKeyId"]:
        fields["kms_master_key_id"] = attributes["KmsMasterKeyId"]
    else:
        fields["sqs_managed_sse_enabled"] = True
    if "FifoQueue" in attributes:
        fields |= {"fifo_queue": True, "content_based_deduplication": False}
    return fields


def _resource(kind: str, label: str, fields: Mapping[str, Any]) -> str:
    lines = [f'resource "{kind}" "{label}" {{']
    lines += [f"  {name} = {_value(value)}" for name, value in fields.items()]
    return "\n".join([*lines, "}", ""])


def _value(value: Any) -> str:
    if isinstance(value, _Expression):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_value(name)} = {_value(each)}" for name, each in value.items()) + " }"
    return json.dumps(value).replace("${", "$${").replace("%{", "%%{")
