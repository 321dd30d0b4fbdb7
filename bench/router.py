"""What a router costs per event, over calling the handler itself."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

from common import machine, make_event, table

from cloudevents_bridge import CloudEvent, Delivery, Router
from cloudevents_bridge.handlers import alone, run_here
from cloudevents_bridge.router import pipeline

TARGET = 3.0
"""Microseconds that dispatch may cost per event."""
EVENT = make_event(1)
TYPES = 200
"""Event types that the router has handlers for."""


@dataclass
class Note:
    """The data of the event."""

    note: str


def plain(event: CloudEvent) -> None:
    """A handler that does nothing."""


def typed(note: Note) -> None:
    """A handler that takes the data."""


def through(delivery: Delivery, call_next: Callable[[Delivery], None]) -> None:
    """A middleware that does nothing."""
    call_next(delivery)


def made(pattern: str, handler: Callable[..., None], *, middleware: int = 0) -> Router:
    """A router of many types, with this handler for the event's."""
    router = Router(middleware=[through] * middleware)
    for number in range(TYPES):
        router.on(f"com.example.type{number}", f"com.example.type{number}.*")(lambda event: None)
    router.on(pattern)(handler)
    return router


def nanoseconds(function: Callable[[object], object], item: object, calls: int) -> float:
    """Per call."""
    began = time.perf_counter_ns()
    for _ in range(calls):
        function(item)
    return (time.perf_counter_ns() - began) / calls


def main() -> int:
    """Print the table; with --strict exit 1 if dispatch is over its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=5000, help="in one measurement")
    parser.add_argument("--strict", action="store_true", help="exit 1 if it is over the target")
    arguments = parser.parse_args()
    delivery = alone(EVENT)
    exact = made(EVENT.type, plain)
    direct: Callable[..., object] = plain
    direct_typed: Callable[..., object] = lambda event: typed(event.data_as(Note))  # noqa: E731
    named: dict[str, tuple[Callable[..., object], object, str]] = {
        "the handler itself": (direct, EVENT, ""),
        "Router.handle, event": (exact.handle, EVENT, "the handler itself"),
        "Router.handle, delivery": (exact.handle, delivery, "the handler itself"),
        "worker's pipeline, exact": (pipeline(exact, run_here), delivery, "the handler itself"),
        "worker's pipeline, prefix.*": (
            pipeline(made("com.example.order.*", plain), run_here),
            delivery,
            "the handler itself",
        ),
        "worker's pipeline, *": (pipeline(made("*", plain), run_here), delivery, "the handler itself"),
        "worker's pipeline, no router": (pipeline(plain, run_here), delivery, "the handler itself"),
        "… with three middleware": (
            pipeline(made(EVENT.type, plain, middleware=3), run_here),
            delivery,
            "the handler itself",
        ),
        "the handler itself, data_as": (direct_typed, EVENT, ""),
        "worker's pipeline, data_as": (
            pipeline(made(EVENT.type, typed), run_here),
            delivery,
            "the handler itself, data_as",
        ),
    }
    best = dict.fromkeys(named, float("inf"))
    for _ in range(arguments.rounds):
        for name, (function, item, _) in named.items():
            best[name] = min(best[name], nanoseconds(function, item, arguments.calls) / 1000)
    rows = []
    over = False
    for name, (_, _, base) in named.items():
        more = best[name] - best[base] if base else 0.0
        over |= more > TARGET
        rows.append([name, f"{best[name]:.2f}", f"{more:.2f}" if base else "", f"under {TARGET:g}" if base else ""])
    print(f"{machine()}; {TYPES} types, best of {arguments.rounds} rounds, microseconds\n")
    print(table(["one event", "µs", "over it", "target"], rows))
    return int(over and arguments.strict)


if __name__ == "__main__":
    raise SystemExit(main())
