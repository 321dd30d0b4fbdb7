"""One operation: a span, how long it took, and how it failed; and the metrics that count operations."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from opentelemetry import context, metrics, trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode

from cloudevents_bridge.delivery import Postponed
from cloudevents_bridge.errors import BridgeError

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bounds of the histograms, in seconds, as the conventions advise."""


class Metrics:
    """The instruments of the conventions."""

    def __init__(self, meter: metrics.Meter) -> None:
        self.sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self.consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self.client = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self.process = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )


class Operation:
    """One span, and how long it took.

    Attributes:
        base: the attributes that metrics have too.
        failed: `error.type`, once it is known.
        duration: the histogram for how long it took.
    """

    __slots__ = (
        *("_attributes", "_began", "_kind", "_links", "_name", "_parent", "_token", "_tracer"),
        *("base", "duration", "failed", "span"),
    )

    def __init__(
        self,
        tracer: trace.Tracer,
        duration: metrics.Histogram,
        name: str,
        kind: SpanKind,
        base: dict[str, Any],
        attributes: dict[str, Any],
        links: list[Link],
        parent: Span | None,
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._links = links
        self._parent = parent
        self._began = 0.0
        self._token: Any = None
        self.base = base
        self.duration = duration
        self.failed: str | None = None
        self.span: Span = INVALID_SPAN

    def begin(self, began: float | None = None, began_at: int | None = None) -> None:
        """Start the span, now or at a time that is past, and enter it."""
        self._began = time.perf_counter() if began is None else began
        self.span = self._tracer.start_span(
            self._name,
            None if self._parent is None else trace.set_span_in_context(self._parent),
            self._kind,
            self._attributes,
            self._links,
            start_time=began_at,
        )
        self.enter()

    def enter(self) -> None:
        """Make it the current span here."""
        self._token = context.attach(trace.set_span_in_context(self.span))

    def leave(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            context.detach(token)

    def fail(self, kind: str, why: str | None) -> None:
        """It failed. `why` holds nothing of an event's data."""
        self.failed = kind
        if self.span.is_recording():
            self.span.set_attribute("error.type", kind)
            self.span.set_status(Status(StatusCode.ERROR, why))

    def end(self, error: BaseException | None) -> None:
        if error is not None and self.failed is None and not isinstance(error, Postponed):
            if isinstance(error, BridgeError):
                self.fail(error.code.value, str(error))
            else:  # what a handler raises may quote its event
                self.fail(_class_name(error), None)
        base = self.base if self.failed is None else {**self.base, "error.type": self.failed}
        self.duration.record(time.perf_counter() - self._began, base, trace.set_span_in_context(self.span))
        self.span.end()

    def finish(self, error: BaseException | None) -> None:
        """Leave it, and end it."""
        self.leave()
        self.end(error)

    def __enter__(self) -> Operation:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(error)


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
