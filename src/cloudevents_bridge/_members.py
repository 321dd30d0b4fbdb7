"""What an event holds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Raw, Struct

Value: TypeAlias = bool | int | str | bytes | datetime

Filled: TypeAlias = Annotated[str, Meta(min_length=1)]

NO_DATA = Raw()
NO_EXTRA: dict[str, Value] = {}
UNSET: Any = ...


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


class State(Struct, gc=False):
    """What an event holds. Once an event has it, only `value` is ever set.

    Attributes:
        extra: extensions that are no fields of `Members`.
        body: data that is no JSON value: text, or bytes that nobody has looked into.
        value: the decoded data, once somebody has asked for it.
    """

    members: Members
    extra: dict[str, Value] = NO_EXTRA
    body: bytes | str | None = None
    value: Any = UNSET


EXTENSION_FIELDS = ("partitionkey", "traceparent", "tracestate")
ATTRIBUTE_FIELDS = tuple(name for name in Members.__struct_fields__ if name != "data")
