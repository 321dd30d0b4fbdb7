"""What holds for every event, and for every input of a decoder."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import BINDINGS, JSON_TYPES, bodies, events, json_texts, names, strings

from cloudevents_bridge import CloudEvent, DecodeError
from cloudevents_bridge._media import media_type
from cloudevents_bridge.formats.json import decode, decode_batch, encode_batch

bounded = settings(
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
many = settings(bounded, max_examples=150)


def through(name: str, *, structured: bool = False) -> Callable[[CloudEvent], CloudEvent]:
    def pass_on(event: CloudEvent) -> CloudEvent:
        binding = BINDINGS["structured" if structured else name]
        return BINDINGS[name].decode(*binding.encode(event))

    return pass_on


FORMS: dict[str, Callable[[CloudEvent], CloudEvent]] = {
    "json bytes": lambda event: CloudEvent.from_json(event.to_json()),
    "json str": lambda event: CloudEvent.from_json(event.to_json().decode()),
    "json, typed": lambda event: decode(event.to_json(), types={}),
    "http binary": lambda event: CloudEvent.from_http(*event.to_http()),
    "http structured": lambda event: CloudEvent.from_http(*event.to_http(structured=True)),
    "http, upper case": lambda event: CloudEvent.from_http(
        {name.upper(): value for name, value in event.to_http()[0].items()}, event.to_http()[1]
    ),
    "replace": lambda event: event.replace(),
    "pickle": lambda event: pickle.loads(pickle.dumps(event)),
    "copy": copy.deepcopy,
    **{f"{name} binary": through(name) for name in BINDINGS},
    **{f"{name} structured": through(name, structured=True) for name in BINDINGS},
}


@pytest.mark.parametrize("form", FORMS)
@bounded
@given(event=events())
def test_every_event_comes_back_equal(form: str, event: CloudEvent) -> None:
    again = FORMS[form](event)
    assert again == event
    assert hash(again) == hash(event)
    assert dict(again.extensions).keys() == dict(event.extensions).keys()
    assert again.time == event.time
    # and a second time nothing moves any more
    assert FORMS[form](again).to_json() == again.to_json()


@bounded
@given(event=events())
def test_a_header_is_printable_ascii(event: CloudEvent) -> None:
    headers, _ = event.to_http()
    for name, value in headers.items():
        assert name.isascii()
        assert value.isascii()
        assert value.isprintable()


def is_raw_json(event: CloudEvent) -> bool:
    """Whether its data may be JSON that is not as this library writes it, which a dict does not keep."""
    media = media_type(event.datacontenttype or JSON_TYPES[0])
    return isinstance(event._state.body, bytes) and media is not None and media.kind == "json"


@bounded
@given(event=events())
def test_every_event_comes_back_from_a_dict(event: CloudEvent) -> None:
    again = CloudEvent.from_dict(event.to_dict())
    if is_raw_json(event) and "data" in event.to_dict():
        assert again.data == event.data
        assert again.replace(data=None) == event.replace(data=None)
    else:
        assert again == event
    assert again.to_dict() == event.to_dict()


@bounded
@given(sent=st.lists(events(), max_size=4))
def test_every_batch_comes_back_equal(sent: list[CloudEvent]) -> None:
    encoded = encode_batch(sent)
    assert decode_batch(encoded) == sent
    assert decode_batch(encoded.decode()) == sent


@bounded
@given(event=events())
def test_every_event_comes_back_from_the_sdk(event: CloudEvent) -> None:
    pytest.importorskip("cloudevents.core", reason="the CNCF SDK 2 is not installed")
    try:
        data = event.data
    except DecodeError:
        with pytest.raises(DecodeError):
            event.to_sdk()
        return
    again = CloudEvent.from_sdk(event.to_sdk())
    assert again.data == data
    if isinstance(event._state.body, bytes) or data is None:  # the SDK has values, not bytes, and no null
        without: dict[str, Any] = {"data": b"", "datacontenttype": "application/octet-stream"}
        assert again.replace(**without) == event.replace(**without)
    else:
        assert again == event


@many
@given(data=json_texts, media=st.sampled_from([None, *JSON_TYPES]))
def test_json_data_keeps_its_bytes(data: bytes, media: str | None) -> None:
    named = b"" if media is None else b'"datacontenttype":"' + media.encode() + b'",'
    raw = b'{"data": ' + data + b' ,"specversion":"1.0",' + named + b'"id":"1","source":"/s","type":"t","x":1}'
    event = CloudEvent.from_json(raw)
    for again in (event, CloudEvent.from_json(event.to_json()), *(through(name)(event) for name in BINDINGS)):
        assert again.data_bytes == data
        assert b'"data":' + data in again.to_json()
        assert again.to_http()[1] == data


def check(decoder: Callable[[], CloudEvent | list[CloudEvent]]) -> None:
    """It gives events, which can be used and passed on, or `DecodeError`."""
    try:
        found = decoder()
    except DecodeError:
        return
    for event in [found] if isinstance(found, CloudEvent) else found:
        assert repr(event)
        assert event.time is None or event.time.tzinfo is not None
        assert event.extensions is not None
        for use in (lambda e: e.data, lambda e: e.data_as(dict), CloudEvent.to_dict):
            with contextlib.suppress(DecodeError):
                use(event)
        for form in ("json bytes", "http binary", "kafka binary", "amqp structured", "pickle", "replace"):
            assert FORMS[form](event) == event


def check_bytes(raw: bytes) -> None:
    check(lambda: CloudEvent.from_json(raw))
    check(lambda: decode(raw, types={"x": int, "when": datetime, "raw": bytes, "flag": bool}))
    check(lambda: decode_batch(raw))
    check(lambda: CloudEvent.from_json(raw.decode("utf-8", "surrogateescape")))
    for binding in BINDINGS.values():
        check(lambda binding=binding: binding.decode({"content-type": "application/cloudevents+json"}, raw))  # type: ignore[misc]


raw_bytes = st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
TOKENS = [
    *rb'null true 0 -1 1.5 1e999 {} [] " \ \ud800 \u0000 \uffff , : } ]'.split(),
    *b"\xff \xef\xbb\xbf \x00 \x7f".split(b" "),
    b'"data":1,',
    b'"data_base64":"TQ==",',
    b'"time":"9999-12-31T23:59:60.9Z",',
    b'"time":"0001-01-01t00:00:00+23:59",',
    b'"specversion":"0.3",',
    b'"id":"",',
    b'"x":99,',
    b'"when":"x",',
    b'"datacontenttype":"text/plain;charset=utf-16",',
    b"1" * 5000,
    b"[" * 3000,
    b'{"a":' * 300,
]


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid encoding with a few bytes changed, cut, doubled or put in."""
    raw = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        stop = min(len(raw), start + draw(st.integers(0, 8)))
        raw[start:stop] = draw(st.sampled_from(TOKENS) | st.binary(max_size=4) | st.just(bytes(raw[start:stop]) * 2))
    return bytes(raw)


encodings = events().map(CloudEvent.to_json) | st.lists(events(), max_size=2).map(encode_batch)


@many
@given(raw=raw_bytes)
def test_any_bytes_give_an_event_or_a_decode_error(raw: bytes) -> None:
    check_bytes(raw)


@many
@given(raw=mutated(encodings))
def test_mutated_encodings_give_an_event_or_a_decode_error(raw: bytes) -> None:
    check_bytes(raw)


@many
@given(raw=mutated(events().map(CloudEvent.to_json)))
def test_the_quick_way_to_read_an_event_says_what_the_careful_way_says(raw: bytes) -> None:
    quick, careful = (read_as(kind, raw) for kind in (bytes, bytearray))
    assert quick == careful
    if isinstance(quick, CloudEvent) and isinstance(careful, CloudEvent):
        assert quick.to_json() == careful.to_json()


def read_as(kind: Any, raw: bytes) -> CloudEvent | str:
    """The event, or what the error says. Only bytes are read the quick way."""
    try:
        return CloudEvent.from_json(kind(raw))
    except DecodeError as error:
        return str(error)


anything: st.SearchStrategy[Any] = st.one_of(
    strings,
    st.text(max_size=8),
    st.none(),
    st.integers(),
    st.just(10**5000),
    st.floats(),
    st.binary(max_size=8),
    st.booleans(),
    st.datetimes(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(
        ["1.0", "0.3", "application/cloudevents+json", "text/plain; charset=utf-32", "%ED%A0%80", '"%"', "%"]
    ),
)
keys = st.one_of(
    *(
        st.sampled_from(["specversion", "id", "source", "type", "time", "data", "", "subject"]).map(prefix.__add__)
        for prefix in ("", "ce-", "CE-", "ce_", "cloudEvents_", "cloudEvents:")
    ),
    names.map("ce-".__add__),
    st.sampled_from(["content-type", "Content-Type"]),
    st.text(max_size=6),
)
odd_keys = keys | st.integers() | st.none() | st.binary(max_size=3) | st.tuples(st.integers())


@many
@given(attributes=st.dictionaries(odd_keys, anything, max_size=8), body=bodies)
def test_any_attributes_give_an_event_or_a_decode_error(attributes: dict[Any, Any], body: bytes) -> None:
    for binding in BINDINGS.values():
        check(lambda binding=binding: binding.decode(attributes, body))  # type: ignore[misc]
    check(lambda: CloudEvent.from_http(attributes, body))
    check(lambda: CloudEvent.from_dict(attributes))
    check(lambda: CloudEvent.from_dict({"specversion": "1.0", "id": "1", "source": "s", "type": "t"} | attributes))


@many
@given(event=events(), changes=st.dictionaries(keys, anything, max_size=3), body=bodies, keep=st.booleans())
def test_mutated_messages_give_an_event_or_a_decode_error(
    event: CloudEvent, changes: dict[Any, Any], body: bytes, keep: bool
) -> None:
    for binding in BINDINGS.values():
        attributes, kept = binding.encode(event)
        check(lambda: binding.decode({**attributes, **changes}, kept if keep else body))  # noqa: B023
