"""The binding: how an event is a message of SNS and SQS.

Body: the event in the JSON format. Attributes: `content-type`. In binary mode the body is the event's data, and each
CloudEvents attribute an attribute with the prefix `ce-`.

SQS takes text of certain characters only, 10 attributes, and no empty value. What does not fit goes in two more
attributes: `ceb-body: base64` says that the body is base64, and `ceb-more` holds attributes as a JSON object.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from cloudevents_bridge import bindings
from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.formats.json import CONTENT_TYPE

MAX_ATTRIBUTES = 10
"""More than these are dropped by SNS on their way to a queue, and refused by SQS."""
BODY = "ceb-body"
MORE = "ceb-more"
_EMPTY = "="  # the base64 of nothing would be an empty body, which SQS refuses
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # what is taken takes 6 ms to compile
_CONTROL = bytes({*range(0x20)} - {*b"\t\n\r"})
_NAME = re.compile(r"(?!(?i:aws|amazon)\.)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_USUAL: Mapping[str, str] = MappingProxyType({"content-type": CONTENT_TYPE})
_TYPE = "String"

Attributes = Mapping[str, Mapping[str, Any]]
"""Message attributes as boto3 has them."""


def _string(value: str) -> Mapping[str, str]:
    return {"DataType": _TYPE, "StringValue": value}


_USUAL_NATIVE: Attributes = {name: _string(value) for name, value in _USUAL.items()}
_USUAL_SIZE = sum(len(name) + len(_TYPE) + len(value) for name, value in _USUAL.items())


class Binary:
    """Binary mode. An event that does not fit into the attributes of a message is written structured."""

    def encode(self, event: CloudEvent) -> tuple[Mapping[str, str], bytes]:
        attributes, body = bindings.SQS.encode(event)
        # Two are left free, for a body that is base64 and for the reason of a dead letter.
        if len(attributes) > MAX_ATTRIBUTES - 2 or not all(attributes.values()):
            return bindings.STRUCTURED.encode(event)
        return attributes, body

    def decode(self, attributes: Mapping[str, str], body: bytes) -> CloudEvent:
        return bindings.STRUCTURED.decode(attributes, body)


WIRES: Mapping[str, Wire] = {"structured": bindings.STRUCTURED, "binary": Binary()}


def pack(body: bytes, attributes: Mapping[str, str]) -> tuple[str, Attributes]:
    """The native body and attributes."""
    text = _text(body)
    if text is not None and attributes == _USUAL:
        return text, _USUAL_NATIVE
    if text is None:
        text, attributes = base64.b64encode(body).decode() or _EMPTY, {**attributes, BODY: "base64"}
    return text, {name: _string(value) for name, value in _fitted(attributes).items()}


def size(body: bytes, attributes: Mapping[str, str]) -> int:
    """Bytes of the message as SNS and SQS count them: body, and name, type and value of each attribute."""
    if attributes == _USUAL and _text(body) is not None:
        return len(body) + _USUAL_SIZE
    text, native = pack(body, attributes)
    return len(text.encode()) + sum(
        len(name.encode()) + len(_TYPE) + len(value["StringValue"].encode()) for name, value in native.items()
    )


def unpack(text: str, native: Attributes) -> tuple[bytes, Mapping[str, str]]:
    """The body and the attributes of a native message, also of one that is not ours."""
    if native == _USUAL_NATIVE:
        return text.encode("utf-8", "surrogatepass"), _USUAL
    attributes = {name: _value(value) for name, value in native.items()}
    body = text.encode("utf-8", "surrogatepass")
    if MORE in attributes or BODY in attributes:
        try:
            if MORE in attributes:
                more = msgspec.json.decode(attributes[MORE], type=dict[str, str])
                attributes = {name: value for name, value in attributes.items() if name != MORE} | more
            if attributes.get(BODY) == "base64":
                body = b"" if text == _EMPTY else base64.b64decode(text, validate=True)
                del attributes[BODY]
        except (msgspec.DecodeError, binascii.Error):
            pass  # not ours after all: it stays as it came
    return body, attributes


def _text(body: bytes) -> str | None:
    """The body as text that SQS takes; None: it is none."""
    if not body or body.translate(None, _CONTROL) != body:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return text if body.isascii() or not _REFUSED.search(text) else None


def _fitted(attributes: Mapping[str, str]) -> Mapping[str, str]:
    """The attributes that SQS takes as they are, and the others in one more."""
    fits = {name: value for name, value in attributes.items() if value and _takes(name) and not _REFUSED.search(value)}
    if len(fits) == len(attributes) and len(fits) <= MAX_ATTRIBUTES and MORE not in fits:
        return fits
    kept = [name for name in fits if name not in (MORE, BODY)][: MAX_ATTRIBUTES - 2]
    kept += [BODY] if BODY in fits else []
    more = {name: value for name, value in attributes.items() if name not in kept}
    return {**{name: fits[name] for name in kept}, MORE: _ascii(more)}


def _takes(name: str) -> bool:
    return len(name) <= 256 and _NAME.fullmatch(name) is not None


def _ascii(more: Mapping[str, str]) -> str:
    import json  # escapes whatever is not ASCII, which msgspec does not

    return json.dumps(more, separators=(",", ":"))


def _value(value: Mapping[str, Any]) -> str:
    """An attribute's value as text: that of a binary one where it is text, else base64."""
    if "BinaryValue" not in value:
        return str(value.get("StringValue", ""))
    raw: bytes = value["BinaryValue"]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode()
