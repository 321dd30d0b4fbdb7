"""What telemetry costs per event: off, on without a provider, and on with the SDK, on the memory broker."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from common import machine, make_events, table
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from cloudevents_bridge import Broker, CloudEvent, Delivery, Router, Topic, connect
from cloudevents_bridge.handlers import alone, run_here
from cloudevents_bridge.router import pipeline

TARGET = 0.5
"""Microseconds that telemetry may cost an event where it is off."""
TOPIC = Topic("orders", subscriptions=["billing"])
WAYS = ["off", "no provider", "SDK"]


@contextmanager
def opened(way: str) -> Iterator[Broker]:
    """A connection with that telemetry. The SDK has a span processor that throws the spans away."""
    with ExitStack() as stack:
        if way == "SDK":
            tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([InMemoryMetricReader()])
            tracers.add_span_processor(SpanProcessor())
            stack.enter_context(patch.object(trace, "get_tracer_provider", lambda: tracers))
            stack.enter_context(patch.object(metrics, "get_meter_provider", lambda: meters))
            stack.callback(meters.shutdown)
        yield stack.enter_context(connect("memory://", topics=[TOPIC], create_missing=True, telemetry=way != "off"))


def publish(broker: Broker, events: list[CloudEvent]) -> Callable[[], object]:
    """One by one."""

    def run() -> None:
        for event in events:
            broker.publish("orders", event)

    return run


def publish_many(broker: Broker, events: list[CloudEvent]) -> Callable[[], object]:
    """In one call."""
    return lambda: broker.publish_many("orders", events)


def consume(broker: Broker, events: list[CloudEvent]) -> Callable[[], object]:
    """Receive and ack one by one what was published before."""
    broker.publish_many("orders", events)
    subscriber = broker.subscriber("orders", "billing")

    def run() -> None:
        for _ in events:
            [delivery] = subscriber.receive(1, wait=5)
            delivery.ack()

    return run


def process(broker: Broker, events: list[CloudEvent]) -> Callable[[], object]:
    """Run a router's handler, as a worker does."""
    router = Router()
    router.on("*")(lambda event: None)
    call = pipeline(router, run_here)

    def program(deliveries: list[Delivery]) -> object:
        return call(deliveries[0])

    telemetry = broker._opener.config.telemetry
    run_one = program if telemetry is None else telemetry.processing(program, batch=False)
    deliveries = [[alone(event)] for event in events]

    def run() -> None:
        for each in deliveries:
            run_one(each)

    return run


def microseconds(work: Callable[[], object], events: int) -> float:
    """Per event."""
    began = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began) / events / 1000


def check_cost() -> float:
    """Microseconds for asking whether there is telemetry, which is all that it costs where it is off."""
    with opened("off") as broker:
        publisher = broker.publisher("orders")
        rounds = range(100_000)

        def ask() -> None:
            for _ in rounds:
                if publisher._line.opener.config.telemetry is not None:
                    raise AssertionError

        def nothing() -> None:
            for _ in rounds:
                pass

        return min(microseconds(ask, len(rounds)) - microseconds(nothing, len(rounds)) for _ in range(10))


def main() -> int:
    """Print the table; with --strict exit 1 if it costs too much where it is off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=2000, help="in one measurement")
    parser.add_argument("--strict", action="store_true", help="exit 1 if it is over the target")
    arguments = parser.parse_args()
    events = make_events(arguments.events)
    rows = []
    for name, make in [
        ("publish", publish),
        ("publish_many", publish_many),
        ("receive + ack", consume),
        ("run a handler", process),
    ]:
        best = dict.fromkeys(WAYS, float("inf"))
        for _ in range(arguments.rounds):
            for way in WAYS:
                with opened(way) as broker:
                    best[way] = min(best[way], microseconds(make(broker, events), len(events)))
        rows.append([name, *(f"{best[way]:.1f}" for way in WAYS), ""])
    cost = check_cost()
    rows.append(["the question whether it is on", f"{cost:.2f}", "", "", f"under {TARGET:g}"])
    print(f"{machine()}; {arguments.events} events, best of {arguments.rounds} rounds, microseconds per event\n")
    print(table(["", *WAYS, "target"], rows))
    return int(cost > TARGET and arguments.strict)


if __name__ == "__main__":
    raise SystemExit(main())
