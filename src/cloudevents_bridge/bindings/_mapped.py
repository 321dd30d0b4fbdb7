"""The attribute-mapped form (binary mode): attributes beside the message, the data as its body.

One codec, and a few parameters for each protocol. Source: the CloudEvents 1.0.2 bindings for HTTP, AMQP and Kafka;
Google's for Pub/Sub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from cloudevents_bridge import _attributes as rules
from cloudevents_bridge._data import JSON
from cloudevents_bridge._media import media_type
from cloudevents_bridge._members import ATTRIBUTE_FIELDS, NO_DATA, Members, State
from cloudevents_bridge._strings import short
from cloudevents_bridge.errors import DecodeError, InvalidArgumentError
from cloudevents_bridge.event import CloudEvent, make_event
from cloudevents_bridge.formats import json

_MODE = "application/cloudevents"
_ESCAPED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_TO_ESCAPE = re.compile(r"[^!#$&-~]")
_BACKSLASHED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A layout of events in attributes and a body; reads both modes.

    Attributes:
        mode: which mode it writes. A reader takes a message that names no content type for structured where that is
            what is written here, and for binary otherwise.
        prefix: stands before the name of each CloudEvents attribute.
        other_prefixes: are also read.
        content_type: the attribute that carries `datacontenttype`, or the format in structured mode.
        other_content_types: are also read.
        fold_case: attribute names are case-insensitive on read.
        percent: values are percent-encoded, and unquoted on read (HTTP binding, section 3.1.3.2).
        structured: the attributes of a message in structured mode, the same object for each.
    """

    prefix: str
    mode: Literal["binary", "structured"] = "binary"
    other_prefixes: tuple[str, ...] = ()
    content_type: str = "content-type"
    other_content_types: tuple[str, ...] = ()
    fold_case: bool = False
    percent: bool = False
    structured: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "structured", MappingProxyType({self.content_type: json.CONTENT_TYPE}))

    def encode(self, event: CloudEvent) -> tuple[Mapping[str, str], bytes]:
        """The attributes and the body of the native message."""
        if self.mode == "structured":
            return self.structured, event.to_json()
        members = event._state.members
        media = members.datacontenttype
        # an event whose data is an event would read back as that one
        if media is not None and media[:23].lower() == _MODE:
            return self.structured, event.to_json()
        prefix = self.prefix
        attributes: dict[str, str] = {}
        for name in ATTRIBUTE_FIELDS:
            value = getattr(members, name)
            if value is not None and name != "datacontenttype":
                attributes[prefix + name] = value if value.__class__ is str else rules.canonical(value)
        for name, value in event._state.extra.items():
            attributes[prefix + name] = rules.canonical(value)
        if self.percent:
            attributes = {name: _escape(text) for name, text in attributes.items()}
        if media is None and members.data is not NO_DATA:
            media = JSON  # implied by the JSON format only: said here, as its section 3.1.2 asks
        if media is not None:
            attributes[self.content_type] = media
        return attributes, event.data_bytes or b""

    def decode(self, attributes: Mapping[str, Any], body: bytes) -> CloudEvent:
        """The event in a native message. Raises `DecodeError` and nothing else."""
        if self.fold_case:
            attributes = {str(name).lower(): value for name, value in attributes.items()}
        elif attributes.get(self.content_type) == json.CONTENT_TYPE:  # nearly always, where structured is written
            return CloudEvent.from_json(body)
        content_type = self._content_type(attributes)
        if content_type is not None and content_type[:23].lower() == _MODE:
            return _decode_structured(content_type, body)
        found = self._binary_attributes(attributes)
        if not found:
            if content_type is None and self.mode == "structured":
                return json.decode(body)
            raise DecodeError(
                f"not a CloudEvent: the message has neither {self.content_type}: {json.CONTENT_TYPE} "
                f"nor {self.prefix}specversion"
            )
        if content_type is not None:
            found["datacontenttype"] = content_type
        try:
            members, extra = rules.check_all(found)
        except InvalidArgumentError as exc:
            raise DecodeError(f"not a CloudEvent: {exc}") from None
        return make_event(CloudEvent, State(Members(**members), extra, _body(body, members.get("datacontenttype"))))

    def _content_type(self, attributes: Mapping[str, Any]) -> str | None:
        for name in (self.content_type, *self.other_content_types):
            value = attributes.get(name)
            if value is not None and value != "":
                if not isinstance(value, str):
                    raise DecodeError(f"not a CloudEvent: {name} is {short(value)}, which is no string")
                return value.strip(" \t")
        return None

    def _binary_attributes(self, attributes: Mapping[Any, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for prefix in (*self.other_prefixes, self.prefix):
            for name, value in attributes.items():
                if isinstance(name, str) and name.startswith(prefix):
                    short = name[len(prefix) :]
                    found[short] = _unescape(short, value) if self.percent and isinstance(value, str) else value
        return found


def _decode_structured(content_type: str, body: bytes) -> CloudEvent:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == json.CONTENT_TYPE:
        return json.decode(body)
    if kind.startswith("application/cloudevents-batch"):
        raise DecodeError(f"{kind} is a batch of events where one was expected: use formats.json.decode_batch")
    raise DecodeError(f"{kind} is an event format that is not known here: use {json.CONTENT_TYPE}")


def _body(body: bytes, datacontenttype: str | None) -> bytes | None:
    """The data, for which an empty body counts only where a media type says that it may be empty: not JSON."""
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise DecodeError(f"not a CloudEvent: the body is a {type(body).__qualname__} and not bytes")
    if len(body) == 0:
        media = media_type(datacontenttype) if datacontenttype else None
        return None if media is None or media.kind == "json" else b""
    return bytes(body)


def _escape(text: str) -> str:
    return _TO_ESCAPE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


def _unescape(name: str, text: str) -> str:
    text = text.strip(" \t")
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = _BACKSLASHED.sub(r"\1", text[1:-1])
    if "%" not in text:
        return text
    try:
        return _ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode(), text)
    except UnicodeDecodeError:
        raise DecodeError(
            f"not a CloudEvent: attribute {name} is {short(text)}: its percent-escapes are not valid UTF-8"
        ) from None
