"""Events on their way out and in: the JSON that Event Grid takes, and what the library itself keeps beside an event.

Event Grid has no place beside the JSON of an event. What the portable layer writes there goes as extensions:
`cebtarget`, the one subscription of a replay, and `cebdeadletter`, why and when a delivery was given up. They are taken
out again on the way in. Event Grid takes CloudEvents only: what is none is wrapped in one, with its own attributes as
JSON in the extension `cebmessage`, and unwrapped on the way in.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping

import msgspec

from cloudevents_bridge.bindings import STRUCTURED
from cloudevents_bridge.driver import DEAD_LETTER, TARGET
from cloudevents_bridge.errors import DecodeError, InvalidArgumentError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.formats.json import CONTENT_TYPE

MAX_NAME = 20
"""Characters of an extension's name."""
MARKS = {TARGET: "cebtarget", DEAD_LETTER: "cebdeadletter"}
MESSAGE = "cebmessage"
MESSAGE_TYPE = "cloudevents-bridge.message"
MESSAGE_SOURCE = "/cloudevents-bridge"
_OURS = frozenset({*MARKS.values(), MESSAGE})
_MAYBE = b'"ceb'
_USUAL = {"content-type": CONTENT_TYPE}


class Wire:
    """The binding: an event as JSON, and no attributes but the content type."""

    def encode(self, event: CloudEvent) -> tuple[Mapping[str, str], bytes]:
        """Raises:
        InvalidArgumentError: if Event Grid would refuse an extension's name; it names it.
        """
        for name in event.extensions:
            if len(name) > MAX_NAME:
                raise InvalidArgumentError(
                    f"extension {name!r} has a name of {len(name)} characters and Event Grid takes {MAX_NAME}: "
                    "shorten it, or put it into the data"
                )
            if name in _OURS:
                raise InvalidArgumentError(f"extension {name!r} is kept by this library: choose another name")
        return STRUCTURED.encode(event)

    def decode(self, attributes: Mapping[str, str], body: bytes) -> CloudEvent:
        return STRUCTURED.decode(attributes, body)


WIRE = Wire()


def pack(body: bytes, attributes: Mapping[str, str]) -> bytes:
    """The JSON of an event as it is sent."""
    if attributes is STRUCTURED.structured:  # what `Wire.encode` made: nearly always
        return body
    marks = {MARKS[name]: value for name, value in attributes.items() if name in MARKS}
    beside = {name: value for name, value in attributes.items() if name not in MARKS}
    if beside != _USUAL or not _is_event(body):
        body = _wrapped(body, beside)
    if not marks:
        return body
    return body.rstrip()[:-1] + b"," + msgspec.json.encode(marks)[1:]


def unpack(raw: bytes) -> tuple[Mapping[str, str], bytes]:
    """The attributes and the body of an event as it came."""
    if _MAYBE not in raw:
        return STRUCTURED.structured, raw
    try:
        members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return STRUCTURED.structured, raw
    if _OURS.isdisjoint(members):
        return STRUCTURED.structured, raw
    marks = {name: _text(members.pop(mark)) for name, mark in MARKS.items() if mark in members}
    if MESSAGE in members:
        try:
            beside = msgspec.json.decode(_text(members[MESSAGE]), type=dict[str, str])
            body = base64.b64decode(_text(members["data_base64"]), validate=True)
        except (msgspec.DecodeError, binascii.Error, KeyError):
            pass  # not ours after all: it stays as it came
        else:
            return {**beside, **marks}, body
    return {**_USUAL, **marks}, msgspec.json.encode(members)


def _is_event(body: bytes) -> bool:
    """Whether Event Grid takes it, and we read it back as what it is."""
    try:
        event = STRUCTURED.decode(_USUAL, body)
    except DecodeError:
        return False
    return all(len(name) <= MAX_NAME and name not in _OURS for name in event.extensions)


def _wrapped(body: bytes, attributes: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": uuid.uuid4().hex,
            "source": MESSAGE_SOURCE,
            "type": MESSAGE_TYPE,
            MESSAGE: msgspec.json.encode(attributes).decode(),
            "data_base64": base64.b64encode(body).decode(),
        }
    )


def _text(raw: msgspec.Raw) -> str:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, str) else str(value)
