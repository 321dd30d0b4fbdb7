"""SNS's envelope: unwrapped when asked for, of one topic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_aws import topic_arn

from cloudevents_bridge import CloudEvent, DecodeError, RawMessage
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_aws import sns_envelope, wire

EVENT = CloudEvent(type="com.example.made", source="/shop", id="1", data={"id": 7})


def _envelope(mode: str = "structured", **changes: Any) -> RawMessage:
    attributes, body = wire.WIRES[mode].encode(EVENT)
    text, native = wire.pack(body, attributes)
    envelope = {
        "Type": "Notification",
        "MessageId": "m",
        "TopicArn": topic_arn("orders"),
        "Message": text,
        "Timestamp": "2026-01-01T00:00:00.000Z",
        "MessageAttributes": {name: {"Type": "String", "Value": each["StringValue"]} for name, each in native.items()},
    }
    return RawMessage(json.dumps({**envelope, **changes}).encode(), {}, None)


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_event_in_an_envelope(mode: str) -> None:
    assert sns_envelope(topic_arn=topic_arn("orders"))(_envelope(mode)) == EVENT


def test_envelope_of_another_topic_is_refused() -> None:
    with pytest.raises(DecodeError, match="theirs"):
        sns_envelope(topic_arn=topic_arn("orders"))(_envelope(TopicArn=topic_arn("theirs")))


def test_other_messages_are_left_to_others() -> None:
    decode = sns_envelope(topic_arn=topic_arn("orders"))
    assert decode(_envelope(Type="SubscriptionConfirmation")) is None
    assert decode(RawMessage(b"hello", {}, None)) is None
    assert decode(RawMessage(b'{"Type": "Notification"}', {}, None)) is None


@pytest.mark.parametrize("wrong", ["orders", "", "arn:aws:sqs:eu-west-1:123456789012:orders"])
def test_topic_has_to_be_named_by_its_arn(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="ARN"):
        sns_envelope(topic_arn=wrong)
