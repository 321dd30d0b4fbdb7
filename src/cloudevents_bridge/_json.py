"""The JSON event format of one event, without parsing its data. Source: CloudEvents 1.0.2 JSON format.

Of a member that occurs twice the last counts; inside the data nothing is touched. A byte order mark is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw

from cloudevents_bridge import _attributes as rules
from cloudevents_bridge._data import JSON, decode_json, encode_json, structured_member, text_bytes
from cloudevents_bridge._media import media_type
from cloudevents_bridge._members import NO_DATA, Members, State
from cloudevents_bridge._strings import refuse
from cloudevents_bridge.errors import DecodeError, InvalidArgumentError

encode_members = msgspec.json.Encoder().encode
decode_members = msgspec.json.Decoder(Members).decode
_decode_raw = msgspec.json.Decoder(dict[str, Raw]).decode
decode_time: Callable[[str], object] = msgspec.json.Decoder(datetime).decode
JSON_TYPES = frozenset({None, JSON, "application/json; charset=utf-8", "application/json;charset=utf-8"})
NO_MEMBERS = (msgspec.DecodeError, UnicodeDecodeError, TypeError, LookupError, RecursionError)
"""What comes out when the text is not that of `Members`, or its time is none."""
_NULL = Raw(b"null")
BACKSLASH, DEL = b"\\\x7f"  # as ints, which `in` finds four times as fast


def with_rest(encoded: bytes, state: State) -> bytes:
    """The encoded members with what else there is of the event."""
    if state.body is not None:
        encoded = encoded[:-1] + structured_member(state.body, state.members.datacontenttype) + b"}"
    if state.extra:
        encoded = encoded[:-1] + b"," + encode_members(state.extra)[1:]
    return encoded


def printable(members: Members, raw: bytes) -> bool:
    """Whether no attribute holds a character that is forbidden, or an escape in its time, and all is UTF-8.

    Raises:
        UnicodeDecodeError: if it is not.
    """
    texts = (
        members.id, members.type, members.subject, members.partitionkey, members.traceparent, members.tracestate
    )  # fmt: skip
    return (
        all(text is None or text.isprintable() for text in texts)
        and "\\" not in (members.time or "")
        and raw.decode() != ""
    )


def read(raw: object, types: Mapping[str, type] | None = None) -> State:
    """Read what an event holds, with a careful look at each member. Raises `DecodeError`."""
    try:
        members = _decode_raw(text_of(raw))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise DecodeError(f"not a CloudEvent: {why(exc)}") from exc
    data = members.pop("data", NO_DATA)
    base64 = members.pop("data_base64", None)
    body: bytes | str | None = None
    try:
        # first: another version may have members of other types
        if (version := _scalar("specversion", members.get("specversion", _NULL))) is not None:
            rules.check_version("specversion", version)
        attributes, extra = rules.check_all({name: _scalar(name, value) for name, value in members.items()}, types)
        if base64 is not None and (encoded := _scalar("data_base64", base64)) is not None:
            if data is not NO_DATA:
                raise InvalidArgumentError("it has both data and data_base64, and only one is allowed")
            body = rules.typed("data_base64", encoded, bytes)  # type: ignore[assignment]
        elif data is not NO_DATA and bytes(data)[:1] == b'"':
            media = media_type(attributes.get("datacontenttype", JSON))
            if media is not None and media.kind != "json":
                body, data = decode_json(data), NO_DATA
                text_bytes(body, media)  # type: ignore[arg-type]
    except (InvalidArgumentError, DecodeError) as exc:
        raise DecodeError(f"not a CloudEvent: {exc}") from None
    return State(Members(**attributes, data=data), extra, body)


def text_of_dict(members: Mapping[str, Any]) -> bytes:
    """The JSON text of members that are plain values. Raises `DecodeError`."""
    if not isinstance(members, Mapping):
        raise DecodeError(f"not a CloudEvent: a {type(members).__qualname__} is no mapping of attributes")
    if isinstance(members.get("data"), (bytes, bytearray, memoryview)):
        raise DecodeError("not a CloudEvent: data is bytes, which have no place there: give them as data_base64")
    try:
        return encode_json(dict(members))
    except InvalidArgumentError as exc:
        raise DecodeError(f"not a CloudEvent: {exc}") from None


def text_of(raw: object) -> bytes:
    """JSON text as bytes that are UTF-8. Raises `DecodeError` or `UnicodeError`."""
    if isinstance(raw, str):
        raw = raw.encode()
    elif isinstance(raw, (bytearray, memoryview)):
        raw = bytes(raw)
    elif not isinstance(raw, bytes):
        raise DecodeError(f"not a CloudEvent: a {type(raw).__qualname__} is neither bytes nor str")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if not raw.isascii():
        raw.decode()
    return raw


def why(error: Exception) -> str:
    """Why JSON cannot be decoded."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "it is not valid UTF-8" if isinstance(error, UnicodeError) else str(error)


def _scalar(name: str, encoded: Raw) -> bool | int | str | None:
    value = decode_json(encoded)
    if value is not None and not isinstance(value, (bool, int, str)):
        refuse(name, value, "be a JSON string, a whole number, a boolean or null")
    return value
