"""The spans of receiving, processing and settling, and how they are tied to the one that sent the event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from recorded import Recorded, attributes, links, span_id, trace_id
from scripted import until

import cloudevents_bridge as ceb
from cloudevents_bridge import driver
from cloudevents_bridge.middleware import MemoryStore, idempotent
from cloudevents_bridge.testing import FakeBroker, make_event

CONSUMED = {
    "messaging.system": "memory",
    "messaging.destination.name": "orders",
    "messaging.destination.subscription.name": "billing",
}
OF_EVENT = {
    "messaging.message.id": "test-1",
    "cloudevents.event_id": "test-1",
    "cloudevents.event_source": "/test",
    "cloudevents.event_type": "com.example.test",
}


def operation(name: str, type: str | None = None) -> dict[str, Any]:
    return CONSUMED | {"messaging.operation.name": name, "messaging.operation.type": type or name}


def work(broker: ceb.Broker, handler: Any, **options: Any) -> None:
    """Work until all that there is was settled."""
    feed = broker.native.feed(driver.Subscription(driver.Topic("orders"), "billing"))
    with broker.worker().add("orders", "billing", handler, **options):
        until(lambda: not feed.size)


class TestReceiving:
    def test_a_receive_is_linked_to_what_sent_its_events(self, broker: ceb.Broker, recorded: Recorded) -> None:
        broker.publish("orders", make_event(id="1"))
        broker.publish("orders", make_event(id="2"))
        before = time.time_ns()
        with recorded.tracer.start_as_current_span("job"), broker.subscriber("orders", "billing") as subscriber:
            assert len(subscriber.receive(wait=5)) == 2
        span = recorded.span("receive orders")
        assert span.kind is SpanKind.CLIENT
        assert attributes(span) == operation("receive") | {"messaging.batch.message_count": 2}
        assert links(span) == [span_id(send) for send in recorded.spans("send orders")]
        assert [(link.attributes or {})["messaging.message.id"] for link in span.links] == ["1", "2"]
        assert span.parent is not None
        assert span.parent.span_id == span_id(recorded.span("job"))
        assert span.start_time is not None
        assert before <= span.start_time <= time.time_ns()
        [consumed] = recorded.points("messaging.client.consumed.messages")
        assert (consumed.attributes, consumed.value) == (operation("receive"), 2)

    def test_it_takes_as_long_as_the_caller_waited(self, broker: ceb.Broker, recorded: Recorded) -> None:
        broker.subscriber("orders", "billing").receive(wait=0)
        broker.publish("orders", make_event(), delay=0.1)
        with broker.subscriber("orders", "billing") as subscriber:
            subscriber.receive(wait=5)
        span = recorded.span("receive orders")
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.end_time - span.start_time >= 50_000_000

    def test_one_that_brings_nothing_is_not_told(self, broker: ceb.Broker, recorded: Recorded) -> None:
        broker.subscriber("orders", "billing").receive(wait=0)
        assert recorded.spans() == []
        assert recorded.points("messaging.client.operation.duration") == []

    def test_one_that_fails(self, recorded: Recorded) -> None:
        with FakeBroker() as fake:
            fake.fail_next("receive", "PERMISSION_DENIED")
            with pytest.raises(ceb.BridgeError):
                fake.broker.subscriber("orders", "billing").receive(wait=0)
        span = recorded.span("receive orders")
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "PERMISSION_DENIED"

    def test_an_iteration_receives_one_by_one(self, broker: ceb.Broker, recorded: Recorded) -> None:
        broker.publish("orders", make_event())
        with broker.subscriber("orders", "billing") as subscriber:
            for delivery in subscriber:
                delivery.ack()
                break
        span = recorded.span("receive orders")
        assert attributes(span) == operation("receive") | OF_EVENT
        assert links(span) == [span_id(recorded.span("send orders"))]

    def test_a_name_made_for_a_moment_is_not_told(self, broker: ceb.Broker, recorded: Recorded) -> None:
        with broker._tail("orders") as subscriber:
            broker.publish("orders", make_event())
            subscriber.receive(wait=5)
        assert "messaging.destination.subscription.name" not in attributes(recorded.span("receive orders"))


class TestProcessing:
    def test_a_run_is_a_child_of_what_sent_the_event_and_linked_to_it(
        self, broker: ceb.Broker, recorded: Recorded
    ) -> None:
        def handler(event: ceb.CloudEvent) -> None:
            broker.publish("invoices", make_event(id="invoice"))

        with recorded.tracer.start_as_current_span("request"):
            broker.publish("orders", make_event())
        with recorded.tracer.start_as_current_span("start-up"):
            work(broker, handler)
        process, send = recorded.span("process orders"), recorded.span("send orders")
        assert process.kind is SpanKind.CONSUMER
        assert attributes(process) == operation("process") | OF_EVENT
        assert process.parent is not None
        assert process.parent.span_id == span_id(send)
        assert links(process) == [span_id(send)]
        invoice = recorded.span("send invoices")  # what the handler does is inside
        assert invoice.parent is not None
        assert invoice.parent.span_id == span_id(process)
        assert {trace_id(each) for each in (process, send, invoice)} == {trace_id(recorded.span("request"))}
        [duration] = recorded.points("messaging.process.duration")
        assert (duration.attributes, duration.value) == (operation("process"), 1)
        [consumed] = recorded.points("messaging.client.consumed.messages")
        assert (consumed.attributes, consumed.value) == (operation("process"), 1)
        assert recorded.spans("receive orders") == []  # nobody asked for it

    def test_an_event_without_context_begins_a_trace(self, recorded: Recorded) -> None:
        with ceb.connect("memory://shared", create_missing=True, telemetry=False) as sender:
            sender.subscriber("orders", "billing").receive(wait=0)
            sender.publish("orders", make_event())
            with ceb.connect("memory://shared") as broker, recorded.tracer.start_as_current_span("start-up"):
                work(broker, lambda event: None)
        process = recorded.span("process orders")
        assert process.parent is None
        assert links(process) == []

    @pytest.mark.parametrize("middleware", [False, True])
    def test_an_async_handler(self, broker: ceb.Broker, recorded: Recorded, *, middleware: bool) -> None:
        seen: list[int] = []

        async def handler(event: ceb.CloudEvent) -> None:
            seen.append(trace.get_current_span().get_span_context().span_id)
            await asyncio.sleep(0.02)
            with recorded.tracer.start_as_current_span("inside"):
                await asyncio.sleep(0)
            seen.append(trace.get_current_span().get_span_context().span_id)

        router = ceb.Router(middleware=[idempotent(MemoryStore())] if middleware else [])
        router.on("*")(handler)
        broker.publish("orders", make_event())
        work(broker, router)
        process, inside = recorded.span("process orders"), recorded.span("inside")
        assert seen == [span_id(process)] * 2
        assert inside.parent is not None
        assert inside.parent.span_id == span_id(process)
        assert process.end_time is not None
        assert process.start_time is not None
        assert process.end_time - process.start_time >= 20_000_000

    def test_many_async_handlers_at_once_keep_apart(self, broker: ceb.Broker, recorded: Recorded) -> None:
        async def handler(event: ceb.CloudEvent) -> None:
            await asyncio.sleep(0.01)
            with recorded.tracer.start_as_current_span(event.id):
                await asyncio.sleep(0.01)

        broker.publish_many("orders", [make_event(id=str(number)) for number in range(20)])
        work(broker, handler, concurrency=10)
        by_id = {attributes(span)["messaging.message.id"]: span_id(span) for span in recorded.spans("process orders")}
        for number in range(20):
            inside = recorded.span(str(number))
            assert inside.parent is not None
            assert inside.parent.span_id == by_id[str(number)]

    def test_a_batch_is_linked_to_each(self, broker: ceb.Broker, recorded: Recorded) -> None:
        def handler(deliveries: list[ceb.Delivery]) -> None: ...

        for number in range(3):
            broker.publish("orders", make_event(id=str(number)))
        work(broker, handler, batch=10)
        process = recorded.spans("process orders")
        assert {span.parent for span in process} == {None}
        linked = [each for span in process for each in links(span)]
        assert sorted(linked) == sorted(span_id(span) for span in recorded.spans("send orders"))
        assert sum(attributes(span)["messaging.batch.message_count"] for span in process) == 3
        assert "messaging.message.id" not in attributes(process[0])

    @pytest.mark.parametrize("way", ["def", "async def"])
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (ValueError("secret"), "ValueError"),
            (ceb.Reject("secret"), "cloudevents_bridge.delivery.Reject"),
            (ceb.LeaseLostError("the lease"), "LEASE_LOST"),
        ],
        ids=["ValueError", "Reject", "LEASE_LOST"],
    )
    def test_a_run_that_fails(
        self, broker: ceb.Broker, recorded: Recorded, error: Exception, kind: str, way: str
    ) -> None:
        errors = [error]

        def handler(event: ceb.CloudEvent) -> None:
            if errors:
                raise errors.pop()

        async def in_loop(event: ceb.CloudEvent) -> None:
            handler(event)

        broker.publish("orders", make_event())
        work(broker, handler if way == "def" else in_loop)
        span = recorded.spans("process orders")[0]
        assert attributes(span)["error.type"] == kind
        assert span.status.status_code is StatusCode.ERROR
        assert span.events == ()
        assert "secret" not in span.to_json()
        points = recorded.points("messaging.process.duration")
        assert kind in {point.attributes.get("error.type") for point in points}

    def test_an_event_that_another_run_has_is_no_failure(self, broker: ceb.Broker, recorded: Recorded) -> None:
        once = idempotent(MemoryStore())
        router = ceb.Router(middleware=[once])
        router.on("*")(lambda event: None)
        broker.publish("orders", make_event())
        with broker.subscriber("orders", "billing") as subscriber:
            [delivery] = subscriber.receive(wait=5)
            run = once._begin(delivery)
            assert run is not None
            once._renewer.drop(run)
            delivery.give_back()
        with broker.worker().add("orders", "billing", router):
            until(lambda: recorded.spans("process orders"))
        assert recorded.spans("process orders")[0].status.status_code is StatusCode.UNSET

    def test_a_coroutine_that_never_began_ends_its_span(self, broker: ceb.Broker, recorded: Recorded) -> None:
        async def handler(event: ceb.CloudEvent) -> None: ...

        telemetry = broker._opener.config.telemetry
        assert telemetry is not None
        broker.publish("orders", make_event())
        with broker.subscriber("orders", "billing") as subscriber:
            [delivery] = subscriber.receive(wait=5)
            run = telemetry.processing(lambda deliveries: handler(deliveries[0].event), batch=False)
            result: Any = run([delivery])
            result.close()

            async def cancelled() -> None:
                result: Any = run([delivery])
                task = asyncio.ensure_future(result)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

            asyncio.run(cancelled())
        kinds = [attributes(span)["error.type"] for span in recorded.spans("process orders")]
        assert kinds == ["GeneratorExit", "asyncio.exceptions.CancelledError"]


class TestSettling:
    @pytest.mark.parametrize("verb", ["ack", "nack", "release", "dead_letter"])
    def test_each_word(self, broker: ceb.Broker, recorded: Recorded, verb: str) -> None:
        broker.publish("orders", make_event())
        with broker.subscriber("orders", "billing") as subscriber:
            [delivery] = subscriber.receive(wait=5)
            delivery.extend(5)
            words: dict[str, Callable[[], None]] = {
                "ack": delivery.ack,
                "nack": delivery.nack,
                "release": delivery.give_back,
                "dead_letter": lambda: delivery.dead_letter("no"),
            }
            with recorded.tracer.start_as_current_span("job"):
                words[verb]()
        span = recorded.span(f"{verb} orders")
        assert span.kind is SpanKind.CLIENT
        assert attributes(span) == operation(verb, "settle") | OF_EVENT
        assert links(span) == [span_id(recorded.span("send orders"))]
        assert span.parent is not None
        assert span.parent.span_id == span_id(recorded.span("job"))
        assert {each.name for each in recorded.spans()} == {"send orders", "receive orders", f"{verb} orders", "job"}

    def test_many_at_once(self, broker: ceb.Broker, recorded: Recorded) -> None:
        broker.publish_many("orders", [make_event(id="1"), make_event(id="2")])
        with broker.subscriber("orders", "billing") as subscriber:
            subscriber.ack_many(subscriber.receive(wait=5))
        span = recorded.span("ack orders")
        assert attributes(span) == operation("ack", "settle") | {"messaging.batch.message_count": 2}
        assert links(span) == [span_id(recorded.span("send orders"))]

    def test_one_that_fails(self, recorded: Recorded) -> None:
        with FakeBroker() as fake:
            fake.broker.publish("orders", make_event())
            with fake.broker.subscriber("orders", "billing") as subscriber:
                [delivery] = subscriber.receive(wait=5)
                for settle in (delivery.ack, lambda: delivery.dead_letter("no")):
                    fake.fail_next("settle", "PERMISSION_DENIED")
                    with pytest.raises(ceb.BridgeError):
                        settle()
        for name in ("ack orders", "dead_letter orders"):
            span = recorded.span(name)
            assert span.status.status_code is StatusCode.ERROR
            assert attributes(span)["error.type"] == "PERMISSION_DENIED"

    def test_what_a_worker_settles(self, broker: ceb.Broker, recorded: Recorded) -> None:
        broker.publish("orders", make_event())
        work(broker, lambda event: None)
        assert links(recorded.span("ack orders")) == [span_id(recorded.span("send orders"))]
