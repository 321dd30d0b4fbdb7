"""The binding: goldens as plain boto3 has them, and what SQS refuses."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudevents_bridge import CloudEvent
from cloudevents_bridge_aws import wire

REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _event(**attributes: object) -> CloudEvent:
    return CloudEvent(**{"type": "com.example.made", "source": "/shop", "id": "1", "time": None, **attributes})  # type: ignore[arg-type]


def test_structured_golden() -> None:
    attributes, body = wire.WIRES["structured"].encode(_event(data={"id": 7}))
    text, native = wire.pack(body, attributes)
    assert json.loads(text) == {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "com.example.made",
        "data": {"id": 7},
    } | ({"datacontenttype": "application/json"} if "datacontenttype" in json.loads(text) else {})
    assert native == {"content-type": {"DataType": "String", "StringValue": "application/cloudevents+json"}}


def test_binary_golden() -> None:
    attributes, body = wire.WIRES["binary"].encode(_event(subject="a", data={"id": 7}))
    text, native = wire.pack(body, attributes)
    assert text == '{"id":7}'
    assert {name: value["StringValue"] for name, value in native.items()} == {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/shop",
        "ce-type": "com.example.made",
        "ce-subject": "a",
        "content-type": "application/json",
    }


def test_binary_that_does_not_fit_is_structured() -> None:
    codec = wire.WIRES["binary"]
    for extensions in ({f"ext{n}": "x" for n in range(4)}, {"empty": ""}):
        event = _event(data={"id": 7}, extensions=extensions)
        attributes, body = codec.encode(event)
        assert attributes == {"content-type": "application/cloudevents+json"}
        assert codec.decode(attributes, body) == event
    fits = _event(data={"id": 7}, extensions={f"ext{n}": "x" for n in range(3)})
    assert "ce-ext0" in codec.encode(fits)[0]


def test_binary_that_fits_has_room_for_what_is_added_later() -> None:
    """Base64 and the reason of a dead letter make ten: with one more, SNS would drop all of them."""
    event = _event(data=b"\x00", extensions={f"ext{n}": "x" for n in range(3)})
    attributes, body = wire.WIRES["binary"].encode(event)
    _, native = wire.pack(body, {**attributes, "ceb-dead-letter": "why"})
    assert (len(native), wire.MORE in native) == (wire.MAX_ATTRIBUTES, False)
    text, native = wire.pack(body, {**attributes, "ceb-dead-letter": "why", "another": "x"})
    assert (len(native), wire.MORE in native) == (wire.MAX_ATTRIBUTES, True)
    assert wire.unpack(text, native) == (body, {**attributes, "ceb-dead-letter": "why", "another": "x"})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=40), st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=14))
def test_anything_is_carried_and_taken_by_sqs(body: bytes, attributes: dict[str, str]) -> None:
    attributes = {name: value for name, value in attributes.items() if name not in (wire.BODY, wire.MORE)}
    attributes = {
        n.encode("utf-8", "ignore").decode(): v.encode("utf-8", "ignore").decode() for n, v in attributes.items()
    }
    text, native = wire.pack(body, attributes)
    assert text
    assert not REFUSED.search(text)
    assert len(native) <= wire.MAX_ATTRIBUTES
    for name, value in native.items():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", name)
        assert value["StringValue"]
        assert not REFUSED.search(value["StringValue"])
    assert wire.unpack(text, native) == (body, attributes)
    size = len(text.encode()) + sum(len(n.encode()) + 6 + len(v["StringValue"].encode()) for n, v in native.items())
    assert wire.size(body, attributes) == size


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff\xfe", "\ufffe".encode(), b"plain", '{"a":"\u00fc"}'.encode()])
def test_bodies(body: bytes) -> None:
    usual = {"content-type": "application/cloudevents+json"}
    assert wire.unpack(*wire.pack(body, usual)) == (body, usual)


def test_foreign_attributes_are_text() -> None:
    native: wire.Attributes = {
        "number": {"DataType": "Number", "StringValue": "7"},
        "text": {"DataType": "Binary", "BinaryValue": b"abc"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\xff"},
        wire.MORE: {"DataType": "String", "StringValue": "not ours"},
    }
    _, attributes = wire.unpack("x", native)
    assert attributes == {"number": "7", "text": "abc", "bytes": "/w==", wire.MORE: "not ours"}
