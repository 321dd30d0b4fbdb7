"""How fast the driver of sqlite:// is by itself, beside `sqlite3` by hand: `python bench/sqlite_driver.py`.

By hand means one table of ids and bodies, the same pragmas, the same batches: what a file on this disk gives at most.
Ours and theirs take turns; the figures are medians. Then: how soon a consumer in another process wakes, what waiting
costs, and how many processes share the file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine, median, rate, table, workdir

from cloudevents_bridge.brokers.sqlite import adapter
from cloudevents_bridge.brokers.sqlite.adapter import Connection
from cloudevents_bridge.driver import Outbound, Subscription, Topic, Url

BODY = b'{"specversion":"1.0","data":"' + b"x" * 269 + b'"}'
CONTENT = {"content-type": "application/cloudevents+json"}
TOPIC = Topic("orders")
ONE = Subscription(TOPIC, "one")


def connect(path: Path) -> Connection:
    return adapter(Url(f"sqlite:///{path}", "sqlite", "", f"/{path}", {}), {})


def make(path: Path, *wanted: Topic | Subscription) -> Connection:
    connection = connect(path)
    connection.topology.apply(connection.topology.diff([TOPIC, *(wanted or [ONE])]))
    return connection


def outbound(count: int) -> list[Outbound]:
    return [Outbound(BODY, CONTENT, None, str(n)) for n in range(count)]


def by_hand(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 4000")
    db.execute("CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    return db


def insert(db: sqlite3.Connection, events: int, batch: int) -> None:
    for start in range(0, events, batch):
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO events (id, body) VALUES (NULL, ?)", ((BODY,) for _ in range(start, start + batch)))
        db.execute("COMMIT")


def take(db: sqlite3.Connection, batch: int) -> None:
    """Read and delete: the least that taking an event from a table can be."""
    while True:
        db.execute("BEGIN IMMEDIATE")
        rows = db.execute("SELECT id, body FROM events ORDER BY id LIMIT ?", (batch,)).fetchall()
        if rows:
            db.execute("DELETE FROM events WHERE id <= ?", (rows[-1][0],))
        db.execute("COMMIT")
        if not rows:
            return


def send(connection: Connection, events: int, batch: int) -> None:
    publisher = connection.open_publisher(TOPIC)
    messages = outbound(batch)
    for _ in range(0, events, batch):
        publisher.send(messages, timeout=60.0)


def consume(connection: Connection, batch: int) -> None:
    subscriber = connection.open_subscriber(ONE)
    while messages := subscriber.receive(batch, 0.0).messages:
        subscriber.settle("ack", messages, timeout=60.0)


def timed(call: Callable[..., None], *arguments: Any) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def speeds(directory: Path, events: int, rounds: int) -> None:
    connection, db = make(directory / "ours.db"), by_hand(directory / "bare.db")
    rows = []
    for what, batch, count in (("send", 1, events // 50), ("send", 1000, events), ("send", 5000, events)):
        ours, bare = [], []
        for _ in range(rounds):
            ours.append(count / timed(send, connection, count, batch))
            bare.append(count / timed(insert, db, count, batch))
            consume(connection, 1000)
            take(db, 1000)
        rows.append((f"{what}, {batch:,} at a time", rate(median(ours)), rate(median(bare)), ratio(ours, bare)))
    for batch, count in ((1, events // 50), (1000, events)):
        ours, bare = [], []
        for _ in range(rounds):
            send(connection, count, min(count, 1000))
            insert(db, count, min(count, 1000))
            ours.append(count / timed(consume, connection, batch))
            bare.append(count / timed(take, db, batch))
        name = f"receive and ack, {batch:,} at a time"
        rows.append((name, rate(median(ours)), rate(median(bare)), ratio(ours, bare)))
    print(table(["", "driver/s", "by hand/s", "ratio"], rows))
    connection.close()
    db.close()


def ratio(ours: list[float], bare: list[float]) -> str:
    """The median of the ratios of neighbours in time: a busy moment of the machine counts for both."""
    return f"{median(a / b for a, b in zip(ours, bare, strict=True)):.2f}"


def _wake(path: Path, count: int, pipe: Any) -> None:
    subscriber = connect(path).open_subscriber(ONE)
    for _ in range(count):
        pipe.send(None)
        messages = subscriber.receive(1, 60.0).messages
        pipe.send(time.monotonic())
        subscriber.settle("ack", messages, timeout=60.0)


def waking(directory: Path, count: int) -> None:
    path = directory / "wake.db"
    publisher = make(path).open_publisher(TOPIC)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_wake, args=(path, count, there))
    process.start()
    delays = []
    for n in range(count):
        here.recv()
        time.sleep(0.1 + n % 20 / 1000)
        publisher.send(outbound(1), timeout=60.0)
        published = time.monotonic()
        delays.append(here.recv() - published)
    process.join()
    delays.sort()
    print(f"\nwake in another process: median {1000 * median(delays):.1f} ms, longest {1000 * delays[-1]:.1f} ms")


def idling(directory: Path, seconds: float) -> None:
    subscriber = make(directory / "idle.db").open_subscriber(ONE)
    subscriber.receive(1, 0.1)
    before = time.process_time()
    subscriber.receive(1, seconds)
    print(f"waiting: {100 * (time.process_time() - before) / seconds:.2f} % of one core")


def _publish(path: Path, events: int, batch: int, start: Any, pipe: Any) -> None:
    connection = connect(path)
    connection.ping(timeout=5.0)
    publisher, messages = connection.open_publisher(TOPIC), outbound(batch)
    start.wait()
    slowest = began = time.monotonic()
    slowest = 0.0
    for _ in range(0, events, batch):
        sent = time.monotonic()
        publisher.send(messages, timeout=60.0)
        slowest = max(slowest, time.monotonic() - sent)
    pipe.put((began, time.monotonic(), slowest))


def sharing(directory: Path, processes: int, events: int) -> None:
    context = multiprocessing.get_context("spawn")
    rows = []
    for batch in (1, 1000):
        for count in (1, processes):
            path = directory / f"share-{batch}-{count}.db"
            make(path).close()
            start, queue = context.Barrier(count), context.Queue()
            each = events // count // (50 if batch == 1 else 1) // batch * batch
            crew = [context.Process(target=_publish, args=(path, each, batch, start, queue)) for _ in range(count)]
            for process in crew:
                process.start()
            times = [queue.get() for _ in crew]
            for process in crew:
                process.join()
            took = max(end for _, end, _ in times) - min(begin for begin, _, _ in times)
            slowest = max(slow for _, _, slow in times)
            rows.append((f"{count} processes, {batch:,} at a time", rate(each * count / took), f"{slowest:.3f}", ""))
    print("\n" + table(["", "sends/s", "slowest send, s", ""], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=8)
    options = parser.parse_args()
    print(machine())
    with workdir() as directory:
        speeds(directory, options.events, options.rounds)
        waking(directory, 50)
        idling(directory, 5.0)
        sharing(directory, options.processes, options.events)


if __name__ == "__main__":
    main()
