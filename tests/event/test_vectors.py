"""Own vectors, for what the conformance cases lack: what is read, what is written, and what an error says."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from strategies import BINDINGS

from cloudevents_bridge import CloudEvent, DecodeError
from cloudevents_bridge.bindings import HTTP, KAFKA, STRUCTURED, Mapped
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge.formats.json import decode, decode_batch, encode, encode_batch

VECTORS = Path(__file__).parent / "vectors"
JSON: dict[str, list[dict[str, Any]]] = json.loads((VECTORS / "json.json").read_text("utf-8"))
LAYOUTS: dict[str, Any] = json.loads((VECTORS / "bindings.json").read_text("utf-8"))
START = '{"specversion":"1.0","id":"1","source":"/s","type":"t"'
NAMED: dict[str, Any] = {"type": "t", "source": "/s"}


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in JSON[kind]]


def envelope(members: str) -> str:
    return f"{START},{members}}}" if members else START + "}"


def raw_of(vector: dict[str, Any]) -> bytes:
    if "base64" in vector:
        return base64.b64decode(vector["base64"])
    if "text" in vector:
        return str(vector["text"]).encode()
    text, count = vector.get("repeat", ("", 0))
    return envelope(vector["members"] + text * count).encode()


def said_by(event: CloudEvent, name: str) -> Any:
    match name:
        case "data_bytes":
            return None if event.data_bytes is None else event.data_bytes.decode()
        case "data_hex":
            return (event.data_bytes or b"").hex()
        case "time":
            return event.time and event.time.isoformat()
        case "extensions":
            return dict(event.extensions)
        case _:
            return getattr(event, name)


@pytest.mark.parametrize("vector", of_kind("valid"))
def test_an_event_in_json_says_what_stands_there(vector: dict[str, Any]) -> None:
    raw = raw_of(vector)
    again = envelope(vector["again"] if "again" in vector else vector["members"]).encode()
    batch = decode_batch(b"[" + raw.removeprefix(b"\xef\xbb\xbf") + b"]")
    for event in (decode(raw), decode(raw.decode()), decode(bytearray(raw)), *batch):  # type: ignore[arg-type]
        assert {name: said_by(event, name) for name in vector["is"]} == vector["is"]
        # members as written here stand in the order in which they are written
        assert event.to_json() == again


@pytest.mark.parametrize("vector", of_kind("invalid"))
def test_what_is_no_event_is_refused_and_the_error_says_why(vector: dict[str, Any]) -> None:
    raw = raw_of(vector)
    with pytest.raises(DecodeError, match=re.escape(vector["error"])) as caught:
        decode(raw)
    assert str(caught.value).startswith("not a CloudEvent: ")
    with pytest.raises(DecodeError):
        decode(raw.decode("utf-8", "surrogateescape"))
    with pytest.raises(DecodeError):
        STRUCTURED.decode({}, raw)
    with pytest.raises(DecodeError, match="batch"):
        decode_batch(b"[" + raw + b",]")


@pytest.mark.parametrize("vector", of_kind("data_error"))
def test_data_that_is_not_what_its_type_says_is_an_error_when_it_is_asked_for(vector: dict[str, Any]) -> None:
    event = decode(raw_of(vector))
    assert event.data_bytes
    assert CloudEvent.from_json(event.to_json()) == event
    for _ in range(2):
        with pytest.raises(DecodeError, match=f"data of event '1' of type 't': .*{re.escape(vector['error'])}"):
            event.data  # noqa: B018


# batches


def test_a_batch_is_a_list_of_events() -> None:
    events = [CloudEvent(**NAMED, data=1), CloudEvent(**NAMED, data=b"\xff"), CloudEvent(**NAMED)]
    encoded = encode_batch(iter(events))
    assert encoded == b"[" + b",".join(event.to_json() for event in events) + b"]"
    assert decode_batch(encoded) == decode_batch(encoded.decode()) == decode_batch(b"\xef\xbb\xbf" + encoded) == events


@pytest.mark.parametrize("raw", ["[]", " [ ] ", b"[]", b"[\n]"])
def test_a_batch_may_be_empty(raw: bytes | str) -> None:
    assert decode_batch(raw) == []
    assert encode_batch([]) == b"[]"


def test_data_of_a_batch_keeps_its_bytes() -> None:
    raw = "[ " + envelope('"data":{"a":1, "a" :2}') + "\n, " + envelope('"data":[ ]') + " ]"
    assert [event.data_bytes for event in decode_batch(raw)] == [b'{"a":1, "a" :2}', b"[ ]"]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ("{}", "not a batch of CloudEvents: Expected `array`"),
        (START + "}", "not a batch of CloudEvents: Expected `array`"),
        ("", "not a batch of CloudEvents: "),
        (b"[\xff]", "not a batch of CloudEvents: it is not valid UTF-8"),
        ("[" * 100_000, "not a batch of CloudEvents: it is nested too deeply"),
        (None, "a NoneType is neither bytes nor str"),
        (f"[{START}}},{START},]", "not a batch"),
        (f"[{START}}},{{}}]", "event 1 of the batch: not a CloudEvent: attribute specversion is missing"),
        (f"[{START}}},null]", "event 1 of the batch: not a CloudEvent: Expected `object`"),
        (f"[[{START}}}]]", "event 0 of the batch: not a CloudEvent: Expected `object`"),
    ],
)
def test_a_wrong_batch_is_refused_and_the_error_says_which_event(raw: Any, error: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(error)):
        decode_batch(raw)


def test_a_batch_where_one_event_was_expected_is_named() -> None:
    with pytest.raises(
        DecodeError, match=r"is a batch of events where one was expected: use formats\.json\.decode_batch"
    ):
        HTTP.decode({"Content-Type": "application/cloudevents-batch+json"}, b"[]")
    with pytest.raises(DecodeError, match=r"application/cloudevents\+avro is an event format that is not known here"):
        HTTP.decode({"Content-Type": "Application/CloudEvents+Avro; v=1"}, b"")


# large and deep


@pytest.mark.parametrize("name", BINDINGS)
def test_ten_megabytes_of_data_come_back(name: str) -> None:
    big = "x" * 10_000_000
    layout = BINDINGS[name]
    event = CloudEvent(**NAMED, data={"big": big})
    assert layout.decode(*layout.encode(event)).data == {"big": big}
    assert len(repr(event)) < 200
    raw = CloudEvent(**NAMED, data=big.encode())
    assert layout.decode(*layout.encode(raw)).data == big.encode()


def test_two_hundred_levels_are_data() -> None:
    nested: Any = 0
    for level in range(200):
        nested = [nested] if level % 2 else {"a": nested}
    event = CloudEvent(**NAMED, data=nested)
    for again in (event, decode(encode(event)), CloudEvent.from_http(*event.to_http())):
        assert again.data == nested
        assert again == event


@pytest.mark.parametrize("levels", [100_000, 1_000_000])  # how deep is too deep differs between Pythons
def test_what_is_nested_too_deeply_is_a_decode_error(levels: int) -> None:
    for opened, closed in (("[", "]"), ('{"a":', "}")):
        deep = opened * levels + "1" + closed * levels
        for members in (f'"data":{deep}', f'"x":{deep}', deep):
            with pytest.raises(DecodeError):
                decode(envelope(members))
        with pytest.raises(DecodeError, match="nested too deeply"):
            decode(envelope(f'"data":{deep}').encode())
        event = HTTP.decode(
            {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", "content-type": "text/json"},
            deep.encode(),
        )
        with pytest.raises(DecodeError, match="nested too deeply: use data_bytes"):
            event.data  # noqa: B018
        assert event.data_bytes == deep.encode()
        assert decode(event.to_json()) == event


def test_a_value_that_is_nested_too_deeply_is_refused_by_the_constructor() -> None:
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(InvalidArgumentError, match="data, a list, cannot be encoded: it must not contain itself"):
        CloudEvent(**NAMED, data=deep)


# what JSON has no form for


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused(number: float) -> None:
    for data in (number, [1, number], {"a": {"b": number}}, [None, number], (number,)):
        with pytest.raises(InvalidArgumentError, match=r"data, a \w+, cannot be encoded: it must not hold -?(nan|inf)"):
            CloudEvent(**NAMED, data=data)
        with pytest.raises(DecodeError, match=r"nan|inf"):
            CloudEvent.from_dict({"specversion": "1.0", "id": "1", **NAMED, "data": data})


@pytest.mark.parametrize("data", ["\ud800", ["x\udc00"], {"\udfff": 1}, {"a": {"b": "\ud83d"}}])
def test_lone_surrogates_in_data_are_refused(data: object) -> None:
    with pytest.raises(InvalidArgumentError, match="must not hold lone surrogates"):
        CloudEvent(**NAMED, data=data)
    with pytest.raises(DecodeError, match="lone surrogates"):
        CloudEvent.from_dict({"specversion": "1.0", "id": "1", **NAMED, "data": data})


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-32", "us-ascii"])
def test_lone_surrogates_in_text_are_refused(charset: str) -> None:
    with pytest.raises(InvalidArgumentError, match="characters that the charset"):
        CloudEvent(**NAMED, data="\ud800", datacontenttype=f"text/plain; charset={charset}")


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400])
def test_whole_numbers_keep_all_their_digits(number: int) -> None:
    event = CloudEvent(**NAMED, data=[number])
    assert event.data_bytes == f"[{number}]".encode()
    for again in (
        event,
        decode(encode(event)),
        CloudEvent.from_dict(event.to_dict()),
        HTTP.decode(*HTTP.encode(event)),
    ):
        assert again.data == [number]
        assert isinstance(again.data[0], int)


# data and no data


@pytest.mark.parametrize("layout", BINDINGS.values(), ids=BINDINGS)
@pytest.mark.parametrize(
    ("arguments", "data", "data_bytes"),
    [
        ({}, None, None),
        ({"datacontenttype": "application/json"}, None, None),
        ({"data": None}, None, b"null"),
        ({"data": ""}, "", b'""'),
        ({"data": {}}, {}, b"{}"),
        ({"data": b"null", "datacontenttype": "application/json"}, None, b"null"),
        ({"data": b"null"}, b"null", b"null"),
    ],
)
def test_null_and_absent_stay_what_they_are(layout: Mapped, arguments: Any, data: object, data_bytes: bytes) -> None:
    event = CloudEvent(**NAMED, **arguments)
    for again in (event, layout.decode(*layout.encode(event)), decode(encode(event))):
        assert again.data == data
        assert again.data_bytes == data_bytes
        assert again.datacontenttype == event.datacontenttype


def test_null_and_absent_are_not_equal() -> None:
    absent = CloudEvent(**NAMED, id="1", time=None, datacontenttype="application/json")
    assert absent != absent.replace(data=None)
    assert absent == absent.replace(data=b"")  # empty data counts as none


# bindings

NAMES = ["HTTP", "AMQP", "PUBSUB", "KAFKA", "SQS"]


def written(name: str) -> dict[str, str]:
    """The golden attributes in binary mode; those of HTTP in full, the others by their prefix."""
    if name == "HTTP":
        return dict(LAYOUTS["HTTP"]["written"])
    attributes: dict[str, Any] = {"specversion": "1.0"} | LAYOUTS["event"]
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in attributes.items()}
    prefixed = {LAYOUTS[name]["prefix"] + key: text for key, text in texts.items()}
    return prefixed | {"content-type": LAYOUTS["datacontenttype"]}


def golden() -> CloudEvent:
    return decode(LAYOUTS["structured"])


@pytest.mark.parametrize("name", NAMES)
def test_the_attributes_of_a_binding_are_the_golden_ones(name: str) -> None:
    assert BINDINGS[name.lower()].encode(golden()) == (written(name), LAYOUTS["body"].encode())


@pytest.mark.parametrize("name", [*NAMES, "STRUCTURED"])
def test_a_binding_reads_both_modes(name: str) -> None:
    layout = BINDINGS[name.lower()]
    body = LAYOUTS["structured"].encode()
    assert STRUCTURED.encode(golden()) == ({"content-type": "application/cloudevents+json"}, body)
    modes = [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON; charset=UTF-8",
        " application/cloudevents+json ",
    ]
    for mode in modes:
        # in structured mode attributes beside the body do not count
        event = layout.decode({"content-type": mode, layout.prefix + "id": "other"}, body)
        assert event == golden()
        assert event.to_json() == body
    if name == "STRUCTURED":
        assert layout.decode({}, body) == golden()
        name = "SQS"
    event = layout.decode(written(name), LAYOUTS["body"].encode())
    assert event == golden()
    assert event.data_bytes == LAYOUTS["body"].encode()
    assert event.extensions["sampledrate"] == 3
    assert event.time == golden().time


def variants() -> list[Any]:
    return [
        pytest.param(name, changes, id=f"{name}-{number}")
        for name in NAMES
        for number, changes in enumerate(LAYOUTS[name]["read"])
    ]


@pytest.mark.parametrize(("name", "changes"), variants())
def test_a_binding_also_reads(name: str, changes: dict[str, str | None]) -> None:
    attributes = {key: value for key, value in (written(name) | changes).items() if value is not None}
    assert BINDINGS[name.lower()].decode(attributes, LAYOUTS["body"].encode()) == golden()


@pytest.mark.parametrize("name", NAMES)
def test_a_message_that_is_no_event_is_refused(name: str) -> None:
    for attributes in ({}, {"content-type": "application/json"}, {"Content-Type": "", "other": "x"}):
        with pytest.raises(
            DecodeError, match=r"the message has neither content-type: application/cloudevents\+json nor"
        ):
            BINDINGS[name.lower()].decode(attributes, b"{}")


@pytest.mark.parametrize("layout", BINDINGS.values(), ids=BINDINGS)
def test_another_version_in_a_message_is_refused(layout: Mapped) -> None:
    attributes = {layout.prefix + name: "x" for name in ("specversion", "id", "type", "source")}
    for version in ("0.3", "1.0.2", "", "1"):
        attributes[layout.prefix + "specversion"] = version
        with pytest.raises(DecodeError, match=rf"attribute specversion is '{re.escape(version)}': it must be '1\.0'"):
            layout.decode(attributes, b"")


@pytest.mark.parametrize(
    "media", ["application/cloudevents+json", "Application/CloudEvents-Batch+JSON", "application/cloudevents"]
)
@pytest.mark.parametrize("layout", BINDINGS.values(), ids=BINDINGS)
def test_an_event_whose_data_is_an_event_goes_out_structured(layout: Mapped, media: str) -> None:
    event = CloudEvent(**NAMED, data=CloudEvent(**NAMED, id="inner").to_json(), datacontenttype=media)
    attributes, body = layout.encode(event)
    assert attributes == {"content-type": "application/cloudevents+json"}
    again = layout.decode(attributes, body)
    assert again == event
    assert again.id == event.id


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("plain-._~!#$&'()*+,/:;=?@[]^`{|}", "plain-._~!#$&'()*+,/:;=?@[]^`{|}"),
        ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("%zz", "%25zz"),
        ('"quoted"', "%22quoted%22"),
        (" both ends ", "%20both%20ends%20"),
        ("back\\slash", "back\\slash"),
        ("\u00a0", "%C2%A0"),
        ("e\u0301", "e%CC%81"),
        ("\U0010fffd", "%F4%8F%BF%BD"),
        ("", ""),
    ],
)
def test_a_header_is_escaped_and_read_back(value: str, header: str) -> None:
    event = CloudEvent(**NAMED, extensions={"x": value})
    headers, body = event.to_http()
    assert headers["ce-x"] == header
    quoted = '"' + header.replace("\\", "\\\\") + '"'
    for form in (header, quoted, f"\t{header} "):
        assert CloudEvent.from_http({**headers, "ce-x": form}, body).extensions["x"] == value


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ('"a b"', "a b"),
        ('"a%20b"', "a b"),
        ('"say \\"hi\\" \\\\ \\x"', 'say "hi" \\ x'),
        ('"', '"'),
        ('""', ""),
        ('"open', '"open'),
        ('"%22"', '"'),
        ("%e2%82%ac", "€"),
        ("%E2%82%AC%20%e2%82%ac", "€ €"),
        ("€", "€"),
        ("%", "%"),
        ("%4", "%4"),
        ("%zz%41", "%zzA"),
        ("%2541", "%41"),
        ("a+b", "a+b"),
    ],
)
def test_what_others_write_into_headers_is_read(header: str, value: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-x": header}
    assert CloudEvent.from_http(headers, b"").extensions["x"] == value


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("%FF", "its percent-escapes are not valid UTF-8"),
        ("%ED%A0%80", "its percent-escapes are not valid UTF-8"),
        ("%C0%80", "its percent-escapes are not valid UTF-8"),
        ("%E2%82", "its percent-escapes are not valid UTF-8"),
        ("%00", "attribute x is '\\x00': it must not hold U+0000"),
        ("%0D%0A", "it must not hold U+000D"),
        ("a\nb", "it must not hold U+000A"),
        ("%EF%BF%BF", "it must not hold U+FFFF"),
        ("\ud800", "it must not hold U+D800"),
    ],
)
def test_escapes_that_are_no_string_are_refused(header: str, error: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-x": header}
    with pytest.raises(DecodeError, match=re.escape(error)):
        CloudEvent.from_http(headers, b"")


def test_only_http_escapes() -> None:
    event = CloudEvent(**NAMED, extensions={"x": "a %41 é"})
    attributes, body = KAFKA.encode(event)
    assert attributes["ce_x"] == "a %41 é"
    assert KAFKA.decode(attributes, body) == event
