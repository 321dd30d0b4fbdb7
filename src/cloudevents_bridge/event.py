"""The event: immutable, checked once, its data encoded when it is made and decoded when it is asked for."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn, Self, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from cloudevents_bridge import _attributes as rules
from cloudevents_bridge._attributes import KNOWN_TYPES
from cloudevents_bridge._data import (
    JSON,
    NOT_JSON,
    body_bytes,
    decode_body,
    decode_json,
    decode_model,
    decode_plain,
    encode_data,
    encode_json,
    encode_plain,
    not_json,
)
from cloudevents_bridge._ids import new_id
from cloudevents_bridge._json import (
    BACKSLASH,
    DEL,
    JSON_TYPES,
    NO_MEMBERS,
    decode_members,
    decode_time,
    encode_members,
    printable,
    read,
    text_of_dict,
    with_rest,
)
from cloudevents_bridge._media import media_type
from cloudevents_bridge._members import ATTRIBUTE_FIELDS, NO_DATA, NO_EXTRA, UNSET, Members, State, Value
from cloudevents_bridge._strings import check_filled
from cloudevents_bridge._times import instant, keep_time, parse_time
from cloudevents_bridge.errors import DecodeError, InvalidArgumentError

T = TypeVar("T")

_NONE: Mapping[str, Any] = MappingProxyType({})
_good_types = rules.good_types
_good_sources = rules.good_sources
_good_schemas = rules.good_schemas


class CloudEvent:
    """One event, as CloudEvents 1.0.2 has it. It never changes; `replace` makes another.

    Two events are equal if their attributes have the same canonical strings (times: the same instant), and their data
    the same bytes under the same media type: a broker may hand `True` back as `"true"`, and that is still the event
    that was sent. For the same reason, JSON data without `datacontenttype` counts as `application/json`, and empty
    data as none.

    Args:
        type: what happened, such as `com.example.order.created`.
        source: where, a URI-reference. `source` and `id` together are unique.
        data: bytes stay as they are. A str is JSON, unless datacontenttype says otherwise: then it is text in the
            charset named there. Anything else is JSON: dict, list, number, None (`null`), dataclass, `msgspec.Struct`,
            pydantic model. Left out: no data.
        id: a random UUID if left out.
        time: with a time zone; now if left out, None for none.
        datacontenttype: if left out, `application/json` or, for bytes, `application/octet-stream`.
        dataschema: an absolute URI.
        partitionkey: the ordering key.
        extensions: further attributes; names of a to z and 0 to 9.

    Attributes:
        extensions: the extensions but `partitionkey`, read-only. Documented ones have their type whatever form the
            event came in (`expirytime` a datetime, `sampledrate` an int); others are as they came.
        data: decoded on first use and kept: the JSON value, a str for text, bytes for the rest; None where there is
            none. Raises `DecodeError` if the data is not what datacontenttype says.
        data_bytes: the data as it is sent in a message body; None only where there is none.

    Raises:
        InvalidArgumentError: naming the attribute, its value and the rule; it is a `ValueError`.
    """

    __slots__ = ("_state",)

    _state: State

    def __init__(  # noqa: C901  each branch saves a call, which costs more
        self,
        *,
        type: str,
        source: str,
        data: object = UNSET,
        id: str = UNSET,
        time: datetime | None = UNSET,
        subject: str | None = None,
        datacontenttype: str | None = None,
        dataschema: str | None = None,
        partitionkey: str | None = None,
        extensions: Mapping[str, Value] = _NONE,
    ) -> None:
        # what was checked before, or is a plain printable string, needs no call
        try:
            type, source = _good_types[type], _good_sources[source]
        except (KeyError, TypeError):
            type, source = rules.check_type("type", type), rules.check_source("source", source)
        if id is UNSET:
            id = new_id()
        elif id.__class__ is not str or not id or not id.isprintable():
            id = check_filled("id", id)
        if time is UNSET:
            time = datetime.now(UTC)
        elif time is not None and (time.__class__ is not datetime or time.tzinfo is not UTC):
            time = keep_time("time", time)  # type: ignore[assignment]
        if subject is not None and (subject.__class__ is not str or not subject or not subject.isprintable()):
            subject = check_filled("subject", subject)
        if datacontenttype is not None or dataschema is not None:
            datacontenttype, dataschema = rules.check_data_attributes(datacontenttype, dataschema)
        if partitionkey is not None:
            partitionkey = check_filled("partitionkey", partitionkey)
        value: Raw = NO_DATA
        body: bytes | str | None = None
        if data.__class__ is dict and datacontenttype is None:
            # encode_json without the call: where it would refuse, or look twice, it is asked
            try:
                encoded = encode_plain(data)
            except Exception:  # noqa: BLE001  encode_json says what is wrong
                encoded = b"null"
            if encoded.rfind(b"null") >= 0:
                encoded = encode_json(data)
            value, datacontenttype = Raw(encoded), JSON
        elif data is not UNSET:
            value, body, datacontenttype = encode_data(data, datacontenttype)
        traceparent, tracestate, extra = None, None, NO_EXTRA
        if extensions is not _NONE:
            traceparent, tracestate, extra = rules.check_extensions(extensions)
        members = Members(
            "1.0", id, source, type, subject, time, datacontenttype, dataschema,
            partitionkey, traceparent, tracestate, value,
        )  # fmt: skip
        set_state(self, State(members, extra, body))

    @property
    def specversion(self) -> str:
        return self._state.members.specversion

    @property
    def id(self) -> str:
        return self._state.members.id

    @property
    def source(self) -> str:
        return self._state.members.source

    @property
    def type(self) -> str:
        return self._state.members.type

    @property
    def time(self) -> datetime | None:
        """Cut to microseconds; the event itself keeps every digit."""
        time = self._state.members.time
        return parse_time(time) if time.__class__ is str else time

    @property
    def subject(self) -> str | None:
        return self._state.members.subject

    @property
    def datacontenttype(self) -> str | None:
        return self._state.members.datacontenttype

    @property
    def dataschema(self) -> str | None:
        return self._state.members.dataschema

    @property
    def partitionkey(self) -> str | None:
        return self._state.members.partitionkey

    @property
    def extensions(self) -> Mapping[str, Value]:
        return MappingProxyType(
            {
                name: value if (kind := KNOWN_TYPES.get(name)) is None else rules.typed(name, value, kind)
                for name, value in self._raw_extensions().items()
            }
        )

    @property
    def data(self) -> Any:
        state = self._state
        value = state.value
        if value is UNSET:
            encoded = state.members.data
            try:
                if encoded is NO_DATA:
                    value = decode_body(state.body, state.members.datacontenttype)
                else:
                    value = decode_plain(encoded)
            except NOT_JSON as exc:
                raise self._data_error(not_json(exc)) from None
            except DecodeError as exc:
                raise self._data_error(exc) from None
            state.value = value
        return value

    @property
    def data_bytes(self) -> bytes | None:
        if self._state.members.data is not NO_DATA:
            return bytes(self._state.members.data)
        if self._state.body is None:
            return None
        return body_bytes(self._state.body, self._state.members.datacontenttype)

    def data_as(self, model: builtins.type[T], /) -> T:
        """The data as an instance of `model`: pydantic model, dataclass, `msgspec.Struct`, dict, list, str, bytes …

        Raises:
            DecodeError: if it does not fit; with the path of the field, and never with what stands in it.
        """
        try:
            return decode_model(self._state.members.data, self._state.body, self._state.members.datacontenttype, model)
        except DecodeError as exc:
            raise self._data_error(exc) from None

    def replace(self, **changes: Any) -> Self:
        """The same event with other values for the named arguments of the constructor, checked as there.

        `extensions` replaces all but `partitionkey`. New `data` without a new `datacontenttype` is encoded for the
        one it has; give `datacontenttype=None` to have it chosen again.

        Raises:
            InvalidArgumentError: for a value that breaks a rule, or for a name that is no argument.
        """
        if unknown := changes.keys() - _ARGUMENTS:
            raise InvalidArgumentError(
                f"replace() knows no {', '.join(sorted(unknown))}: use {', '.join(_ARGUMENTS)}; "
                "an extension goes into extensions={…}"
            )
        members, body = self._state.members, self._state.body
        kept: dict[str, Any] = {}
        arguments = {name: getattr(members, name) for name in _TEXTS} | {"extensions": self._raw_extensions()} | changes
        if "time" not in changes:
            arguments["time"], kept["time"] = None, members.time  # the string: it may hold more than a datetime can
        new = self.__class__(**arguments)
        if "data" not in changes:
            kept["data"] = members.data
            media = media_type(new.datacontenttype or JSON)
            renamed = new.datacontenttype != members.datacontenttype
            if renamed and (isinstance(body, str) or (media and media.kind != "json")):
                kept["data"], body = NO_DATA, self.data_bytes  # only as its bytes can data go by another type
            new._state.body = body
        new._state.members = replace(new._state.members, **kept)
        return new

    def _raw_extensions(self) -> dict[str, Value]:
        members = self._state.members
        fields = {"traceparent": members.traceparent, "tracestate": members.tracestate}
        return {name: text for name, text in fields.items() if text is not None} | self._state.extra

    def to_json(self) -> bytes:
        """The event in JSON format (structured mode). JSON data goes out as it came in, byte for byte."""
        state = self._state
        encoded = encode_members(state.members)
        if state.body is not None or state.extra:
            return with_rest(encoded, state)
        return encoded

    @classmethod
    def from_json(cls, raw: bytes | str) -> Self:
        """Read the JSON format. Raises `DecodeError` and nothing else."""
        if raw.__class__ is bytes:
            # the quick way says yes, or nothing: what it is not sure of, `read` reads again, and explains
            try:
                members = decode_members(raw)
                time, schema = members.time, members.dataschema
                if (
                    members.source in _good_sources
                    and (members.datacontenttype == JSON or members.datacontenttype in JSON_TYPES)
                    # what is no time raises an error; in one that is, T is between day and hour, and Z at the end
                    and (time is None or ("T" in time and "Z" in time and decode_time(f'"{time}"')))
                    and (schema is None or schema in _good_schemas)
                    # ASCII without an escape and without DEL cannot say a character that an attribute may not hold
                    and ((raw.isascii() and BACKSLASH not in raw and DEL not in raw) or printable(members, raw))
                ):
                    event = new_event(cls)
                    set_state(event, State(members, NO_EXTRA))
                    return event
            except NO_MEMBERS:
                pass
        return make_event(cls, read(raw))

    def to_dict(self) -> dict[str, Any]:
        """The event in JSON format, as a dict of plain values; bytes are in `data_base64`.

        Raises:
            DecodeError: for JSON that Python cannot hold.
        """
        members: dict[str, Any] = decode_json(self.to_json())
        return members

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gives; a time may also be a datetime, `data_base64` bytes. Raises `DecodeError`."""
        return cls.from_json(text_of_dict(members))

    def to_http(self, *, structured: bool = False) -> tuple[dict[str, str], bytes]:
        """Headers and body of an HTTP request: in binary mode, or structured."""
        from cloudevents_bridge import bindings

        headers, body = (bindings.STRUCTURED if structured else bindings.HTTP).encode(self)
        return dict(headers), body

    @classmethod
    def from_http(cls, headers: Mapping[str, str], body: bytes) -> Self:
        """Read an HTTP request in either mode. Raises `DecodeError`."""
        from cloudevents_bridge import bindings

        event = bindings.HTTP.decode(headers, body)
        return make_event(cls, event._state)

    def to_sdk(self) -> Any:
        """The event as a `CloudEvent` of the CNCF SDK 2. Raises `UnsupportedError` if that is not installed."""
        from cloudevents_bridge.formats import sdk

        return sdk.to_sdk(self)

    @classmethod
    def from_sdk(cls, event: Any) -> Self:
        """Take an event of the CNCF SDK, 1 or 2. Raises `DecodeError` if it is none, or breaks a rule."""
        from cloudevents_bridge.formats import sdk

        return sdk.from_sdk(cls, event)

    def _data_error(self, cause: DecodeError) -> DecodeError:
        error = DecodeError(f"data of event {self.id!r} of type {self.type!r}: {cause}")
        error.of = self.source, self.id
        return error

    def _identity(self) -> tuple[object, ...]:
        members = self._state.members
        attributes: dict[str, object] = {
            name: value for name in ATTRIBUTE_FIELDS if (value := getattr(members, name)) is not None
        }
        for name, value in self._state.extra.items():
            text = rules.canonical(value)
            attributes[name] = instant(text) if KNOWN_TYPES.get(name) is datetime else text
        if members.time is not None:
            attributes["time"] = instant(members.time)
        if members.data is not NO_DATA:
            attributes.setdefault("datacontenttype", JSON)
        data = self.data_bytes or b""
        media = media_type(members.datacontenttype or JSON)
        return attributes, data.strip(b" \t\r\n") if media and media.kind == "json" else data

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, CloudEvent):
            return NotImplemented
        mine, its = self._state.members, other._state.members
        return mine.id == its.id and mine.source == its.source and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((self._state.members.source, self._state.members.id))

    def __repr__(self) -> str:
        members = self._state.members
        shown = f"CloudEvent(type={members.type!r}, source={members.source!r}, id={members.id!r}"
        data = self.data_bytes
        if data is None:
            return shown + ")"
        kind = members.datacontenttype or (JSON if members.data is not NO_DATA else "bytes")
        return f"{shown}, data=<{kind}, {len(data)} bytes>)"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an event does not change: use event.replace({name}=…)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("an event does not change: use event.replace(…)")

    def __reduce__(self) -> tuple[Any, ...]:
        # "no JSON value" is one object, told by its identity, which a pickle does not keep
        state = self._state
        value = None if state.members.data is NO_DATA else bytes(state.members.data)
        return _unpickle, (self.__class__, state.members, value, state.extra, state.body)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


_TEXTS = ("type", "source", "id", "subject", "datacontenttype", "dataschema", "partitionkey")
_ARGUMENTS = (*_TEXTS, "data", "time", "extensions")
set_state = CloudEvent.__dict__["_state"].__set__
new_event = object.__new__

C = TypeVar("C", bound=CloudEvent)


def make_event(cls: type[C], state: State) -> C:
    """An event of what was checked."""
    event = new_event(cls)
    set_state(event, state)
    return event


def _unpickle(
    cls: type[C], members: Members, value: bytes | None, extra: dict[str, Value], body: bytes | str | None
) -> C:
    members = replace(members, data=NO_DATA if value is None else Raw(value))
    return make_event(cls, State(members, extra, body))
