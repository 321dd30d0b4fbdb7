"""The event itself: what the constructor takes and refuses, and what an event promises afterwards."""

from __future__ import annotations

import copy
import dataclasses
import enum
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from cloudevents_bridge import CloudEvent, DecodeError, UnsupportedError
from cloudevents_bridge.bindings import HTTP, KAFKA, SQS
from cloudevents_bridge.errors import BridgeError, ErrorCode, InvalidArgumentError
from cloudevents_bridge.formats.json import decode

NAMED: dict[str, Any] = {"type": "com.example.order.created", "source": "/shop"}
FIXED: dict[str, Any] = NAMED | {"id": "1", "time": datetime(2026, 1, 31, 12, tzinfo=UTC)}
INDIA = timezone(timedelta(hours=5, minutes=30))


def make(**arguments: Any) -> CloudEvent:
    return CloudEvent(**(FIXED | arguments))


# the constructor


def test_what_is_left_out_is_chosen() -> None:
    before = datetime.now(UTC)
    event = CloudEvent(**NAMED)
    assert event.specversion == "1.0"
    assert (event.type, event.source) == ("com.example.order.created", "/shop")
    assert str(uuid.UUID(event.id)) == event.id
    assert uuid.UUID(event.id).version == 4
    assert event.time is not None
    assert before <= event.time <= datetime.now(UTC)
    for absent in ("subject", "datacontenttype", "dataschema", "partitionkey", "data", "data_bytes"):
        assert getattr(event, absent) is None
    assert event.extensions == {}


def test_ids_differ() -> None:
    assert len({CloudEvent(**NAMED).id for _ in range(1000)}) == 1000


def test_no_time_is_no_time() -> None:
    event = make(time=None)
    assert event.time is None
    assert b"time" not in event.to_json()


class Color(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Order:
    id: int
    note: str | None = None


class Struct(msgspec.Struct):
    id: int
    note: str | None = None


class Model(pydantic.BaseModel):
    id: int
    note: str | None = pydantic.Field(default=None, alias="Note")


@pytest.mark.parametrize(
    ("data", "datacontenttype", "expected_type", "expected"),
    [
        ({"id": 7}, None, "application/json", b'{"id":7}'),
        ([1, "é"], None, "application/json", '[1,"é"]'.encode()),
        ("words", None, "application/json", b'"words"'),
        ("words", "text/plain", "text/plain", b"words"),
        ("é", "Text/Plain; Charset=ISO-8859-1", "Text/Plain; Charset=ISO-8859-1", b"\xe9"),
        ("é", "text/csv; charset=utf-16-le", "text/csv; charset=utf-16-le", b"\xe9\x00"),
        ("words", "APPLICATION/vnd.x+JSON", "APPLICATION/vnd.x+JSON", b'"words"'),
        ("words", "application/x-custom", "application/x-custom", b"words"),
        (None, None, "application/json", b"null"),
        (True, None, "application/json", b"true"),
        (1.5, None, "application/json", b"1.5"),
        (b"\x00\xff", None, "application/octet-stream", b"\x00\xff"),
        (bytearray(b"x"), None, "application/octet-stream", b"x"),
        (memoryview(b"x"), "image/png", "image/png", b"x"),
        (b'{"a" : 1}', "application/json", "application/json", b'{"a" : 1}'),
        (b"", None, "application/octet-stream", b""),
        (Order(7), None, "application/json", b'{"id":7,"note":null}'),
        (Struct(7, "n"), None, "application/json", b'{"id":7,"note":"n"}'),
        (Model(id=7, Note="n"), None, "application/json", b'{"id":7,"Note":"n"}'),
        ([Order(1), Struct(2), Model(id=3)], None, "application/json", None),
        ((1, 2), None, "application/json", b"[1,2]"),
        (date(2026, 1, 31), None, "application/json", b'"2026-01-31"'),
        (Color.RED, None, "application/json", b'"red"'),
        (Color.RED, "text/plain", "text/plain", b"red"),
        ({1: "a"}, None, "application/json", b'{"1":"a"}'),
    ],
)
def test_data_is_encoded_by_what_it_is(
    data: object, datacontenttype: str | None, expected_type: str, expected: bytes | None
) -> None:
    event = make(data=data, datacontenttype=datacontenttype)
    assert event.datacontenttype == expected_type
    assert event.data_bytes is not None
    if expected is not None:
        assert event.data_bytes == expected
    for again in (CloudEvent.from_json(event.to_json()), CloudEvent.from_http(*event.to_http())):
        assert again.data_bytes == event.data_bytes
        assert again == event


def test_data_that_changes_later_does_not_change_the_event() -> None:
    data, raw, extensions = {"id": 7}, bytearray(b"abc"), {"x": "y"}
    first, second = make(data=data, extensions=extensions), make(data=raw)
    data["id"], raw[0], extensions["x"] = 8, 0, "z"
    assert first.data == {"id": 7}
    assert first.extensions == {"x": "y"}
    assert second.data == b"abc"


@pytest.mark.parametrize(
    ("arguments", "name", "value", "rule"),
    [
        ({"type": ""}, "type", "''", "not be empty"),
        ({"type": None}, "type", "None", "be a string"),
        ({"type": []}, "type", "[]", "be a string"),
        ({"type": "a\nb"}, "type", r"'a\nb'", "not hold U+000A"),
        ({"source": ""}, "source", "''", "not be empty"),
        ({"source": "/a b"}, "source", "'/a b'", "be a URI-reference"),
        ({"source": "/%zz"}, "source", "'/%zz'", "be a URI-reference"),
        ({"source": "#a#b"}, "source", "'#a#b'", "be a URI-reference"),
        ({"source": "/é"}, "source", "'/é'", "be a URI-reference"),
        ({"source": b"/s"}, "source", "b'/s'", "be a string"),
        ({"id": ""}, "id", "''", "not be empty"),
        ({"id": None}, "id", "None", "be a string"),
        ({"id": 7}, "id", "7", "be a string"),
        ({"id": "\ud800"}, "id", r"'\ud800'", "not hold U+D800"),
        ({"id": "x" * 200 + "\x00"}, "id", "'" + "x" * 78 + "…", "not hold U+0000"),
        ({"subject": ""}, "subject", "''", "not be empty"),
        ({"subject": "\x9f"}, "subject", r"'\x9f'", "not hold U+009F"),
        ({"subject": "\ufdd0"}, "subject", r"'\ufdd0'", "not hold U+FDD0"),
        ({"subject": "\U0010fffe"}, "subject", r"'\U0010fffe'", "not hold U+10FFFE"),
        ({"time": datetime(2026, 1, 1)}, "time", "datetime.datetime(2026, 1, 1", "have a time zone"),  # noqa: DTZ001
        ({"time": "2026-01-01T00:00:00Z"}, "time", "'2026-", "be a datetime with a time zone, or None"),
        ({"time": 0}, "time", "0", "be a datetime with a time zone, or None"),
        ({"datacontenttype": "text"}, "datacontenttype", "'text'", "be a media type"),
        ({"datacontenttype": ""}, "datacontenttype", "''", "not be empty"),
        ({"datacontenttype": "text/plain; charset"}, "datacontenttype", "'text/plain; charset'", "be a media type"),
        ({"dataschema": "schema"}, "dataschema", "'schema'", "be an absolute URI"),
        ({"dataschema": ""}, "dataschema", "''", "not be empty"),
        ({"partitionkey": ""}, "partitionkey", "''", "not be empty"),
        ({"partitionkey": 7}, "partitionkey", "7", "be a string"),
        ({"extensions": [("x", 1)]}, "extensions", "[('x', 1)]", "be a mapping"),
        ({"extensions": {"x": 1.5}}, "x", "1.5", "be a bool, an int, a string, bytes or a datetime"),
        ({"extensions": {"x": None}}, "x", "None", "be a bool, an int, a string, bytes or a datetime"),
        ({"extensions": {"x": 2**31}}, "x", "2147483648", "fit in 32 bits"),
        ({"extensions": {"x": "\x00"}}, "x", r"'\x00'", "not hold U+0000"),
        ({"extensions": {"x": datetime(2026, 1, 1)}}, "x", "datetime", "have a time zone"),  # noqa: DTZ001
        ({"extensions": {"sampledrate": "x"}}, "sampledrate", "'x'", "be an Integer"),
        ({"extensions": {"sampledrate": True}}, "sampledrate", "True", "be an Integer"),
        ({"extensions": {"expirytime": "soon"}}, "expirytime", "'soon'", "be an RFC 3339 timestamp"),
    ],
)
def test_an_error_names_the_attribute_the_value_and_the_rule(
    arguments: dict[str, Any], name: str, value: str, rule: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^attribute {name} is {re.escape(value)}") as caught:
        make(**arguments)
    assert f": it must {rule}" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, BridgeError)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["", "X", "my_x", "my-x", "é", "x y", "data_base64", "٣", 1, None])
def test_names_of_extensions_are_lower_case_letters_and_digits(name: Any) -> None:
    with pytest.raises(
        InvalidArgumentError, match=rf"extension name {re.escape(repr(name))} is not allowed: use lower"
    ):
        make(extensions={name: "x"})


@pytest.mark.parametrize(
    "name", ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"]
)
def test_names_of_the_specification_are_no_extensions(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"extension name '{name}' is taken by the specification"):
        make(extensions={name: "x"})


def test_partitionkey_is_an_argument_and_no_entry_of_extensions() -> None:
    assert make(partitionkey="k").partitionkey == "k"
    assert make(partitionkey="k").extensions == {}
    with pytest.raises(InvalidArgumentError, match=r"use CloudEvent\(partitionkey=…\)"):
        make(extensions={"partitionkey": "k"})


@pytest.mark.parametrize(
    ("data", "datacontenttype", "error"),
    [
        (object(), None, "data, a object, cannot be encoded: it must have a JSON form"),
        ({"a": object()}, None, "data, a dict, cannot be encoded"),
        (
            {"id": 7},
            "text/plain",
            "data, a dict, cannot be encoded: it must be a string or bytes where datacontenttype",
        ),
        (None, "image/png", "data, a NoneType, cannot be encoded: it must be a string or bytes"),
        ("é", "text/plain; charset=us-ascii", "characters that the charset us-ascii has not"),
        ("x", "text/plain; charset=rot13", "charset 'rot13', which is not known"),
        ("x", "text/plain; charset=utf-7", "charset 'utf-7', which is not known"),
        ("x", "text/plain; charset=unicode_escape", "charset 'unicode_escape', which is not known"),
        ("x", "text/plain; charset=idna", "charset 'idna', which is not known"),
    ],
)
def test_an_error_about_data_names_its_class(data: object, datacontenttype: str | None, error: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(error)):
        make(data=data, datacontenttype=datacontenttype)


def test_an_error_about_data_does_not_show_it() -> None:
    data = {"password": "secret", "other": {1, 2, object()}}
    with pytest.raises(InvalidArgumentError) as caught:
        make(data=data)
    assert "secret" not in str(caught.value)


# immutable, equal by value


def test_an_event_does_not_change() -> None:
    event = make(data={"id": 7}, extensions={"x": "y"})
    names = ["id", "data", "extensions", "unknown", "_state"]
    for name in names:
        with pytest.raises(AttributeError, match=r"an event does not change"):
            setattr(event, name, "x")
        with pytest.raises(AttributeError, match=r"an event does not change"):
            delattr(event, name)
    with pytest.raises(TypeError):
        event.extensions["x"] = "z"  # type: ignore[index]
    assert not hasattr(event, "__dict__")
    assert copy.copy(event) is event
    assert copy.deepcopy([event])[0] is event


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"time": datetime(2026, 1, 31, 17, 30, tzinfo=INDIA)}, {"time": datetime(2026, 1, 31, 12, tzinfo=UTC)}),
    ({"extensions": {"x": True}}, {"extensions": {"x": "true"}}),
    ({"extensions": {"x": -7}}, {"extensions": {"x": "-7"}}),
    ({"extensions": {"x": b"\0"}}, {"extensions": {"x": "AA=="}}),
    ({"extensions": {"x": "1", "y": "2"}}, {"extensions": {"y": "2", "x": "1"}}),
    (
        {"extensions": {"expirytime": datetime(2026, 1, 31, 17, 30, tzinfo=INDIA)}},
        {"extensions": {"expirytime": "2026-01-31T12:00:00.000Z"}},
    ),
    ({"data": {"a": 1}}, {"data": b'{"a":1}', "datacontenttype": "application/json"}),
    ({"data": {"a": 1}}, {"data": b' {"a":1}\n', "datacontenttype": "application/json"}),
    ({"data": "x", "datacontenttype": "text/plain"}, {"data": b"x", "datacontenttype": "text/plain"}),
]
DIFFERENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"id": "2"}),
    ({}, {"source": "/other"}),
    ({}, {"type": "other"}),
    ({}, {"time": None}),
    ({}, {"time": datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)}),
    ({}, {"subject": "x"}),
    ({}, {"partitionkey": "x"}),
    ({}, {"extensions": {"x": ""}}),
    ({}, {"data": None}),
    ({"extensions": {"x": 1}}, {"extensions": {"x": True}}),
    ({"data": {"a": 1, "b": 2}}, {"data": {"b": 2, "a": 1}}),
    ({"data": "x"}, {"data": "x", "datacontenttype": "text/plain"}),
    ({"data": b"x"}, {"data": b"x", "datacontenttype": "text/plain"}),
    ({"data": b"x"}, {"data": b"x "}),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_events_are_equal_by_value(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert make(**one) == make(**other)
    assert not make(**one) != make(**other)  # noqa: SIM202  it is an operator of its own
    assert hash(make(**one)) == hash(make(**other))
    assert len({make(**one), make(**other)}) == 1


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_events_are_not_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert make(**one) != make(**other)
    assert len({make(**one), make(**other)}) == 2


def test_an_event_equals_nothing_else() -> None:
    event = make()
    for other in (None, 1, event.to_dict(), event.to_json()):
        assert event != other


def test_json_without_a_type_counts_as_application_json() -> None:
    raw = '{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1}'
    event = decode(raw)
    assert event.datacontenttype is None
    assert event == CloudEvent(type="t", source="/s", id="1", time=None, data=1)
    assert event.to_json().decode() == raw


def test_repr_is_short_and_hides_data() -> None:
    shown = repr(make(data={"password": "secret"}, extensions={"authid": "hidden"}, subject="hidden"))
    assert shown == (
        "CloudEvent(type='com.example.order.created', source='/shop', id='1', data=<application/json, 21 bytes>)"
    )
    assert repr(make()) == "CloudEvent(type='com.example.order.created', source='/shop', id='1')"
    assert "<bytes, 1 bytes>" in repr(make(data=b"x").replace(datacontenttype=None))


# data_as


class Checked(msgspec.Struct):
    id: Annotated[int, msgspec.Meta(gt=0)]


class Strict(pydantic.BaseModel):
    note: str

    @pydantic.field_validator("note")
    @classmethod
    def refuse(cls, note: str) -> str:
        raise ValueError("not " + note)


FORMS = ["built", "json", "http"]


def in_form(form: str, event: CloudEvent) -> CloudEvent:
    if form == "json":
        return CloudEvent.from_json(event.to_json())
    return CloudEvent.from_http(*event.to_http()) if form == "http" else event


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("data", "model", "expected"),
    [
        ({"id": 7}, dict, {"id": 7}),
        ({"id": 7}, dict[str, int], {"id": 7}),
        ([1, 2], list, [1, 2]),
        ([1, 2], list[int], [1, 2]),
        ([1, 2], set[int], {1, 2}),
        ({"id": 7}, Order, Order(7)),
        ([{"id": 7}], list[Order], [Order(7)]),
        ({"id": 7, "more": 1}, Struct, Struct(7)),
        ({"id": 7, "Note": "n"}, Model, Model(id=7, Note="n")),
        ([{"id": 7}], list[Model], [Model(id=7)]),
        ({"a": {"id": 7}}, dict[str, Model], {"a": Model(id=7)}),
        ("words", str, "words"),
        (7, int, 7),
        (None, type(None), None),
        ("2026-01-31", date, date(2026, 1, 31)),
        ({"id": 7}, bytes, b'{"id":7}'),
    ],
)
def test_data_as_gives_an_instance(form: str, data: object, model: Any, expected: object) -> None:
    found = in_form(form, make(data=data)).data_as(model)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("form", FORMS)
def test_data_as_of_text_and_bytes(form: str) -> None:
    text = in_form(form, make(data="é", datacontenttype="text/plain; charset=latin-1"))
    assert text.data_as(str) == "é"
    assert text.data_as(bytes) == b"\xe9"
    assert in_form(form, make(data=b"\xff")).data_as(bytes) == b"\xff"
    with pytest.raises(DecodeError, match="which is not JSON: use data or data_bytes"):
        text.data_as(dict)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("data", "model", "error"),
    [
        ({"id": "secret"}, Order, "Expected `int`, got `str`, at `$.id`"),
        ({"id": "secret"}, Struct, "Expected `int`, got `str`, at `$.id`"),
        ({"id": "secret"}, Model, "Input should be a valid integer, unable to parse string as an integer, at `$.id`"),
        ({}, Struct, "Object missing required field `id`, at `$`"),
        ({}, Model, "Field required, at `$.id`"),
        ({"id": 0}, Checked, "Expected `int` >= 1, at `$.id`"),
        ([{"id": 1}, {"id": "secret"}], list[Order], "Expected `int`, got `str`, at `$[1].id`"),
        ({"note": "secret"}, Strict, "value_error, at `$.note`"),
        ([{"note": "secret"}], list[Strict], "the value is not allowed, at `$[0]`"),
        ("secret", dict, "Expected `object`, got `str`, at `$`"),
        ("secret", int, "Expected `int`, got `str`, at `$`"),
    ],
)
def test_data_that_does_not_fit_is_a_decode_error_without_the_data(
    form: str, data: object, model: Any, error: str
) -> None:
    event = in_form(form, make(data=data))
    with pytest.raises(
        DecodeError, match=re.escape(f"data of event '1' of type 'com.example.order.created': {error}")
    ) as e:
        event.data_as(model)
    assert "secret" not in str(e.value)


def test_data_as_of_no_data() -> None:
    with pytest.raises(DecodeError, match="the event has no data"):
        make().data_as(dict)


def test_data_is_decoded_once() -> None:
    event = decode(make(data={"id": 7}).to_json())
    assert event.data is event.data


# replace


def test_replace_makes_another_event() -> None:
    event = make(data={"id": 7}, subject="a", partitionkey="k", extensions={"x": 1, "traceparent": "t"})
    other = event.replace(subject=None, id="2")
    assert (other.subject, other.id) == (None, "2")
    assert (event.subject, event.id) == ("a", "1")
    assert other.replace(subject="a", id="1") == event
    assert event.replace(extensions={"y": 2}).extensions == {"y": 2}
    assert event.replace(extensions={}).partitionkey == "k"
    assert event.replace(partitionkey=None).extensions == event.extensions
    assert event.replace(data=[1]).data_bytes == b"[1]"
    assert event.replace(time=None).time is None


def test_replace_keeps_what_it_is_not_told_to_change() -> None:
    raw = (
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-31T12:00:00.123456789+05:30",'
        b'"data":{"a" : 1,"a":2},"expirytime":"2026-01-31T12:00:00.123456789Z"}'
    )
    assert decode(raw).replace().to_json() == raw
    assert decode(raw).replace(id="2").to_json() == raw.replace(b'"id":"1"', b'"id":"2"')


def test_replace_of_the_media_type_keeps_the_bytes() -> None:
    event = make(data={"id": 7})
    assert event.replace(datacontenttype="text/plain").data == '{"id":7}'
    assert event.replace(datacontenttype="application/vnd.x+json").data == {"id": 7}
    text = make(data="é", datacontenttype="text/plain; charset=latin-1").replace(datacontenttype="text/plain")
    assert text.data_bytes == b"\xe9"
    with pytest.raises(DecodeError, match="not valid utf-8 text"):
        text.data  # noqa: B018


def test_replace_encodes_new_data_for_the_media_type_that_is_there() -> None:
    text = make(data="a", datacontenttype="text/plain")
    assert text.replace(data="b").data_bytes == b"b"
    with pytest.raises(
        InvalidArgumentError, match="it must be a string or bytes where datacontenttype is 'text/plain'"
    ):
        text.replace(data={"a": 1})
    assert text.replace(data={"a": 1}, datacontenttype=None).datacontenttype == "application/json"


def test_replace_checks_like_the_constructor() -> None:
    with pytest.raises(InvalidArgumentError, match="attribute subject is '': it must not be empty"):
        make().replace(subject="")
    with pytest.raises(
        InvalidArgumentError, match=r"replace\(\) knows no specversion, x: use type, source, .*extensions="
    ):
        make().replace(x=1, specversion="1.0")


class Subclass(CloudEvent):
    pass


def test_a_subclass_stays_one() -> None:
    event = Subclass(**FIXED, data=1)
    for again in (
        event.replace(id="1"),
        Subclass.from_json(event.to_json()),
        Subclass.from_dict(event.to_dict()),
        Subclass.from_http(*event.to_http()),
    ):
        assert type(again) is Subclass
        assert again == event == make(data=1)


# extensions


TYPED: Mapping[str, Any] = {
    "sampledrate": 3,
    "severitynumber": 9,
    "sequence": "00001",
    "expirytime": datetime(2026, 1, 31, 12, tzinfo=UTC),
    "recordedtime": datetime(2026, 1, 31, 17, 30, 0, 500, tzinfo=INDIA),
    "traceparent": "00-a-b-01",
    "tracestate": "a=1",
    "authtype": "user",
    "dataref": "https://example.com/x",
}


@pytest.mark.parametrize(
    "again",
    [
        lambda event: event,
        lambda event: CloudEvent.from_json(event.to_json()),
        lambda event: CloudEvent.from_dict(event.to_dict()),
        lambda event: CloudEvent.from_http(*event.to_http()),
        lambda event: KAFKA.decode(*KAFKA.encode(event)),
        lambda event: SQS.decode(*SQS.encode(event)),
        lambda event: CloudEvent.from_sdk(event.to_sdk()),
    ],
    ids=["built", "json", "dict", "http", "kafka", "sqs", "sdk"],
)
def test_documented_extensions_have_their_type_from_any_form(again: Any) -> None:
    event = again(make(extensions=TYPED))
    assert event.extensions == TYPED
    assert {name: type(value) for name, value in event.extensions.items()} == {
        name: type(value) for name, value in TYPED.items()
    }
    assert event.extensions["recordedtime"].utcoffset() == timedelta(hours=5, minutes=30)


def test_documented_extensions_may_be_given_as_strings() -> None:
    texts = {"sampledrate": "3", "expirytime": "2026-01-31T12:00:00Z", "sequence": 7}
    found = make(extensions=texts).extensions
    assert found == {"sampledrate": 3, "expirytime": TYPED["expirytime"], "sequence": "7"}


def test_other_extensions_stay_as_they_came() -> None:
    given: dict[str, Any] = {"flag": True, "count": 7, "raw": b"\0", "name": "x", "when": TYPED["expirytime"]}
    event = make(extensions=given)
    assert event.extensions == given
    assert decode(event.to_json()).extensions == given | {"raw": "AA==", "when": "2026-01-31T12:00:00Z"}
    http = CloudEvent.from_http(*event.to_http())
    assert http.extensions == {"flag": "true", "count": "7", "raw": "AA==", "name": "x", "when": "2026-01-31T12:00:00Z"}
    types = {"flag": bool, "count": int, "raw": bytes, "name": str, "when": datetime}
    assert decode(http.to_json(), types=types).extensions == given
    assert http == event


@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [
        (bool, '"yes"', "be a Boolean: true or false"),
        (int, '"007"', "be an Integer"),
        (int, "true", "be an Integer"),
        (bytes, '"?"', "be Base64"),
        (datetime, '"now"', "be an RFC 3339 timestamp"),
        (datetime, "7", "be a string"),
    ],
)
def test_an_extension_of_a_given_type_is_held_to_it(kind: type, value: str, rule: str) -> None:
    raw = f'{{"specversion":"1.0","id":"1","source":"/s","type":"t","x":{value}}}'
    assert decode(raw).extensions
    with pytest.raises(DecodeError, match=f"attribute x is .*: it must {rule}"):
        decode(raw, types={"x": kind})


# the SDK


def test_the_sdk_both_ways() -> None:
    sdk = pytest.importorskip("cloudevents.core.v1.event", reason="the CNCF SDK 2 is not installed")
    ours = make(
        data={"id": 7}, subject="s", dataschema="https://e.com", partitionkey="k", extensions={"x": 1, "y": True}
    )
    theirs = ours.to_sdk()
    assert type(theirs) is sdk.CloudEvent
    assert theirs.get_data() == {"id": 7}
    assert theirs.get_id() == "1"
    assert theirs.get_time() == ours.time
    assert theirs.get_extension("partitionkey") == "k"
    assert CloudEvent.from_sdk(theirs) == ours
    text = make(data="é", datacontenttype="text/plain; charset=latin-1")
    assert text.to_sdk().get_data() == "é"
    assert CloudEvent.from_sdk(text.to_sdk()) == text
    raw = make(data=b"\xff")
    assert raw.to_sdk().get_data() == b"\xff"
    assert CloudEvent.from_sdk(raw.to_sdk()) == raw


def test_an_event_of_the_sdk_with_its_own_choices_is_read() -> None:
    sdk = pytest.importorskip("cloudevents.core.v1.event", reason="the CNCF SDK 2 is not installed")
    theirs = sdk.CloudEvent({"type": "t", "source": "/s"}, {"a": 1})
    ours = CloudEvent.from_sdk(theirs)
    assert (ours.id, ours.time, ours.data) == (theirs.get_id(), theirs.get_time(), {"a": 1})
    assert ours.datacontenttype == "application/json"


class NoAttributes:
    def get_attributes(self) -> object:
        return None

    def get_data(self) -> object:
        return None


class OldVersion(NoAttributes):
    def get_attributes(self) -> object:
        return MappingProxyType({"specversion": "0.3", "id": "1", "source": "/s", "type": "t"})


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (None, "a NoneType is no event of the CNCF SDK"),
        ({}, "a dict is no event of the CNCF SDK"),
        (NoAttributes(), "a NoAttributes is no event of the CNCF SDK"),
        (OldVersion(), "attribute specversion is '0.3': it must be '1.0'"),
    ],
)
def test_what_is_no_event_of_the_sdk_is_refused(other: object, error: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(error)):
        CloudEvent.from_sdk(other)


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cloudevents.core.v1.event", None)
    with pytest.raises(UnsupportedError, match=r'pip install "cloudevents-bridge\[cncf\]"'):
        make().to_sdk()


# dict


def test_a_dict_has_plain_values() -> None:
    event = make(data=b"\xff", extensions={"x": 1, "expirytime": TYPED["expirytime"]})
    assert event.to_dict() == {
        "specversion": "1.0",
        "type": "com.example.order.created",
        "source": "/shop",
        "id": "1",
        "time": "2026-01-31T12:00:00Z",
        "datacontenttype": "application/octet-stream",
        "data_base64": "/w==",
        "x": 1,
        "expirytime": "2026-01-31T12:00:00Z",
    }
    typed = event.to_dict() | {"data_base64": b"\xff", "time": event.time, "expirytime": TYPED["expirytime"]}
    assert CloudEvent.from_dict(typed) == CloudEvent.from_dict(MappingProxyType(event.to_dict())) == event


def test_bytes_in_data_of_a_dict_are_refused() -> None:
    for data in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        with pytest.raises(DecodeError, match="data is bytes, which have no place there: give them as data_base64"):
            CloudEvent.from_dict(make().to_dict() | {"data": data})


@pytest.mark.parametrize("other", [None, [], "{}", b"{}", 1])
def test_what_is_no_mapping_is_refused(other: Any) -> None:
    with pytest.raises(DecodeError, match="is no mapping of attributes"):
        CloudEvent.from_dict(other)


# laziness


@pytest.fixture
def no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise AssertionError("the data was touched")

    for module in ("_data", "event"):
        for name in ("decode_plain", "encode_json", "encode_plain"):
            monkeypatch.setattr(f"cloudevents_bridge.{module}.{name}", refuse)


ODD = b'{ "b":1.50,\t"a" : 1e2, "a":"\\u00e9\\/", "big": 18446744073709551616 ,"b":[ ]}'


@pytest.mark.usefixtures("no_parsing")
def test_decoding_and_encoding_again_does_not_touch_json_data() -> None:
    raw = (
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":'
        + ODD
        + b"}"
    )
    event = CloudEvent.from_json(raw)
    assert event.to_json() == raw
    assert event.data_bytes == ODD
    headers, body = event.to_http()
    assert body == ODD
    assert CloudEvent.from_http(headers, body).to_json() == raw
    assert CloudEvent.from_http(headers, body) == event
    assert event.replace(id="2").data_bytes == ODD
    assert KAFKA.decode(*KAFKA.encode(event)).data_bytes == ODD
    assert HTTP.decode(*event.to_http(structured=True)).to_json() == raw
    assert "bytes>" in repr(event)
    with pytest.raises(AssertionError, match="the data was touched"):
        event.data  # noqa: B018


def test_bytes_that_are_given_as_json_stay_as_they_are() -> None:
    event = make(data=ODD, datacontenttype="application/json")
    assert event.data_bytes == ODD
    assert b'"data":' + ODD in event.to_json()
    assert event.data["big"] == 2**64
