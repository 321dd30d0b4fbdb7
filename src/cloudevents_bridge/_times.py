"""Timestamps: their strings as RFC 3339 has them, and the instants that they name."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec

from cloudevents_bridge._strings import check_string, refuse

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  both sides of the subtraction have lost their offset

_encode = msgspec.json.Encoder().encode
_convert = msgspec.convert


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
    text = time if isinstance(time, str) else format_time("time", time)
    found = _TIMESTAMP.fullmatch(text)
    assert found is not None
    when = parse_time(text).replace(microsecond=0)
    second = timedelta(seconds=1 if found[3] == "60" else 0)
    # subtracted by hand, and from a duration: a date overflows in the first and the last day of the calendar
    since = when.replace(tzinfo=None) - _EPOCH - (when.utcoffset() or timedelta()) + second
    return since, (found[4] or "").rstrip("0")
