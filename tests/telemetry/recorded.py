"""Spans and metrics in memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler


class Point(NamedTuple):
    name: str
    attributes: dict[str, Any]
    value: Any


class Recorded:
    """Stands in for the providers that a program sets up, which a process can do once only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self._tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: self._tracers)
        monkeypatch.setattr(metrics, "get_meter_provider", lambda: self._meters)
        self.tracer = self._tracers.get_tracer("test")

    def spans(self, *names: str) -> list[ReadableSpan]:
        """The spans that have ended, in that order; of these names, if any is given."""
        return [span for span in self._exporter.get_finished_spans() if not names or span.name in names]

    def span(self, name: str) -> ReadableSpan:
        """The one span of that name."""
        [span] = self.spans(name)
        return span

    def clear(self) -> None:
        self._exporter.clear()

    def points(self, name: str) -> list[Point]:
        """The points of one metric, in order of attributes: of a counter its value, of a histogram how many it has."""
        data = self._reader.get_metrics_data()
        found = [
            Point(metric.name, dict(point.attributes or {}), getattr(point, "count", getattr(point, "value", None)))
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return sorted(found, key=lambda point: sorted(map(str, point.attributes.items())))

    def shutdown(self) -> None:
        self._tracers.shutdown()
        self._meters.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def links(span: ReadableSpan) -> list[int]:
    """The ids of the spans that it is linked to."""
    return [link.context.span_id for link in span.links]


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)
