"""Messages as Pub/Sub has them."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest
from google.pubsub_v1 import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudevents_bridge import CloudEvent, PublishError, connect
from cloudevents_bridge.bindings import PUBSUB
from cloudevents_bridge.driver import DEAD_LETTER, Outbound
from cloudevents_bridge.errors import ErrorCode, InvalidArgumentError
from cloudevents_bridge_gcp import pb, wire
from cloudevents_bridge_gcp.publisher import Publisher
from cloudevents_bridge_gcp.rpc import Rpc

EVENT = CloudEvent(
    type="com.example.order.created",
    source="/shop",
    id="order-7",
    subject="Ordnung für 7 €",
    time=datetime(2024, 2, 29, 12, 0, 0, 123000, UTC),
    data={"id": 7},
    extensions={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
)


def native(event: CloudEvent, mode: str = "binary") -> types.PubsubMessage:
    """As Google's own client sees it."""
    attributes, body = dataclasses.replace(PUBSUB, mode=mode).encode(event)  # type: ignore[arg-type]
    message = wire.encode(Outbound(body, attributes), None, letter=False)
    return types.PubsubMessage.deserialize(message.SerializeToString())


def test_binary_golden() -> None:
    """As Eventarc and Cloud Functions read it."""
    message = native(EVENT)
    assert message.data == b'{"id":7}'
    assert dict(message.attributes) == {
        "ce-specversion": "1.0",
        "ce-id": "order-7",
        "ce-source": "/shop",
        "ce-type": "com.example.order.created",
        "ce-subject": "Ordnung für 7 €",
        "ce-time": "2024-02-29T12:00:00.123000Z",
        "ce-traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "content-type": "application/json",
    }
    assert message.ordering_key == ""


def test_structured_golden() -> None:
    message = native(EVENT, "structured")
    assert dict(message.attributes) == {"content-type": "application/cloudevents+json"}
    assert CloudEvent.from_json(message.data) == EVENT


@pytest.mark.parametrize("spelling", ["content-type", "Content-Type"])
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_both_modes_and_both_spellings_of_the_content_type_are_read(mode: str, spelling: str) -> None:
    message = native(EVENT, mode)
    attributes = dict(message.attributes)
    attributes[spelling] = attributes.pop("content-type")
    for read_by in ("binary", "structured"):
        layout = dataclasses.replace(PUBSUB, mode=read_by)
        assert layout.decode(attributes, message.data) == EVENT


@pytest.mark.parametrize(
    ("attributes", "key", "said"),
    [
        ({f"ce-x{n}": "1" for n in range(101)}, None, "'ce-x100' among them"),
        ({"n" * 257: "1"}, None, "1 to 256 bytes"),
        ({"": "1"}, None, "1 to 256 bytes"),
        ({"ce-subject": "ü" * 513}, None, "attribute 'ce-subject' has 1026 bytes and Pub/Sub takes 1024"),
        ({"googx": "1"}, None, "attribute 'googx' begins with 'goog'"),
        ({}, "k" * 1025, "attribute 'partitionkey' has 1025 bytes"),
        ({}, "", "attribute 'partitionkey' has 0 bytes"),
    ],
)
def test_limits_are_checked_before_sending(attributes: dict[str, str], key: str | None, said: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        wire.encode(Outbound(b"x", attributes), key, letter=False)
    assert said in str(caught.value)


def test_what_is_just_within_the_limits_is_sent() -> None:
    attributes = {"n" * 256: "ü" * 512, **{f"x{n}": "v" * 1024 for n in range(99)}}
    wire.encode(Outbound(b"x", attributes), "k" * 1024, letter=False)


def test_the_event_over_a_limit_is_named_and_the_others_are_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def call(self: Rpc, method: object, request: object, *, timeout: float) -> object:
        sent.extend(each.attributes["ce-id"] for each in request.messages)  # type: ignore[attr-defined]
        return pb.PublishResponse(message_ids=[str(n) for n in range(len(request.messages))])  # type: ignore[attr-defined]

    monkeypatch.setattr(Rpc, "call", call)
    good = CloudEvent(type="a", source="b", id="good")
    bad = good.replace(id="bad", subject="s" * 1025)
    with connect("gcp://my-project") as broker, pytest.raises(PublishError) as caught:
        broker.publish_many("orders", [bad, good])
    [(event, error)] = caught.value.failed
    assert (event.id, error.code) == ("bad", ErrorCode.INVALID_ARGUMENT)
    assert "ce-subject" in str(error)
    assert sent == ["good"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(codec="utf-8"), max_size=6000))
def test_a_long_reason_is_kept_in_several_attributes(reason: str) -> None:
    message = wire.encode(Outbound(b"x", {"a": "b", DEAD_LETTER: reason}), None, letter=True)
    assert all(len(value.encode()) <= wire.MAX_VALUE for value in message.attributes.values())
    assert wire.decode(message, letter=True) == {"a": "b", DEAD_LETTER: reason}


def test_a_reason_that_finds_no_room_makes_the_letter_too_large() -> None:
    full = {f"x{n}": "1" for n in range(98)}
    letters = Publisher(Rpc(None), "projects/p/topics/t", keyed=False, letters=True, batch_bytes=1000)  # type: ignore[arg-type]
    assert letters.size(Outbound(b"x", {**full, DEAD_LETTER: "r" * 2048})) < 10_000_000
    assert letters.size(Outbound(b"x", {**full, DEAD_LETTER: "r" * 2049})) > letters.traits.message_bytes


def test_what_the_service_added_is_left_out_of_a_letter() -> None:
    message = wire.encode(Outbound(b"x", {"googclient_schemaname": "s", "a": "b"}), None, letter=True)
    assert dict(message.attributes) == {"a": "b"}


def test_a_letter_of_the_services_own_has_a_reason() -> None:
    message = pb.PubsubMessage(data=b"x", attributes={"CloudPubSubDeadLetterSourceDeliveryCount": "17"})
    said = wire.decode(message, letter=True)[DEAD_LETTER]
    assert "after 17 deliveries" in said
    assert '"attempts":17' in said
    assert DEAD_LETTER not in wire.decode(message, letter=False)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.binary(max_size=300), st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=200)))
    )
)
def test_sizes_are_exact(made: list[tuple[bytes, dict[str, str]]]) -> None:
    topic = "projects/my-project/topics/orders"
    messages = [pb.PubsubMessage(data=data, attributes=attributes) for data, attributes in made]
    request = pb.PublishRequest(topic=topic, messages=messages)
    assert request.ByteSize() == pb.PublishRequest(topic=topic).ByteSize() + sum(map(wire.entry_size, messages))
