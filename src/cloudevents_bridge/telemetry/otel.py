"""Spans, metrics and trace context with OpenTelemetry, named by its semantic conventions for messaging.

The context of an event's `send` span travels in the event, in the extensions `traceparent` and `tracestate`, whatever
propagator is configured for the rest: an event that leaves for another system is still understood there.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeAlias

from opentelemetry import metrics, trace
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, Span, SpanKind

from cloudevents_bridge import driver
from cloudevents_bridge._version import __version__
from cloudevents_bridge.around import Around
from cloudevents_bridge.delivery import Delivery
from cloudevents_bridge.errors import BridgeError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.handlers import Runner
from cloudevents_bridge.outlet import Receipt
from cloudevents_bridge.telemetry.carriers import Carrying, attributes_of, carrying, links_of
from cloudevents_bridge.telemetry.operations import Metrics, Operation

Outcome: TypeAlias = Receipt | BridgeError
Program: TypeAlias = Callable[[list[Delivery]], object]
NAME = "cloudevents_bridge"
SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
_VERBS: Mapping[str, str] = {"dead": "dead_letter"}


class Telemetry:
    """What one connection tells. Thread-safe. As long as the program has set up no provider, it tells nothing, and no
    context travels.

    Args:
        system: `messaging.system`.
    """

    def __init__(self, system: str) -> None:
        self._system = system
        self._provided = False
        self._tracer = trace.get_tracer_provider().get_tracer(NAME, __version__, SCHEMA)
        self._metrics = Metrics(metrics.get_meter_provider().get_meter(NAME, __version__, SCHEMA))

    # -- on the way out

    def send(self, topic: str, event: CloudEvent, send: Callable[[CloudEvent], Outcome]) -> Outcome:
        """Publish one event with `send`, in a span whose context travels with it."""
        if self._silent():
            return send(event)
        operation = self._sending(topic, event)
        with operation:
            outcome = send(carrying(event, operation.span))
            self._outcomes(operation, [outcome])
            return outcome

    def send_many(
        self,
        topic: str,
        events: Sequence[CloudEvent],
        send: Callable[[Sequence[CloudEvent]], list[Outcome]],
    ) -> list[Outcome]:
        """Publish events with `send`, in one span whose context travels with those that bring none of their own."""
        if self._silent():
            return send(events)
        brought = [event for event in events if event._state.members.traceparent is not None]
        operation = self._operation(
            "send",
            "send",
            topic,
            None,
            SpanKind.CLIENT if len(brought) == len(events) else SpanKind.PRODUCER,
            links=links_of(brought, batch=True),
            more={"messaging.batch.message_count": len(events)},
        )
        with operation:
            outcomes = send(Carrying(events, lambda event: carrying(event, operation.span)))
            self._outcomes(operation, outcomes)
            return outcomes

    def submit(self, topic: str, event: CloudEvent, submit: Callable[[CloudEvent], Future[Receipt]]) -> Future[Receipt]:
        """Submit one event with `submit`, in a span that ends when the broker has accepted it."""
        if self._silent():
            return submit(event)
        operation = self._sending(topic, event)
        operation.begin()
        try:
            future = submit(carrying(event, operation.span))
        except BaseException as error:
            operation.end(error)
            raise
        finally:
            operation.leave()

        def done(future: Future[Receipt]) -> None:
            if future.cancelled():
                operation.end(None)
                return
            error = future.exception()
            if error is None or isinstance(error, BridgeError):
                self._outcomes(operation, [future.result() if error is None else error])
            operation.end(error)

        future.add_done_callback(done)
        return future

    def _sending(self, topic: str, event: CloudEvent) -> Operation:
        brought = event._state.members.traceparent is not None
        kind = SpanKind.CLIENT if brought else SpanKind.PRODUCER
        return self._operation(
            "send", "send", topic, None, kind, links=links_of([event], batch=False), more=attributes_of(event)
        )

    def _outcomes(self, operation: Operation, outcomes: Sequence[Outcome]) -> None:
        counts: dict[str | None, int] = {}
        for outcome in outcomes:
            kind = outcome.code.value if isinstance(outcome, BridgeError) else None
            if kind is not None and operation.failed is None:
                operation.fail(kind, str(outcome))
            counts[kind] = counts.get(kind, 0) + 1
        for kind, count in counts.items():
            self._metrics.sent.add(count, operation.base if kind is None else {**operation.base, "error.type": kind})

    # -- on the way in

    @contextmanager
    def receiving(self, of: driver.Subscription, *, batch: bool) -> Iterator[list[Delivery]]:
        """Around taking deliveries for a caller who asked for them; they are put into the list that it gives. A caller
        who gets none has no span, and polls again.
        """
        began, began_at = time.perf_counter(), time.time_ns()
        deliveries: list[Delivery] = []
        try:
            yield deliveries
        except BridgeError as error:
            if not self._silent():
                self._received(of, [], batch, began, began_at).end(error)
            raise
        if deliveries and not self._silent():
            self._metrics.consumed.add(len(deliveries), self._base("receive", "receive", of.topic.name, _name(of)))
            self._received(of, deliveries, batch, began, began_at).end(None)

    def _received(
        self, of: driver.Subscription, deliveries: Sequence[Delivery], batch: bool, began: float, began_at: int
    ) -> Operation:
        events = [delivery.event for delivery in deliveries]
        more = {"messaging.batch.message_count": len(events)} if batch or not events else attributes_of(events[0])
        operation = self._operation(
            "receive",
            "receive",
            of.topic.name,
            _name(of),
            SpanKind.CLIENT,
            links=links_of(events, batch=batch),
            more=more,
        )
        operation.begin(began, began_at)
        operation.leave()
        return operation

    def around(self, make: Callable[[Runner], Program], *, batch: bool) -> Callable[[Runner], Program]:
        """`processing` for a worker, which makes its programs later."""
        return lambda run: self.processing(make(run), batch=batch)

    def processing(self, program: Program, *, batch: bool) -> Program:
        """What runs a handler, with a span around each run.

        The span of one event is a child of the one that sent it, and linked to it; that of a batch is linked to each.
        Of other spans there are none in a worker: what is current where it was made has nothing to do with the event.
        """

        def processed(deliveries: list[Delivery]) -> object:
            if self._silent():
                return program(deliveries)
            operation = self._processing(deliveries, batch)
            operation.begin()
            try:
                result = program(deliveries)
            except BaseException as error:
                operation.leave()
                operation.end(error)
                raise
            operation.leave()
            if isinstance(result, Awaitable):  # it runs later, maybe in another thread
                return Around(result, operation.enter, operation.finish)
            operation.end(None)
            return result

        return processed

    def _processing(self, deliveries: list[Delivery], batch: bool) -> Operation:
        first = deliveries[0]
        links = links_of([delivery.event for delivery in deliveries], batch=batch)
        more: dict[str, Any] = (
            {"messaging.batch.message_count": len(deliveries)} if batch else attributes_of(first.event)
        )
        operation = self._operation(
            "process",
            "process",
            first.topic,
            _name(first._inlet.of),
            SpanKind.CONSUMER,
            links=links,
            more=more,
            parent=NonRecordingSpan(links[0].context) if links and not batch else INVALID_SPAN,
        )
        operation.duration = self._metrics.process
        self._metrics.consumed.add(len(deliveries), operation.base)
        return operation

    def settle(
        self,
        of: driver.Subscription,
        verb: str,
        deliveries: Sequence[Delivery],
        settle: Callable[[], list[BridgeError | None]],
    ) -> list[BridgeError | None]:
        """Settle with `settle`, which gives the error of each delivery."""
        if self._silent():
            return settle()
        verb = _VERBS.get(verb, verb)
        events = [delivery.event for delivery in deliveries]
        batch = len(events) > 1
        more = {"messaging.batch.message_count": len(events)} if batch else attributes_of(events[0])
        with self._operation(
            verb, "settle", of.topic.name, _name(of), SpanKind.CLIENT, links=links_of(events, batch=batch), more=more
        ) as operation:
            errors = settle()
            first = next((error for error in errors if error is not None), None)
            if first is not None:
                operation.fail(first.code.value, str(first))
            return errors

    # -- both

    def _silent(self) -> bool:
        """Whether nobody listens: the providers are still those of the API, which do nothing. They are set once."""
        if self._provided:
            return False
        self._provided = _is_real(trace.get_tracer_provider()) or _is_real(metrics.get_meter_provider())
        return not self._provided

    def _base(self, name: str, type: str, topic: str, subscription: str | None) -> dict[str, Any]:
        base = {
            "messaging.system": self._system,
            "messaging.operation.name": name,
            "messaging.operation.type": type,
            "messaging.destination.name": topic,
        }
        if subscription is not None:
            base["messaging.destination.subscription.name"] = subscription
        return base

    def _operation(
        self,
        name: str,
        type: str,
        topic: str,
        subscription: str | None,
        kind: SpanKind,
        *,
        links: list[Link],
        more: dict[str, Any],
        parent: Span | None = None,
    ) -> Operation:
        base = self._base(name, type, topic, subscription)
        return Operation(
            self._tracer, self._metrics.client, f"{name} {topic}", kind, base, {**base, **more}, links, parent
        )


def _is_real(provider: object) -> bool:
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


def _name(of: driver.Subscription) -> str | None:
    """The subscription's name; None for one that is made for a moment, under a name of its own."""
    return of.name if of.expires is None else None
