"""The context of a span as it travels in an event: as W3C trace context, in `traceparent` and `tracestate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from msgspec.structs import replace
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cloudevents_bridge.event import CloudEvent, make_event

MAX_LINKS = 128
"""Links of one span, at most: what the SDK keeps if nobody says otherwise."""

_W3C = TraceContextTextMapPropagator()  # whatever the program configures: the extensions are defined so


def carrying(event: CloudEvent, span: Span) -> CloudEvent:
    """The event with the context of the span; one that has a context of its own keeps it."""
    state = event._state
    if state.members.traceparent is not None or not span.get_span_context().is_valid:
        return event
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    return make_event(event.__class__, replace(state, members=replace(state.members, **carrier)))


class Carrying(Sequence[CloudEvent]):
    """Events that get their context as they are sent: a million of them are not copied. By index they are as given."""

    def __init__(self, events: Sequence[CloudEvent], carrying: Callable[[CloudEvent], CloudEvent]) -> None:
        self._events = events
        self._carrying = carrying

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[CloudEvent]:
        return map(self._carrying, self._events)

    @overload
    def __getitem__(self, place: int) -> CloudEvent: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[CloudEvent]: ...
    def __getitem__(self, place: int | slice) -> CloudEvent | Sequence[CloudEvent]:
        return self._events[place]


def links_of(events: Sequence[CloudEvent], *, batch: bool) -> list[Link]:
    """Links to what sent the events, each once. Those of a batch say of which event."""
    found: dict[tuple[int, int], Link] = {}
    for event in events:
        sender = sent_by(event)
        if sender is not None and (sender.trace_id, sender.span_id) not in found:
            attributes = attributes_of(event) if batch else None
            found[sender.trace_id, sender.span_id] = Link(sender, attributes)
            if len(found) == MAX_LINKS:
                break
    return list(found.values())


def sent_by(event: CloudEvent) -> SpanContext | None:
    """The context that the event brings; None without one that can be read."""
    members = event._state.members
    if members.traceparent is None:
        return None
    carrier = {"traceparent": members.traceparent, "tracestate": members.tracestate or ""}
    sender = trace.get_current_span(_W3C.extract(carrier, Context())).get_span_context()
    return sender if sender.is_valid else None


def attributes_of(event: CloudEvent) -> dict[str, Any]:
    members = event._state.members
    return {
        "messaging.message.id": members.id,
        "cloudevents.event_id": members.id,
        "cloudevents.event_source": members.source,
        "cloudevents.event_type": members.type,
    }
