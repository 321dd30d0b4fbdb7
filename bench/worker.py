"""What a worker costs per event, over receiving and acking by hand; and what it holds while a million events wait."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from common import machine, make_event, median, table, workdir

import cloudevents_bridge as ceb

TARGET = 25.0
"""Microseconds per event that a worker with one handler at a time may cost over a loop by hand."""
TAKE = 100
"""Deliveries in one receive of the loop by hand, and in one call of a batch handler."""
TOPICS = [ceb.Topic("orders", subscriptions=["billing"])]


@contextmanager
def broker(kind: str) -> Iterator[ceb.Broker]:
    with workdir() as directory:
        url = "memory://" if kind == "memory" else f"sqlite:///{directory}/events.db"
        with ceb.connect(url, topics=TOPICS, create_missing=True) as made:
            yield made


def fill(made: ceb.Broker, events: int) -> None:
    pattern = make_event(0)
    made.publish_many("orders", (pattern.replace(id=f"{number:012}") for number in range(events)))


def by_hand(made: ceb.Broker, events: int) -> float:
    left = events
    with made.subscriber("orders", "billing") as subscriber:
        began = time.perf_counter()
        while left:
            deliveries = subscriber.receive(TAKE, wait=5)
            for delivery in deliveries:
                look(delivery.event)
            subscriber.ack_many(deliveries)
            left -= len(deliveries)
        return time.perf_counter() - began


def look(event: ceb.CloudEvent) -> str:
    """What every handler here does."""
    return event.id


def by_worker(made: ceb.Broker, events: int, *, router: bool = False, **options: Any) -> float:
    worker = made.worker()
    left = events

    def count(handled: int) -> None:
        nonlocal left
        left -= handled
        if not left:
            worker.stop()

    def one(event: ceb.CloudEvent) -> None:
        look(event)
        count(1)

    def many(deliveries: list[ceb.Delivery]) -> None:
        for delivery in deliveries:
            look(delivery.event)
        count(len(deliveries))

    handler: Any = many if "batch" in options else one
    if router:
        handler = ceb.Router()
        handler.on("com.example.order.created")(one)
    worker.add("orders", "billing", handler, **options)
    began = time.perf_counter()
    worker.run()
    return time.perf_counter() - began


def overhead(events: int, rounds: int) -> None:
    ways: dict[str, Callable[[ceb.Broker], float]] = {
        f"by hand, receive({TAKE}) and ack_many": lambda made: by_hand(made, events),
        "worker, one at a time": lambda made: by_worker(made, events),
        "worker, a router": lambda made: by_worker(made, events, router=True),
        f"worker, batch={TAKE}": lambda made: by_worker(made, events, batch=TAKE),
    }
    rows = []
    for kind in ("memory", "sqlite"):
        taken: dict[str, list[float]] = {way: [] for way in ways}
        with broker(kind) as made:
            for _ in range(rounds):
                for way, run in ways.items():
                    fill(made, events)
                    taken[way].append(run(made) / events * 1e6)
        bare, *_ = map(median, taken.values())
        for way, micros in taken.items():
            own = median(micros)
            over = "" if own == bare else f"{own - bare:.1f}"
            rows.append([f"{kind}: {way}", f"{own:.1f}", over, f"under {TARGET:g}" if over else ""])
    print(f"{machine()}; {events:,} events, median of {rounds} rounds, microseconds per event\n")
    print(table(["", "µs", "over by hand", "target"], rows))


def held(waiting: int, seconds: float) -> None:
    """A handler that takes 5 ms, four at a time, while that many events of 1 KB wait."""
    with workdir() as directory:
        url = f"sqlite:///{directory}/events.db"
        publishing = multiprocessing.get_context("spawn").Process(target=publish, args=(url, waiting))
        publishing.start()
        publishing.join()
        stop = threading.Event()
        with ceb.connect(url, topics=TOPICS) as made:
            worker = made.worker().add("orders", "billing", lambda event: stop.wait(0.005), concurrency=4)
            before = most = resident()
            with worker:
                ends = time.monotonic() + seconds
                while time.monotonic() < ends:
                    most = max(most, resident())
                    stop.wait(0.05)
                handled = worker.stats.handled
                stop.set()
    print(
        f"\n{waiting:,} events of 1 KB waiting, a handler of 5 ms, 4 at once: {handled:,} handled in {seconds:g} s, "
        f"{(most - before) / 1024:.1f} MB of memory for it"
    )


def publish(url: str, waiting: int) -> None:
    """In a process of its own, whose memory does not count."""
    pattern = make_event(0, 1000)
    with ceb.connect(url, topics=TOPICS, create_missing=True) as made:
        made.publish_many("orders", (pattern.replace(id=f"{number:012}") for number in range(waiting)))


def resident() -> int:
    """Kilobytes of this process in memory now."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no file of ours
            return int(file.read().split()[1]) * resource.getpagesize() // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="to work on what waits")
    arguments = parser.parse_args()
    overhead(arguments.events, arguments.rounds)
    held(arguments.waiting, arguments.seconds)


if __name__ == "__main__":
    main()
