"""Messages on their way out and in: the AMQP binding, the limits of Service Bus, and what the library keeps beside.

Keys and values of received properties are bytes: they are decoded here, once, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import random
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import AmqpMessageBodyType

from cloudevents_bridge.bindings import AMQP, Wire
from cloudevents_bridge.driver import DEAD_LETTER, Outbound
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge_azure.servicebus import encoding

WIRES: Mapping[str, Wire] = {"binary": AMQP, "structured": dataclasses.replace(AMQP, mode="structured")}
CONTENT_TYPE = "content-type"
MAX_ID = 128
"""Characters of a message id and of a session id, at most."""
MAX_NAME = 32_767
MAX_REASON = 4096
"""Characters of the reason, and of the description, of a dead letter, at most."""
_REASON, _DESCRIPTION = "DeadLetterReason", "DeadLetterErrorDescription"
_OURS = "ceb-dead-letter"
"""What `DeadLetterReason` begins with where the library has dead-lettered. The rest is the begin of what the
description goes on with, where that is too long for one of them."""
_HASHED = "ceb-key-"
_NONE = "ceb-none-"
"""Start of the session ids of events without an ordering key, where a session must be named."""
_NONES = 8
"""How many of those there are: as many consumers can share such events."""
_LONGEST_TTL = (1 << 32) - 1  # milliseconds


def native(message: Outbound, session: str | None = None, *, now: float) -> ServiceBusMessage:
    """The native message.

    Args:
        session: its session id.
        now: when it is sent; seconds since 1970.
    """
    properties, fields = _parts(message, session, now)
    made = ServiceBusMessage(
        message.body,
        application_properties=dict[str | bytes, Any](properties),
        content_type=fields.content_type,
        message_id=fields.id,
        session_id=session,
    )
    made.raw_amqp_message.header.time_to_live = fields.lives  # the SDK's own property cuts off to whole seconds
    if fields.due is not None:
        made.scheduled_enqueue_time_utc = datetime.fromtimestamp(fields.due / 1000, UTC)
    return made


def encode(message: Outbound, session: str | None = None, *, now: float) -> tuple[str, bytes]:
    """The id of the native message, and its bytes.

    Args:
        session: its session id.
        now: when it is sent; seconds since 1970.
    """
    properties, fields = _parts(message, session, now)
    return fields.id, encoding.message(message.body, properties, fields, now=int(now * 1000))


def size(message: Outbound, session: str | None = None) -> int:
    """Bytes that it takes in a batch.

    Args:
        session: its session id.

    Raises:
        InvalidArgumentError: if Service Bus would refuse an attribute; it names it.
    """
    attributes = message.attributes
    texts = [*attributes, *attributes.values()]
    if max(map(len, texts), default=0) > MAX_NAME:
        _refuse(attributes)
    fields = _fields(message, session, 0.0)
    properties = encoding.texts(texts)
    if fields.content_type is not None:
        properties -= encoding.texts([CONTENT_TYPE, fields.content_type])
    return encoding.size(len(message.body), properties, fields)


def _parts(message: Outbound, session: str | None, now: float) -> tuple[Mapping[str, str], encoding.Fields]:
    """The application properties of a message, and the rest."""
    attributes = message.attributes
    if CONTENT_TYPE in attributes:
        attributes = {name: value for name, value in attributes.items() if name != CONTENT_TYPE}
    return attributes, _fields(message, session, now)


def _fields(message: Outbound, session: str | None, now: float) -> encoding.Fields:
    due = int((now + message.delay) * 1000) if message.delay > 0 else None
    return encoding.Fields(_id(message.dedup), message.attributes.get(CONTENT_TYPE), session, _ttl(message.ttl), due)


def _refuse(attributes: Mapping[str, str]) -> None:
    for name, value in attributes.items():
        if len(name) > MAX_NAME or len(value) > MAX_NAME:
            raise InvalidArgumentError(
                f"attribute {name[:60]!r} has {max(len(name), len(value))} characters, and Service Bus "
                f"takes {MAX_NAME}: put it into the data, or use mode=structured"
            )


def session_of(key: str | None) -> str:
    """The session id of an ordering key. One that is too long, or could be taken for ours, is hashed. Without a key it
    is one of a few.
    """
    if key is None:
        return f"{_NONE}{random.randrange(_NONES)}"  # noqa: S311 - it spreads, and hides nothing
    if 0 < len(key) <= MAX_ID and not key.startswith((_HASHED, _NONE)):
        return key
    return _HASHED + hashlib.sha256(key.encode()).hexdigest()


def key_of(session: str) -> str | None:
    """The ordering key of a session."""
    return None if session.startswith(_NONE) else session


def reasons(text: str) -> tuple[str, str]:
    """The reason and the description in which the text of a dead letter travels. Beyond the limits it is cut."""
    if len(text) <= MAX_REASON:
        return _OURS, text
    head = MAX_REASON - len(_OURS) - 1
    return f"{_OURS}:{text[:head]}", text[head : head + MAX_REASON]


def decode(received: Any, *, letter: bool) -> tuple[bytes, dict[str, str]]:
    """The body and the attributes of a native message.

    Args:
        letter: it comes from a dead-letter queue.
    """
    raw = received.raw_amqp_message  # the properties of the message itself look all of it through, each time
    attributes: dict[str, str] = {}
    reason = description = None
    for key, value in (raw.application_properties or {}).items():
        name = _name(key)
        if name == _REASON:
            reason = _text(name, value)
        elif name == _DESCRIPTION:
            description = _text(name, value)
        elif value is not None:
            attributes[name] = _text(name, value)
    if raw.properties is not None and raw.properties.content_type is not None:
        attributes[CONTENT_TYPE] = _text(CONTENT_TYPE, raw.properties.content_type)
    if letter and (reason or description):
        attributes[DEAD_LETTER] = _said(reason or "", description or "")
    return _body(raw), attributes


def attempt(received: Any) -> int:
    """Which delivery it is; 1 = first."""
    header = received.raw_amqp_message.header
    return 1 if header is None else (header.delivery_count or 0) + 1


@lru_cache(maxsize=256)
def _name(key: bytes | str) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _said(reason: str, description: str) -> str:
    if reason == _OURS:
        return description
    if reason.startswith(f"{_OURS}:"):
        return reason[len(_OURS) + 1 :] + description
    return f"{reason}: {description}" if reason and description else reason or description


def _text(name: str, value: Any) -> str:
    """A property as text, in the canonical form of its CloudEvents type."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and name.endswith("time"):  # an AMQP timestamp, which the SDK gives as milliseconds
        moment = datetime.fromtimestamp(value / 1000, UTC)
        return moment.isoformat(timespec="milliseconds" if value % 1000 else "seconds").replace("+00:00", "Z")
    return str(value)


def _body(raw: Any) -> bytes:
    kind, value = raw.body_type, raw.body
    if kind is AmqpMessageBodyType.DATA:
        return b"".join(value)
    if kind is AmqpMessageBodyType.VALUE and isinstance(value, (bytes, str)):
        return value if isinstance(value, bytes) else value.encode()
    return b"" if value is None else repr(value).encode()  # no CloudEvent: for the decode failure to show


def _ttl(seconds: float | None) -> int | None:
    """Milliseconds. What is longer than AMQP can say outlives every retention, and is not said."""
    milliseconds = 0 if seconds is None else max(1, math.floor(seconds * 1000))
    return milliseconds if 0 < milliseconds <= _LONGEST_TTL else None


def _id(dedup: str | None) -> str:
    if dedup is None:
        return uuid.uuid4().hex
    return dedup if 0 < len(dedup) <= MAX_ID else hashlib.sha256(dedup.encode()).hexdigest()
