"""A message that is sent by one HTTP request: the body is the data, the headers are properties."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from proton import Message as ProtonMessage
from proton import symbol, timestamp

from cloudevents_bridge_contract.emulators.servicebus.message import Message

_PLAIN = {"accept", "accept-encoding", "authorization", "brokerproperties", "connection", "content-length",
          "content-type", "host", "user-agent"}  # fmt: skip
_PROPERTIES = {
    "MessageId": "id",
    "CorrelationId": "correlation_id",
    "SessionId": "group_id",
    "Label": "subject",
    "To": "address",
    "ReplyTo": "reply_to",
    "TimeToLive": "ttl",
}


def message(headers: Mapping[str, str], body: bytes) -> Message:
    """Raises ValueError: the broker's properties are no JSON object, or a value of theirs is none of its kind."""
    headers = {name.lower(): value for name, value in headers.items()}
    broker: dict[str, Any] = json.loads(headers.get("brokerproperties") or "{}")
    built = ProtonMessage(body=body, inferred=True)
    built.content_type = headers.get("content-type", "")
    for name, attribute in _PROPERTIES.items():
        if name in broker:
            setattr(built, attribute, broker[name])
    if at := broker.get("ScheduledEnqueueTimeUtc"):
        moment = parsedate_to_datetime(at).replace(tzinfo=UTC).timestamp()
        built.annotations = {symbol("x-opt-scheduled-enqueue-time"): timestamp(int(moment * 1000))}
    built.properties = {name: _value(text) for name, text in headers.items() if name not in _PLAIN}
    return Message.parse(built.encode())


def _value(text: str) -> Any:
    """Strings stand in quotes; numbers and booleans do not."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, (str, int, float, bool)) else text
