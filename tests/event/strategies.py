"""Events for hypothesis: what the constructor takes, with what is rare in life and common in errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import reject
from hypothesis import strategies as st

from cloudevents_bridge import CloudEvent
from cloudevents_bridge.bindings import AMQP, HTTP, KAFKA, PUBSUB, SQS, STRUCTURED, Mapped
from cloudevents_bridge.errors import InvalidArgumentError

BINDINGS: dict[str, Mapped] = {
    "http": HTTP,
    "amqp": AMQP,
    "pubsub": PUBSUB,
    "kafka": KAFKA,
    "sqs": SQS,
    "structured": STRUCTURED,
}

JSON_TYPES = ["application/json", "Application/JSON; Charset=UTF-8", "application/vnd.x+json;v=1", "text/json"]
TEXT_TYPES = [
    "text/plain",
    "TEXT/Plain; Charset=Latin-1",
    'text/csv; charset="utf-16"; header=present',
    "application/xml",
    "image/svg+xml;charset=us-ascii",
    "text/plain; charset=iso-2022-jp",
    "text/plain; charset=utf-8-sig",
    "text/plain; charset=shift_jis",
]
OTHER_TYPES = [
    "application/octet-stream",
    "image/png",
    'application/x; a="b\\"c; charset=x"',
    "text/plain; charset=unheard-of",
    "application/cloudevents+json",
    "Application/CloudEvents-Batch+JSON; charset=utf-8",
]


def _allowed(character: str) -> bool:
    code = ord(character)
    return not (0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE)


characters = st.one_of(
    st.characters(exclude_categories=["Cc", "Cs"]).filter(_allowed),
    st.sampled_from(' "%\\\u00a0\u2028\u00ad😀é~ +&,;='),
)
strings = st.text(characters, max_size=12)
filled = st.text(characters, min_size=1, max_size=12)
uris = st.text(st.sampled_from("az09-._~:/?[]@!$&'()*+,;=AZ"), min_size=1, max_size=12) | st.sampled_from(
    ["https://example.com/a?b=c#d", "/shop", "#fragment", "urn:x:%F0%9F", "//authority/path", "%00"]
)
schemas = st.sampled_from(["https://example.com/schema#v1", "urn:schema:%20", "x:", "http://[::1]:80/"])
offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
odd_offsets = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
ends = st.sampled_from([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)])  # noqa: DTZ001  it is given one
times = st.datetimes(timezones=st.just(UTC) | offsets | odd_offsets) | st.builds(
    lambda end, zone: end.replace(tzinfo=zone), ends, offsets
)
int32 = st.integers(-(2**31), 2**31 - 1)
known: dict[str, st.SearchStrategy[Any]] = {
    "traceparent": strings,
    "tracestate": strings,
    "sequence": strings,
    "expirytime": times,
    "recordedtime": times,
    "sampledrate": int32,
    "severitynumber": int32,
    "authtype": strings,
}
names = st.text(st.sampled_from("abcxyz0189"), min_size=1, max_size=25)
values = st.booleans() | int32 | strings | st.binary(max_size=12) | times
extensions = st.builds(
    lambda free, documented: {**free, **documented},
    st.dictionaries(names, values, max_size=3),
    st.fixed_dictionaries({}, optional=known),
)

unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**90), 2**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | unicode
    | st.sampled_from([2**53 + 1, 2**63, 2**64, -(2**63) - 1, 0.1, -0.0, 5e-324, "\x00\x1f\x7f\u2028", "\ufeff"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(unicode, inner, max_size=4),
    max_leaves=12,
)
json_texts = st.builds(
    lambda value, style: json.dumps(value, **style).encode(),
    json_values,
    st.sampled_from([{}, {"indent": 2}, {"separators": (" ,\t", ":\n")}, {"ensure_ascii": False}]),
)
bodies = st.binary(max_size=40) | json_texts | unicode.map(str.encode)

_OTHERS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"type": filled, "source": uris},
    optional={
        "id": filled,
        "time": st.none() | times,
        "subject": st.none() | filled,
        "dataschema": schemas,
        "partitionkey": filled,
        "extensions": extensions,
    },
)
_DATA: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({}, optional={"datacontenttype": st.sampled_from(JSON_TYPES + TEXT_TYPES + OTHER_TYPES)}),
    st.fixed_dictionaries({"data": json_values}, optional={"datacontenttype": st.sampled_from(JSON_TYPES)}),
    st.fixed_dictionaries({"data": unicode, "datacontenttype": st.sampled_from(TEXT_TYPES + OTHER_TYPES)}),
    st.fixed_dictionaries(
        {"data": bodies}, optional={"datacontenttype": st.sampled_from(JSON_TYPES + TEXT_TYPES + OTHER_TYPES)}
    ),
)


@st.composite
def events(draw: st.DrawFn) -> CloudEvent:
    """Any event the constructor accepts."""
    try:
        return CloudEvent(**draw(_OTHERS), **draw(_DATA))
    except InvalidArgumentError:  # such as a text that its charset cannot say
        reject()
