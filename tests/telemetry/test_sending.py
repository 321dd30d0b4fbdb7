"""The span of a publish, and its context in the event."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags
from recorded import Recorded, attributes, links, span_id, trace_id

import cloudevents_bridge as ceb
from cloudevents_bridge.brokers.memory.store import Store
from cloudevents_bridge.testing import FakeBroker, make_event

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SENT = {
    "messaging.system": "memory",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.destination.name": "orders",
}


def received(broker: ceb.Broker) -> list[ceb.CloudEvent]:
    with broker.subscriber("orders", "billing") as subscriber:
        return [delivery.event for delivery in subscriber.receive(max_events=100, wait=5)]


def traceparent(span: Any) -> str:
    return f"00-{trace_id(span):032x}-{span_id(span):016x}-{span.context.trace_flags:02x}"


def test_one_event_is_one_span_whose_context_travels_with_it(broker: ceb.Broker, recorded: Recorded) -> None:
    event = make_event()
    broker.publish("orders", event)
    span = recorded.span("send orders")
    assert span.kind is SpanKind.PRODUCER
    assert attributes(span) == SENT | {
        "messaging.message.id": "test-1",
        "cloudevents.event_id": "test-1",
        "cloudevents.event_source": "/test",
        "cloudevents.event_type": "com.example.test",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is None
    [got] = received(broker)
    assert got.extensions == {"traceparent": traceparent(span)}
    assert got.replace(extensions={}) == event
    assert event.extensions == {}
    assert recorded.points("messaging.client.sent.messages") == [("messaging.client.sent.messages", SENT, 1)]
    [duration] = [
        point
        for point in recorded.points("messaging.client.operation.duration")
        if point.attributes["messaging.operation.name"] == "send"
    ]
    assert (duration.attributes, duration.value) == (SENT, 1)


def test_the_span_is_a_child_of_the_programs_own(broker: ceb.Broker, recorded: Recorded) -> None:
    with recorded.tracer.start_as_current_span("request"):
        broker.publish("orders", make_event())
    request, send = recorded.span("request"), recorded.span("send orders")
    assert send.parent is not None
    assert send.parent.span_id == span_id(request)


def test_a_context_that_the_event_brings_is_kept_and_linked(broker: ceb.Broker, recorded: Recorded) -> None:
    event = make_event(traceparent=TRACEPARENT, tracestate="vendor=1")
    broker.publish("orders", event)
    span = recorded.span("send orders")
    assert span.kind is SpanKind.CLIENT  # since its context is not the one that travels
    assert links(span) == [0xB7AD6B7169203331]
    assert span.links[0].context.trace_state.to_header() == "vendor=1"
    assert received(broker) == [event]


def test_one_that_cannot_be_read_is_kept_too(broker: ceb.Broker, recorded: Recorded) -> None:
    event = make_event(traceparent="whatever")
    broker.publish("orders", event)
    assert links(recorded.span("send orders")) == []
    assert received(broker) == [event]


def test_many_events_are_one_span(broker: ceb.Broker, recorded: Recorded) -> None:
    events = [make_event(id="1"), make_event(id="2", traceparent=TRACEPARENT), make_event(id="3", data={"n": 3})]
    receipts = broker.publish_many("orders", iter(events))
    assert [receipt.event_id for receipt in receipts] == ["1", "2", "3"]
    span = recorded.span("send orders")
    assert span.kind is SpanKind.PRODUCER
    assert attributes(span) == SENT | {"messaging.batch.message_count": 3}
    assert links(span) == [0xB7AD6B7169203331]
    assert (span.links[0].attributes or {})["messaging.message.id"] == "2"
    by_id = {event.id: event for event in received(broker)}
    assert by_id["1"].extensions["traceparent"] == by_id["3"].extensions["traceparent"] == traceparent(span)
    assert by_id["3"].data == {"n": 3}
    assert by_id["2"] == events[1]
    assert [point.value for point in recorded.points("messaging.client.sent.messages")] == [3]


def test_a_span_has_no_more_links_than_it_may(broker: ceb.Broker, recorded: Recorded) -> None:
    brought = [make_event(id=str(n), traceparent=f"00-{n + 1:032x}-{n + 1:016x}-01") for n in range(300)]
    broker.publish_many("orders", [*brought, *brought])
    span = recorded.span("send orders")
    assert span.kind is SpanKind.CLIENT
    assert len(set(links(span))) == len(span.links) == 128
    assert span.dropped_links == 0


def test_a_submitted_event_has_a_span_that_ends_with_its_receipt(broker: ceb.Broker, recorded: Recorded) -> None:
    with recorded.tracer.start_as_current_span("request") as request, broker.publisher("orders") as publisher:
        futures = [publisher.submit(make_event(id=str(n))) for n in range(3)]
        assert all(future.result(timeout=10) for future in futures)
    spans = recorded.spans("send orders")
    assert len(spans) == 3
    assert {span.parent.span_id for span in spans if span.parent} == {request.get_span_context().span_id}
    by_id = {attributes(span)["messaging.message.id"]: traceparent(span) for span in spans}
    assert {event.id: event.extensions["traceparent"] for event in received(broker)} == by_id
    assert [point.value for point in recorded.points("messaging.client.sent.messages")] == [3]


class TestFailures:
    def failed(self, recorded: Recorded, kind: str) -> None:
        span = recorded.span("send orders")
        assert attributes(span)["error.type"] == kind
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description
        assert "secret" not in str(span.to_json())
        [duration] = recorded.points("messaging.client.operation.duration")
        assert duration.attributes == SENT | {"error.type": kind}

    def test_of_one_event(self, recorded: Recorded) -> None:
        with FakeBroker() as fake:
            fake.fail_next("publish", "PERMISSION_DENIED")
            with pytest.raises(ceb.BridgeError):
                fake.broker.publish("orders", make_event(data="secret"))
        self.failed(recorded, "PERMISSION_DENIED")
        [sent] = recorded.points("messaging.client.sent.messages")
        assert (sent.attributes, sent.value) == (SENT | {"error.type": "PERMISSION_DENIED"}, 1)

    def test_retries_are_inside_of_the_span(self, recorded: Recorded) -> None:
        with FakeBroker() as fake:
            fake.fail_next("publish", times=2)
            fake.broker.publish("orders", make_event())
        assert recorded.span("send orders").status.status_code is StatusCode.UNSET

    def test_of_a_call_that_sends_nothing(self, broker: ceb.Broker, recorded: Recorded) -> None:
        with pytest.raises(ceb.BridgeError):
            broker.publish("orders", make_event(), delay=-1)
        self.failed(recorded, "INVALID_ARGUMENT")
        assert recorded.points("messaging.client.sent.messages") == []

    def test_of_some_of_many(self, recorded: Recorded) -> None:
        events = [make_event(id="1"), make_event(id="2", data="x" * 20_000_000), make_event(id="3")]
        with FakeBroker() as fake, pytest.raises(ceb.PublishError) as caught:
            fake.broker.publish_many("orders", events)
        assert [event for event, _ in caught.value.failed] == [events[1]]
        assert caught.value.failed[0][0] is events[1]
        assert attributes(recorded.span("send orders"))["error.type"] == "TOO_LARGE"
        points = recorded.points("messaging.client.sent.messages")
        assert {point.attributes.get("error.type"): point.value for point in points} == {None: 2, "TOO_LARGE": 1}

    def test_of_a_submitted_one(self, recorded: Recorded) -> None:
        event = make_event()
        with FakeBroker() as fake, fake.broker.publisher("orders") as publisher:
            fake.fail_next("publish", "PERMISSION_DENIED")
            publisher.submit(event)
            with pytest.raises(ceb.PublishError) as caught:
                publisher.flush()
        assert caught.value.failed[0][0] is event  # as it was given, without what travels
        self.failed(recorded, "PERMISSION_DENIED")

    def test_of_one_that_could_not_be_submitted(self, broker: ceb.Broker, recorded: Recorded) -> None:
        publisher = broker.publisher("orders")
        publisher.close()
        with pytest.raises(ceb.BridgeError):
            publisher.submit(make_event())
        self.failed(recorded, "CLOSED")

    def test_one_that_was_cancelled_ends_too(self, broker: ceb.Broker, recorded: Recorded) -> None:
        with broker.publisher("orders", linger=60.0) as publisher:
            future = publisher.submit(make_event())
            assert future.cancel()
        assert recorded.span("send orders").status.status_code is StatusCode.UNSET
        assert recorded.points("messaging.client.sent.messages") == []


def test_what_is_not_sampled_travels_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever handles it does not sample it either."""
    recorded = Recorded(monkeypatch, ALWAYS_OFF)
    with ceb.connect("memory://", create_missing=True) as broker:
        broker.subscriber("orders", "billing").receive(wait=0)
        broker.publish("orders", make_event())
        [event] = received(broker)
    assert not int(str(event.extensions["traceparent"]).rpartition("-")[2], 16) & TraceFlags.SAMPLED
    assert recorded.spans() == []
    recorded.shutdown()


def test_telemetry_does_not_copy_what_is_published(broker: ceb.Broker, recorded: Recorded) -> None:
    """A class of one's own, its data still encoded, and extensions come through."""

    class Mine(ceb.CloudEvent):
        __slots__ = ()

    raw = b'{"specversion":"1.0","id":"1","source":"/a","type":"t","sampledrate":7,"data":{"n" : 1.50}}'
    broker.publish("orders", Mine.from_json(raw))
    store: Store = broker.native
    assert store is not None
    [got] = received(broker)
    assert got.data_bytes == b'{"n" : 1.50}'
    assert got.extensions["sampledrate"] == 7
