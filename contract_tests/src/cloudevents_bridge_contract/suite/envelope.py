"""What of an event must survive the way through a broker: everything."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from cloudevents_bridge import CloudEvent, PublishError
from cloudevents_bridge.errors import EventTooLargeError
from cloudevents_bridge_contract.bench import Bench, native_place
from cloudevents_bridge_contract.suite.publish import Limited, length_at

ATTRIBUTES: dict[str, Any] = {
    "true": True,
    "false": False,
    "zero": 0,
    "largest": 2_147_483_647,
    "smallest": -2_147_483_648,
    "string": "a string",
    "digits": "0042",
    "word-true": "true",
    "binary": bytes(range(256)),
    "uri": "https://example.com/a%20b?c=d&e=%C3%A9#f",
    "uri-reference": "../a/b;c=1?d",
    "timestamp": datetime(2024, 2, 29, 12, 0, 0, 123456, UTC),
    "timestamp-zone": datetime(1999, 12, 31, 23, 59, 59, 1, timezone(timedelta(hours=-5, minutes=-30))),
}

EXTENSIONS: dict[str, dict[str, Any]] = {
    "distributed-tracing": {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    },
    "sequence": {"sequence": "0000000042", "sequencetype": "Integer"},
    "expirytime": {"expirytime": datetime(2124, 1, 1, tzinfo=UTC)},
    "dataref": {"dataref": "https://example.com/store/4711"},
    "severity": {"severitytext": "WARN", "severitynumber": 13},
    "sampledrate": {"sampledrate": 30},
    "authcontext": {"authtype": "app_user", "authid": "u-1", "authclaims": '{"roles":["admin","\u00e9"]}'},
    "correlation": {"correlationid": "c-1", "causationid": "c-0"},
    "recordedtime": {"recordedtime": datetime(2024, 1, 2, 3, 4, 5, 678000, UTC)},
}

WEIRD = [
    "/",
    "a//b/",
    "../../etc/passwd",
    "..",
    "C:\\temp\\x",
    '"double"',
    "it's 'single'",
    "0leading-digit",
    " leading and trailing ",
    "semi;colon,comma",
    "per%cent%20and%zz",
    "a=b&c=d?e#f",
    "<tag attr='1'>&amp;</tag>",
    "\u00fcml\u00e4ut \u00df",
    "\u65e5\u672c\u8a9e",
    "\U0001f389\U0001f469\u200d\U0001f680",
    "e\u0301 is not \u00e9",
    "$(touch x) `id` ${HOME} {{x}}",
]

TEXTS = {
    "ascii": "plain",
    "empty": "",
    "control": "".join(map(chr, range(32))) + "\x7f\x85",
    "newlines": "a\nb\r\nc\rd\u2028e\u2029",
    "astral": "\U0001f600\U0010ffff\U00010000 \ufffd\ufeff\u200f",
    "combining": "e\u0301\u00e9",
}

JSON = {
    "object": {"a": [1, {"b": None}], "\u00fc": "\u65e5", "": 0},
    "empty-object": {},
    "list": [1, "two", None, [], {}],
    "string": 'a "quoted" \\ string \u0000\u001f',
    "empty-string": "",
    "integer": 7,
    "large-integer": 2**53 + 1,
    "fraction": -0.5e-7,
    "true": True,
    "false": False,
    "null": None,
}


class EnvelopeCases:
    @pytest.mark.parametrize("kind", ATTRIBUTES)
    def test_attribute_types(self, bench: Bench, kind: str) -> None:
        event = bench.event(extensions={"myextension": ATTRIBUTES[kind]})
        assert _through(bench, event).extensions["myextension"] is not None

    def test_context_attributes(self, bench: Bench) -> None:
        event = bench.event(
            type="com.example.order.created.v2",
            subject="orders/4711",
            time=datetime(2024, 2, 29, 23, 59, 59, 999999, timezone(timedelta(hours=5, minutes=45))),
            datacontenttype="application/vnd.example.order+json; charset=utf-8",
            dataschema="https://example.com/schemas/order#v2",
            partitionkey="customer-7",
        )
        back = _through(bench, event)
        for name in ("specversion", "id", "type", "source", "subject", "time", "dataschema", "partitionkey", "data"):
            assert getattr(back, name) == getattr(event, name), name

    def test_absent_attributes_stay_absent(self, bench: Bench) -> None:
        back = _through(bench, bench.event(time=None))
        assert (back.time, back.subject, back.dataschema, back.partitionkey) == (None, None, None, None)
        assert dict(back.extensions) == {}

    @pytest.mark.parametrize("family", EXTENSIONS)
    def test_documented_extensions(self, bench: Bench, family: str) -> None:
        event = bench.event(extensions=EXTENSIONS[family])
        back = _through(bench, event)
        for name, value in EXTENSIONS[family].items():
            assert (back.extensions[name], type(back.extensions[name])) == (value, type(value)), name

    def test_twenty_extensions(self, bench: Bench) -> None:
        event = bench.event(extensions={f"extension{n}": "x" * n for n in range(1, 21)})
        assert dict(_through(bench, event).extensions) == dict(event.extensions)

    @pytest.mark.parametrize("number", range(len(WEIRD)))
    def test_weird_strings(self, bench: Bench, number: int) -> None:
        text = WEIRD[number]
        event = bench.event(
            id=f"{bench.mark}{text}", type=text, subject=text, partitionkey=text, extensions={"myextension": text}
        )
        back = _through(bench, event)
        assert (back.id, back.type, back.subject) == (f"{bench.mark}{text}", text, text)
        assert (back.partitionkey, back.extensions["myextension"]) == (text, text)

    @pytest.mark.parametrize("kind", TEXTS)
    def test_text_data(self, bench: Bench, kind: str) -> None:
        event = bench.event(data=TEXTS[kind], datacontenttype="text/plain; charset=utf-8")
        back = _through(bench, event)
        assert back.data == TEXTS[kind]
        assert back.data_bytes == TEXTS[kind].encode()

    @pytest.mark.parametrize("kind", JSON)
    def test_json_data(self, bench: Bench, kind: str) -> None:
        back = _through(bench, bench.event(data=JSON[kind]))
        assert (back.data, type(back.data)) == (JSON[kind], type(JSON[kind]))

    def test_absent_data(self, bench: Bench) -> None:
        event = bench.own(CloudEvent(type="com.example.contract", source=bench.source, id=f"{bench.mark}-0"))
        assert _through(bench, event).data_bytes is None

    @pytest.mark.parametrize("data", [b"", bytes(range(256)), b"\x00", b"\xff\xfe\xfd", b'{"a":1}'], ids=range(5))
    def test_bytes_data(self, bench: Bench, data: bytes) -> None:
        back = _through(bench, bench.event(data=data))
        assert back.data_bytes == data
        assert back.data == data

    @pytest.mark.parametrize("media", ["Application/JSON", "application/cloudevents+json", "text/xml", "image/png"])
    def test_content_types(self, bench: Bench, media: str) -> None:
        data: Any = {"a": 1} if "json" in media.lower() else b"<a/>"
        back = _through(bench, bench.event(data=data, datacontenttype=media))
        assert back.datacontenttype == media

    def test_at_the_size_limit_and_one_over(self, bench: Bench) -> None:
        topic = bench.topic()
        publisher = bench.driver().open_publisher(native_place(topic))
        limit = min(publisher.traits.message_bytes, 256 * 1024)
        if limit < publisher.traits.message_bytes:  # too large to try: see that a smaller one is kept
            broker = bench.broker(topic, shim=Limited(count=100, total=limit))
        else:
            broker = bench.broker(topic)
        sample, largest, over = bench.events(3, data=b"")  # their ids are of one length
        size = bench.sizes(topic)
        length = length_at(limit, lambda n: size(sample.replace(data=b"x" * n)))
        largest, over = largest.replace(data=b"x" * length), over.replace(data=b"x" * (length + 1))
        broker.publish(topic.name, largest)
        with pytest.raises(EventTooLargeError) as caught:
            broker.publish(topic.name, over)
        assert over.id in str(caught.value)
        assert str(limit) in str(caught.value).replace(",", ""), f"the limit is not named: {caught.value}"
        with pytest.raises(PublishError) as several:
            broker.publish_many(topic.name, [over, sample])
        assert [e.id for e, _ in several.value.failed] == [over.id]
        arrived = {}
        subscriber = bench.subscriber(topic)
        for _ in range(2):
            delivery = bench.one(subscriber)
            arrived[delivery.event.id] = delivery.event.data_bytes
            delivery.ack()
        assert arrived == {largest.id: b"x" * length, sample.id: b""}

    @pytest.mark.parametrize("form", ["structured", "binary"])
    def test_both_forms_are_read(self, bench: Bench, form: str) -> None:
        topic = bench.topic()
        event = bench.event(time=None, subject="a/b", extensions={"myextension": "x"}, data={"a": "\u00fc"})
        if form == "structured":
            attributes, body = {"content-type": "application/cloudevents+json"}, _compact(_structured(event))
        else:
            native = bench.rig.binary_form(event)
            attributes, body = dict(native.attributes), native.body
        bench.put(topic, body, attributes)
        bench.one(bench.subscriber(topic), event).ack()

    def test_native_message_has_the_documented_form(self, bench: Bench) -> None:
        topic = bench.topic()
        event = bench.event(
            time=None, subject="a/b", extensions={"myextension": "x", "sampledrate": 3}, data={"a": [1, "\u00fc"]}
        )
        wanted = bench.rig.native_form(event)
        bench.publish(topic, event)
        found = bench.rig.native_receive(bench.url, topic)
        assert {name: found.attributes.get(name) for name in wanted.attributes} == dict(wanted.attributes)
        if wanted.body[:1] == b"{":
            assert json.loads(found.body) == json.loads(wanted.body)
        else:
            assert found.body == wanted.body

    def test_native_message_in_the_documented_form_is_read(self, bench: Bench) -> None:
        topic = bench.topic()
        event = bench.event(
            time=None, subject="a/b", extensions={"myextension": "x", "sampledrate": 3}, data={"a": [1, "\u00fc"]}
        )
        bench.rig.native_send(bench.url, topic, bench.rig.native_form(event))
        bench.one(bench.subscriber(topic), event).ack()


def _through(bench: Bench, event: CloudEvent) -> CloudEvent:
    """The event as it comes out; it must be equal to what went in."""
    topic = bench.topic()
    bench.publish(topic, event)
    delivery = bench.one(bench.subscriber(topic), event)
    delivery.ack()
    return delivery.event


def _compact(form: object) -> bytes:
    """As every writer here spells JSON: equal data is equal bytes."""
    return json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()


def _structured(event: CloudEvent) -> dict[str, Any]:
    """The JSON form, spelled out here: not with the codec under test."""
    form: dict[str, Any] = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
    if event.subject is not None:
        form["subject"] = event.subject
    form |= event.extensions
    form["datacontenttype"] = "application/json"
    if isinstance(event.data, bytes):
        return form | {"data_base64": base64.b64encode(event.data).decode()}
    return form | {"data": event.data}
