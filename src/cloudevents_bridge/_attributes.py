"""Attributes of an event: their types, their canonical strings and the rules for their values.

One rule holds both ways: what the constructor refuses, a decoder refuses too. Where the specification asks a receiver
to be lenient (a null attribute is absent, any RFC 3339 offset, lower-case `t` and `z`, a leap second), both are.
Source: CloudEvents 1.0.2, "Type System" and "Context Attributes".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from cloudevents_bridge._media import media_type
from cloudevents_bridge._members import EXTENSION_FIELDS, Value
from cloudevents_bridge._strings import check_filled, check_string, refuse, short
from cloudevents_bridge._times import check_time, format_time, parse_time
from cloudevents_bridge.errors import InvalidArgumentError

CORE = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"})

KNOWN_TYPES: Mapping[str, type] = {
    "partitionkey": str,
    "traceparent": str,
    "tracestate": str,
    "sequence": str,
    "sequencetype": str,
    "expirytime": datetime,
    "recordedtime": datetime,
    "dataref": str,
    "severitytext": str,
    "severitynumber": int,
    "sampledrate": int,
    "authtype": str,
    "authid": str,
    "authclaims": str,
    "correlationid": str,
    "causationid": str,
}
"""The type of each documented extension: its value has that type whatever form the event came in."""

_NAME = re.compile(r"[a-z0-9]+")
_URI_CHARACTERS = r"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})"
_URI_REFERENCE = re.compile(rf"{_URI_CHARACTERS}*(?:#{_URI_CHARACTERS}*)?")
_URI = re.compile(rf"[A-Za-z][A-Za-z0-9+.\-]*:{_URI_CHARACTERS}*(?:#{_URI_CHARACTERS}*)?")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,9})")

_MOST_REMEMBERED = 1024
good_types: dict[str, str] = {}
good_sources: dict[str, str] = {}
good_schemas: dict[str, str] = {}


def _remember(good: dict[str, str], text: str) -> str:
    # types and sources repeat: a look-up instead of a check. Emptied when full, so that it stays small.
    if len(good) >= _MOST_REMEMBERED:
        good.clear()
    if len(text) <= 256:
        good[text] = text
    return text


def check_type(name: str, value: object) -> str:
    return _remember(good_types, check_filled(name, value))


def check_source(name: str, value: object) -> str:
    """Return a URI-reference (RFC 3986 section 4.1), by its characters."""
    text = check_filled(name, value)
    if not _URI_REFERENCE.fullmatch(text):
        refuse(name, text, "be a URI-reference (RFC 3986): letters, digits, -._~:/?#[]@!$&'()*+,;= and %-escapes")
    return _remember(good_sources, text)


def check_uri(name: str, value: object) -> str:
    """Return an absolute URI. RFC 3986 section 4.3 has no fragment there, but schemas do: it is let through."""
    text = check_filled(name, value)
    if not _URI.fullmatch(text):
        refuse(name, text, "be an absolute URI (RFC 3986), such as https://example.com/schema")
    return _remember(good_schemas, text)


def check_media_type(name: str, value: object) -> str:
    text = check_filled(name, value)
    if media_type(text) is None:
        refuse(name, text, "be a media type (RFC 2046), such as application/json or text/plain; charset=utf-8")
    return text


def check_version(name: str, value: object) -> str:
    text = check_string(name, value)
    if text != "1.0":
        refuse(name, text, "be '1.0', the one version of the specification that is read and written here")
    return text


def canonical(value: Value) -> str:
    """The canonical string of an attribute's value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return format_time("value", value)


def check_value(name: str, value: object) -> Value:
    """Return the value of an extension without a known type."""
    if isinstance(value, str):
        return check_string(name, value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**31) <= value < 2**31:
            refuse(name, value, "fit in 32 bits; give a larger number as a string")
        return int(value)
    if isinstance(value, datetime):
        return value if type(value) is datetime and value.tzinfo is UTC else parse_time(format_time(name, value))
    if not isinstance(value, (bytes, bytearray, memoryview)):
        refuse(name, value, "be a bool, an int, a string, bytes or a datetime")
    return bytes(value)


def _as_string(name: str, value: object) -> str:
    return check_string(name, canonical(check_value(name, value)))


def _as_integer(name: str, value: object) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(name, value, "be an Integer")
    return int(check_value(name, value))  # type: ignore[arg-type]


def _as_boolean(name: str, value: object) -> bool:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        refuse(name, value, "be a Boolean: true or false")
    return value


def _as_binary(name: str, value: object) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    try:
        return base64.b64decode(check_string(name, value), validate=True)
    except (binascii.Error, ValueError):
        refuse(name, value, "be Base64 (RFC 4648)")


def _as_time(name: str, value: object) -> datetime:
    return parse_time(check_time(name, value))


_TYPED: Mapping[type, Callable[[str, object], Value]] = {
    str: _as_string,
    int: _as_integer,
    bool: _as_boolean,
    bytes: _as_binary,
    datetime: _as_time,
}


def typed(name: str, value: object, kind: type) -> Value:
    """The value of an extension as a Python value of its type. Raises `InvalidArgumentError` if it is none."""
    return _TYPED[kind](name, value)


def check_extension(name: object, value: object) -> Value:
    """Return the value of an extension as it is kept. A documented one is held to its type."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"extension name {short(name)} is not allowed: use lower-case letters a to z and digits only"
        )
    if name in CORE or name == "data":
        raise InvalidArgumentError(f"extension name {name!r} is taken by the specification: it is no extension")
    kind = KNOWN_TYPES.get(name)
    if kind is None:
        return check_value(name, value)
    if kind is datetime:  # as it stands: the wire string may hold more than a datetime can
        return check_time(name, value)
    value = typed(name, value, kind)
    if name == "partitionkey" and not value:
        refuse(name, value, "not be empty")
    return value


def check_data_attributes(datacontenttype: str | None, dataschema: str | None) -> tuple[str | None, str | None]:
    """Return what the constructor was given for them."""
    if datacontenttype is not None:
        datacontenttype = check_media_type("datacontenttype", datacontenttype)
    if dataschema is not None:
        dataschema = check_uri("dataschema", dataschema)
    return datacontenttype, dataschema


def check_extensions(extensions: object) -> tuple[str | None, str | None, dict[str, Value]]:
    """Return the traceparent, the tracestate and the other extensions that the constructor was given."""
    if not isinstance(extensions, Mapping):
        refuse("extensions", extensions, "be a mapping of names to values")
    extra: dict[str, Value] = {}
    fields: dict[str, Any] = {"traceparent": None, "tracestate": None}
    for name, value in extensions.items():
        if name == "partitionkey":
            raise InvalidArgumentError("partitionkey is a named argument: use CloudEvent(partitionkey=…)")
        checked = check_extension(name, value)
        if name in fields:
            fields[name] = checked
        else:
            extra[name] = checked
    return fields["traceparent"], fields["tracestate"], extra


CHECKS: Mapping[str, Callable[[str, object], str]] = {
    "specversion": check_version,
    "id": check_filled,
    "source": check_source,
    "type": check_type,
    "subject": check_filled,
    "time": check_time,
    "datacontenttype": check_media_type,
    "dataschema": check_uri,
}


def check_all(
    attributes: Mapping[str, Any], types: Mapping[str, type] | None = None
) -> tuple[dict[str, Any], dict[str, Value]]:
    """Check the attributes of an event that was read: those of `Members`, and the other extensions.

    Raises:
        InvalidArgumentError: for the first that breaks a rule or that is missing.
    """
    members: dict[str, Any] = {}
    extra: dict[str, Value] = {}
    # the version first: under another one the other rules do not hold
    if attributes.get("specversion") is None:
        raise InvalidArgumentError("attribute specversion is missing: it must be '1.0'")
    check_version("specversion", attributes["specversion"])
    for name, value in attributes.items():
        if value is None:
            continue
        if check := CHECKS.get(name):
            members[name] = check(name, value)
        elif name in EXTENSION_FIELDS:
            members[name] = check_extension(name, value)
        elif types and name in types and name not in KNOWN_TYPES:
            extra[name] = typed(name, check_extension(name, value), types[name])
        else:
            extra[name] = check_extension(name, value)
    for name in ("id", "source", "type"):
        if name not in members:
            raise InvalidArgumentError(f"attribute {name} is missing: every event has one")
    return members, extra
