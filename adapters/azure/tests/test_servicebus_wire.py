"""Messages as Service Bus has them: what Azure's own client sees, and what it writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpMessageBodyType, AmqpMessageProperties
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudevents_bridge import CloudEvent
from cloudevents_bridge.driver import DEAD_LETTER, Outbound
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge_azure.servicebus import wire

NOW = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
EVENT = CloudEvent(
    type="com.example.order.created",
    source="/shop",
    id="order-7",
    subject="Ordnung für 7 €",
    time=datetime(2024, 2, 29, 12, 0, 0, 123000, UTC),
    data={"id": 7},
    extensions={"sampledrate": 3},
)


class Received:
    """As the SDK gives it: keys and values are bytes."""

    def __init__(self, message: ServiceBusMessage, **changes: Any) -> None:
        properties = message.application_properties or {}
        self.raw_amqp_message = SimpleNamespace(
            application_properties={_bytes(name): _bytes(value) for name, value in properties.items()},
            properties=AmqpMessageProperties(content_type=message.content_type),
            body_type=AmqpMessageBodyType.DATA,
            body=iter([b"".join(message.body)]),
        )
        self.raw_amqp_message.__dict__.update(changes)


def _bytes(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _native(mode: str = "binary", **fields: Any) -> ServiceBusMessage:
    attributes, body = wire.WIRES[mode].encode(EVENT)
    session = wire.session_of(fields["key"]) if "key" in fields else None
    return wire.native(Outbound(body, attributes, **fields), session, now=NOW)


def test_binary_golden() -> None:
    message = _native()
    assert b"".join(message.body) == b'{"id":7}'
    assert message.content_type == "application/json"
    assert message.application_properties == {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": "order-7",
        "cloudEvents_source": "/shop",
        "cloudEvents_type": "com.example.order.created",
        "cloudEvents_subject": "Ordnung für 7 €",
        "cloudEvents_time": "2024-02-29T12:00:00.123000Z",
        "cloudEvents_sampledrate": "3",
    }
    assert message.session_id is None


def test_structured_golden() -> None:
    message = _native("structured")
    assert (message.content_type, message.application_properties) == ("application/cloudevents+json", {})
    assert CloudEvent.from_json(b"".join(message.body)) == EVENT


@pytest.mark.parametrize("written", ["binary", "structured"])
@pytest.mark.parametrize("read", ["binary", "structured"])
def test_both_modes_are_read(written: str, read: str) -> None:
    body, attributes = wire.decode(Received(_native(written)), letter=False)
    assert wire.WIRES[read].decode(attributes, body) == EVENT


def test_the_other_separator_and_typed_properties_are_read() -> None:
    properties: dict[str | bytes, Any] = {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": "1",
        "cloudEvents:source": "/shop",
        "cloudEvents:type": "a.b",
        "cloudEvents:time": 1709208000123,
        "cloudEvents:sampledrate": 3,
        "cloudEvents:urgent": True,
    }
    native = ServiceBusMessage(b"7", application_properties=properties, content_type="application/json")
    body, attributes = wire.decode(Received(native), letter=False)
    event = wire.WIRES["binary"].decode(attributes, body)
    assert (event.data, event.time) == (7, datetime(2024, 2, 29, 12, 0, 0, 123000, UTC))
    assert (event.extensions["sampledrate"], event.extensions["urgent"]) == (3, "true")


def test_a_body_that_is_a_value_is_kept() -> None:
    for value, wanted in (("text", b"text"), (b"\x00", b"\x00"), (None, b""), ({"a": 1}, b"{'a': 1}")):
        native = Received(ServiceBusMessage(b""), body_type=AmqpMessageBodyType.VALUE, body=value)
        assert wire.decode(native, letter=False)[0] == wanted


def test_keys_are_sessions() -> None:
    assert _native(key="customer-7").session_id == "customer-7"
    long = wire.session_of("k" * 129)
    assert long == wire.session_of("k" * 129) != wire.session_of("k" * 130)
    assert len(long) <= wire.MAX_ID
    assert wire.key_of(long) == long
    made_up = {wire.session_of(None) for _ in range(1000)}
    assert len(made_up) == 8  # for so many consumers
    assert {wire.key_of(each) for each in made_up} == {None}
    assert wire.key_of(wire.session_of("ceb-none-1")) is not None  # a key that looks like a made-up one


def test_ids_deduplicate() -> None:
    assert _native(dedup="/shop 7").message_id == "/shop 7"
    long = _native(dedup="x" * 200).message_id
    assert long is not None
    assert len(long) <= wire.MAX_ID
    assert long == _native(dedup="x" * 200).message_id
    assert _native().message_id != _native().message_id


def test_delay_and_expiry() -> None:
    message = wire.native(Outbound(b"", {}, delay=90, ttl=60.5), now=NOW)
    assert message.scheduled_enqueue_time_utc == datetime(2024, 1, 1, 0, 1, 30, tzinfo=UTC)
    assert message.time_to_live == timedelta(seconds=60.5)
    assert wire.native(Outbound(b"", {}, ttl=0.0), now=NOW).time_to_live == timedelta(milliseconds=1)
    more_than_amqp_can_say = Outbound(b"", {}, ttl=60 * 86_400.0)
    assert wire.native(more_than_amqp_can_say, now=NOW).time_to_live is None


@pytest.mark.parametrize("length", [0, 10, 4096, 4097, 8000])
def test_the_reason_of_a_dead_letter_comes_back_verbatim(length: int) -> None:
    text = ("ü" * length)[: max(length, 1)]
    title, description = wire.reasons(text)
    assert max(len(title), len(description)) <= wire.MAX_REASON
    properties: dict[str | bytes, Any] = {"DeadLetterReason": title, "DeadLetterErrorDescription": description}
    native = Received(ServiceBusMessage(b"", application_properties=properties))
    assert wire.decode(native, letter=True)[1] == {DEAD_LETTER: text or description}


def test_a_reason_beyond_the_limits_of_service_bus_is_cut() -> None:
    text = "".join(chr(0x4E00 + number) for number in range(10_000))
    title, description = wire.reasons(text)
    assert max(len(title), len(description)) == wire.MAX_REASON
    properties: dict[str | bytes, Any] = {"DeadLetterReason": title, "DeadLetterErrorDescription": description}
    told = wire.decode(Received(ServiceBusMessage(b"", application_properties=properties)), letter=True)[1][DEAD_LETTER]
    assert text.startswith(told)
    assert 8_000 < len(told) < 10_000


def test_the_reason_of_service_bus_itself_is_told() -> None:
    properties: dict[str | bytes, Any] = {
        "DeadLetterReason": "TTLExpiredException",
        "DeadLetterErrorDescription": "The message expired.",
    }
    native = Received(ServiceBusMessage(b"", application_properties=properties))
    assert wire.decode(native, letter=True)[1] == {DEAD_LETTER: "TTLExpiredException: The message expired."}


def test_what_is_too_long_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgumentError, match="attribute 'cloudEvents_subject' has 32768 characters"):
        wire.size(Outbound(b"", {"cloudEvents_subject": "x" * 32_768}))


def lengths() -> st.SearchStrategy[int]:
    """Those at which AMQP changes to a longer form, and others."""
    return st.sampled_from([0, 1, 200, 240, 254, 255, 256, 257, 70_000]) | st.integers(0, 600)


def texts() -> st.SearchStrategy[str]:
    return st.builds(lambda length, letter: letter * min(length, 20_000), lengths(), st.sampled_from("aü€"))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    length=lengths(),
    attributes=st.dictionaries(texts().filter(bool), texts(), max_size=4),
    content_type=st.none() | texts().filter(bool),
    session=st.none() | st.text("ku€", min_size=1, max_size=128),
    dedup=st.none() | st.text("dü", min_size=1, max_size=200),
    ttl=st.none() | st.sampled_from([0.001, 0.255, 0.256, 60.0, 1e9]),
    delay=st.sampled_from([0.0, 30.0]),
)
def test_it_is_encoded_as_the_sdk_does_and_the_size_is_right(
    length: int,
    attributes: dict[str, str],
    content_type: str | None,
    session: str | None,
    dedup: str | None,
    ttl: float | None,
    delay: float,
) -> None:
    if content_type is not None:
        attributes = {**attributes, wire.CONTENT_TYPE: content_type}
    message = Outbound(b"x" * length, attributes, None, dedup or "id", delay, ttl)
    with patch("azure.servicebus._transport._pyamqp_transport.time.mktime", lambda _: NOW):
        _held_against_the_sdk(message, session)


@pytest.mark.parametrize("length", range(245, 260))
def test_it_is_right_where_amqp_changes_to_longer_forms(length: int) -> None:
    """Of a body, of the map of properties, and of the list that the ids are in."""
    for message in (
        Outbound(b"x" * length, {}, None, "d"),
        Outbound(b"", {"n": "x" * length}, None, "d"),
        Outbound(b"", {wire.CONTENT_TYPE: "x" * (length - 50)}, None, "d"),
    ):
        _held_against_the_sdk(message, "session")


def test_it_is_right_where_amqp_changes_to_longer_counts() -> None:
    _held_against_the_sdk(Outbound(b"", {f"{number}": "" for number in range(130)}, None, "d"), None)


def _held_against_the_sdk(message: Outbound, session: str | None) -> None:
    batch = ServiceBusMessageBatch(1 << 24)
    empty = batch.size_in_bytes
    for _ in range(2):
        batch.add_message(wire.native(message, session, now=NOW))
    assert batch.size_in_bytes == empty + 2 * wire.size(message, session)
    id_, encoded = wire.encode(message, session, now=NOW)
    assert id_ == wire.native(message, session, now=NOW).message_id
    assert encoded == bytes(batch._message[5][0])


def test_what_is_encoded_is_read_by_the_sdk() -> None:
    attributes, body = wire.WIRES["binary"].encode(EVENT)
    _, encoded = wire.encode(Outbound(body, attributes, None, "d", 90.0, 60.0), "customer-7", now=NOW)
    read = ServiceBusReceivedMessage.from_bytes(encoded)
    body, attributes = wire.decode(read, letter=False)
    assert wire.WIRES["binary"].decode(attributes, body) == EVENT
    assert (read.message_id, read.session_id) == ("d", "customer-7")
    assert read.time_to_live == timedelta(seconds=60)
    assert read.scheduled_enqueue_time_utc == datetime(2024, 1, 1, 0, 1, 30, tzinfo=UTC)
    assert read.raw_amqp_message.properties is not None
    assert read.raw_amqp_message.properties.absolute_expiry_time == (NOW + 60) * 1000
