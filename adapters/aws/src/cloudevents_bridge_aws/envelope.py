"""The envelope that SNS puts around a message where a subscription is not raw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cloudevents_bridge.errors import ConfigurationError, DecodeError

if TYPE_CHECKING:
    from cloudevents_bridge.delivery import RawMessage
    from cloudevents_bridge.event import CloudEvent


class _Envelope(msgspec.Struct):
    kind: str = msgspec.field(name="Type")
    topic: str = msgspec.field(name="TopicArn")
    message: str = msgspec.field(name="Message")
    attributes: dict[str, dict[str, str]] = msgspec.field(name="MessageAttributes", default_factory=dict)


def sns_envelope(*, topic_arn: str) -> Callable[[RawMessage], CloudEvent | None]:
    """A decoder for `foreign=`: the event in the envelope of one topic, for subscriptions without raw delivery.

    Args:
        topic_arn: the topic. An envelope that names another is refused, for whoever may write to the queue could
            write that, too.

    Raises:
        ConfigurationError: if it is no ARN of a topic.
    """
    if not topic_arn.startswith("arn:") or topic_arn.split(":")[2:3] != ["sns"]:
        raise ConfigurationError(f"{topic_arn!r} is no ARN of an SNS topic: write arn:aws:sns:REGION:ACCOUNT:NAME")

    def decode(raw: RawMessage) -> CloudEvent | None:
        from cloudevents_bridge import bindings
        from cloudevents_bridge_aws import wire

        try:
            envelope = msgspec.json.decode(raw.body, type=_Envelope)
        except msgspec.DecodeError:
            return None
        if envelope.kind != "Notification":
            return None
        if envelope.topic != topic_arn:
            raise DecodeError(f"the SNS envelope is of {envelope.topic}, and only {topic_arn} is expected")
        native: Mapping[str, Mapping[str, Any]] = {
            name: {"DataType": each.get("Type", "String"), "StringValue": each.get("Value", "")}
            for name, each in envelope.attributes.items()
        }
        body, attributes = wire.unpack(envelope.message, native)
        return bindings.STRUCTURED.decode(attributes, body)

    return decode
