"""How the SQLite broker grows: with the events it holds, with subscriptions, and with processes."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import harmonic_mean

from common import SIZE, machine, make_event, rate, table, workdir

from cloudevents_bridge import Broker, CloudEvent, Topic, connect

CHUNK = 50_000


def topic(subscriptions: int = 1) -> Topic:
    """The topic of all measurements."""
    return Topic("growth", subscriptions=[f"sub-{number:03}" for number in range(subscriptions)])


def open_broker(file: Path, subscriptions: int = 1) -> Broker:
    """A broker on the file, with its topic made."""
    broker = connect(f"sqlite:///{file}", topics=[topic(subscriptions)])
    broker.topology.apply()
    return broker


def stream(count: int, prefix: str = "e") -> Iterator[CloudEvent]:
    """That many events, made as they are asked for."""
    pattern = make_event(0)
    return (pattern.replace(id=f"{prefix}{number:011}") for number in range(count))


def put(broker: Broker, count: int, prefix: str = "e") -> float:
    """Publish that many, a chunk at a time, and return events per second."""
    events = stream(count, prefix)
    taken = 0.0
    while chunk := list(islice(events, CHUNK)):
        began = time.perf_counter()
        broker.publish_many("growth", chunk)
        taken += time.perf_counter() - began
    return count / taken


def take(broker: Broker, count: int, subscription: str = "sub-000") -> float:
    """Receive and acknowledge that many, and return events per second."""
    began = time.perf_counter()
    left = count
    with broker.subscriber("growth", subscription) as subscriber:
        while left > 0:
            deliveries = subscriber.receive(min(1000, left), wait=10)
            subscriber.ack_many(deliveries)
            left -= len(deliveries)
            if not deliveries:
                raise AssertionError(f"{left} events are missing")
    return count / (time.perf_counter() - began)


def by_stored(directory: Path, stored: int, sample: int) -> list[list[str]]:
    """The same measurement on an empty broker, and on one that holds that many events not consumed yet."""
    rows = []
    with open_broker(directory / "stored.db") as broker:
        held = 0
        for goal in (0, stored // 10, stored):
            if goal > held:
                put(broker, goal - held, f"s{goal}-")
                held = goal
            written, read = put(broker, sample, f"m{goal}-"), take(broker, sample)
            size = sum(path.stat().st_size for path in directory.glob("stored.db*")) / 1e6
            rows.append([f"{goal:,} events stored ({size:,.0f} MB)", rate(written), rate(read)])
    return rows


def by_subscriptions(directory: Path, most: int, sample: int) -> list[list[str]]:
    """Each event goes to every subscription, and is consumed from each, one subscription after the other."""
    rows = []
    for count in sorted({1, max(1, most // 10), most}):
        with open_broker(directory / f"subscriptions-{count}.db", count) as broker:
            written = put(broker, sample)
            reads = [take(broker, sample, each.name) for each in topic(count).subscriptions]
        rows.append([f"{count:,} subscriptions", f"{rate(written)} (x {count:,})", rate(harmonic_mean(reads))])
    return rows


def work(role: str, file: Path, name: str, count: int, start: float) -> float:
    """One process; returns the moment of its end."""
    with open_broker(file) as broker:
        time.sleep(max(0.0, start - time.monotonic()))
        (put(broker, count, name) if role == "put" else take(broker, count))
    return time.monotonic()


def by_processes(directory: Path, most: int, sample: int) -> list[list[str]]:
    """Processes that publish at once, then as many that share one subscription."""
    rows = []
    context = multiprocessing.get_context("spawn")
    for count in sorted({1, 2, most}):
        file = directory / f"processes-{count}.db"
        open_broker(file).close()
        cells = [f"{count} processes"]
        with context.Pool(count) as pool:
            for role in ("put", "take"):
                start = time.monotonic() + 1 + 0.3 * count
                share = sample // count
                jobs = [(role, file, f"p{number}-", share, start) for number in range(count)]
                ends = pool.starmap(work, jobs, chunksize=1)
                cells.append(rate(share * count / (max(ends) - start)))
        rows.append(cells)
    return rows


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000, help="stored at most")
    parser.add_argument("--subscriptions", type=int, default=100)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--sample", type=int, default=50_000, help="events of one measurement")
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    with workdir() as directory:
        rows += by_stored(directory, arguments.events, arguments.sample)
        rows += by_subscriptions(directory, arguments.subscriptions, max(1000, arguments.sample // 5))
        rows += by_processes(directory, arguments.processes, arguments.sample)
    print(f"{machine()}; SQLite, events of {SIZE} bytes\n")
    print(table(["", "publish_many/s", "receive + ack/s"], rows))


if __name__ == "__main__":
    main()
