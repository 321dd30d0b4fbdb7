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
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NoReturn, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from cloudevents_bridge._media import media_type
from cloudevents_bridge.errors import InvalidArgumentError

Value: TypeAlias = bool | int | str | bytes | datetime

Filled: TypeAlias = Annotated[str, Meta(min_length=1)]

NO_DATA = Raw()


class Members(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """The members of an event in JSON format, as msgspec reads and writes them: attributes as they stand on the wire.

    `data` is there for a JSON value only. `time` is the string that was read, which may hold more than a datetime can,
    or a datetime in UTC. The three extensions that many events carry are fields, so that reading such an event is one
    call.
    """

    specversion: Literal["1.0"]
    id: Filled
    source: str
    type: Filled
    subject: Filled | None = None
    time: Any = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    partitionkey: Filled | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    data: Raw = NO_DATA


CORE = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"})
EXTENSION_FIELDS = ("partitionkey", "traceparent", "tracestate")
ATTRIBUTE_FIELDS = tuple(name for name in Members.__struct_fields__ if name != "data")

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

_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
_NAME = re.compile(r"[a-z0-9]+")
_URI_CHARACTERS = r"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})"
_URI_REFERENCE = re.compile(rf"{_URI_CHARACTERS}*(?:#{_URI_CHARACTERS}*)?")
_URI = re.compile(rf"[A-Za-z][A-Za-z0-9+.\-]*:{_URI_CHARACTERS}*(?:#{_URI_CHARACTERS}*)?")
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,9})")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  both sides of the subtraction have lost their offset

_encode = msgspec.json.Encoder().encode
_convert = msgspec.convert


def refuse(name: str, value: object, rule: str) -> NoReturn:
    """Raise the error for an attribute; it names the attribute, the value (cut to 80 characters) and the rule."""
    raise InvalidArgumentError(f"attribute {name} is {short(value)}: it must {rule}")


def short(value: object) -> str:
    """A value as an error shows it, in 80 characters at most."""
    try:
        shown = repr(value[:100] if isinstance(value, str) else value)
    except Exception:  # noqa: BLE001  an integer of 5,000 digits, for one, has no repr
        shown = f"a {type(value).__qualname__} that cannot be shown"
    return shown if len(shown) <= 80 else shown[:79] + "…"


def check_string(name: str, value: object) -> str:
    """Return a String: no control character, no lone surrogate, no noncharacter."""
    if not isinstance(value, str):
        refuse(name, value, "be a string")
    # printable is the quick answer: none of the forbidden characters is
    if not value.isprintable() and (found := _FORBIDDEN.search(value)):
        refuse(
            name, value, f"not hold U+{ord(found[0]):04X} (control characters, surrogates and noncharacters are out)"
        )
    return str.__str__(value)  # an enum's member becomes its plain value


def check_filled(name: str, value: object) -> str:
    """Return a String that is not empty."""
    text = check_string(name, value)
    if not text:
        refuse(name, text, "not be empty")
    return text


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


def good_time(text: str) -> bool:
    """Whether it is an RFC 3339 timestamp with an offset, other than in a leap second."""
    try:
        parsed = _convert(text, datetime)
    except msgspec.ValidationError:
        return False
    return parsed.tzinfo is not None and text[10] in "Tt" and (text[-1] in "Zz" or text[-3] == ":")


def check_time(name: str, value: object) -> str:
    """Return a Timestamp as its string: one that was read stays as it stands, nanoseconds and offset included."""
    if isinstance(value, datetime):
        return format_time(name, value)
    text = check_string(name, value)
    if not good_time(text) and not _leap(text):
        refuse(name, text, "be an RFC 3339 timestamp, such as 2026-01-31T12:00:00Z")
    return text


def _leap(text: str) -> bool:
    found = _TIMESTAMP.fullmatch(text)
    return found is not None and found[3] == "60" and good_time(f"{found[1]}T{found[2]}59{found[5]}")


def keep_time(name: str, value: object) -> str | datetime:
    """Return a time as `Members` keeps it."""
    if not isinstance(value, datetime):
        refuse(name, value, "be a datetime with a time zone, or None for no time")
    return value if type(value) is datetime and value.tzinfo is UTC else format_time(name, value)


def format_time(name: str, value: datetime) -> str:
    """The canonical string of a Timestamp. Its offset stays, unless RFC 3339 cannot say it (seconds): then UTC."""
    if value.tzinfo is UTC and type(value) is datetime:
        return str(_encode(value)[1:-1], "ascii")
    offset = value.utcoffset()
    if offset is None:
        refuse(name, value, "have a time zone, such as datetime.now(timezone.utc)")
    if offset % timedelta(minutes=1):
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            refuse(name, value, "lie within the years 1 to 9999 in UTC")
    text = value.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def parse_time(text: str) -> datetime:
    """The time in a valid Timestamp, cut to microseconds; a leap second is the last microsecond before it ends."""
    found = _TIMESTAMP.fullmatch(text)
    assert found is not None
    day, minute, second, fraction, offset = found.groups()
    if second == "60":
        second, fraction = "59", "999999"
    result: datetime = _convert(f"{day}T{minute}{second}.{(fraction or '0')[:6]}{offset}", datetime)
    return result


def instant(time: str | datetime) -> tuple[timedelta, str]:
    """What two equal times have in common: the instant, to any number of digits."""
    text = canonical(time)
    found = _TIMESTAMP.fullmatch(text)
    assert found is not None
    when = parse_time(text).replace(microsecond=0)
    second = timedelta(seconds=1 if found[3] == "60" else 0)
    # subtracted by hand, and from a duration: a date overflows in the first and the last day of the calendar
    since = when.replace(tzinfo=None) - _EPOCH - (when.utcoffset() or timedelta()) + second
    return since, (found[4] or "").rstrip("0")


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
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    refuse(name, value, "be a bool, an int, a string, bytes or a datetime")


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
