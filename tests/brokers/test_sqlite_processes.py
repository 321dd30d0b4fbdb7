"""Many threads and many processes on one file; processes that are killed, stopped or copied from."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge.driver import Outbound

PROGRAM = """
import os, sys, threading
from pathlib import Path
from cloudevents_bridge.brokers.sqlite.adapter import Connection
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.driver import Done, Outbound, Subscription, Topic

what, path, name, count, size = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
broker = Connection(Store(path, "sqlite:///x"))
topic = Topic("orders")
of = Subscription(topic, "billing")


def say(text):
    os.write(1, text.encode() + b"\\n")


def publish():
    publisher = broker.open_publisher(topic)
    say("ready")
    for start in range(0, count, size):
        batch = [Outbound(f"{name}-{n}".encode(), {}, name) for n in range(start, min(start + size, count))]
        publisher.send(batch, timeout=60.0)
        for each in batch:
            say(each.body.decode())


def consume():
    subscriber = broker.open_subscriber(of)
    say("ready")
    idle = 0
    while idle < count:
        messages = subscriber.receive(size, 0.1).messages
        idle = 0 if messages else idle + 1
        done = subscriber.settle("ack", messages, timeout=60.0)
        for message, outcome in zip(messages, done):
            assert isinstance(outcome, Done), outcome
            say(message.body.decode())


def hold():
    message = broker.open_subscriber(of).receive(1, 10.0).messages[0]
    say(message.body.decode())
    sys.stdin.readline()
    done = broker.open_subscriber(of).settle("ack", [message], timeout=10.0)
    say("ok" if isinstance(done[0], Done) else str(done[0].code))


def lock():
    with broker._store.write(10.0):
        say("ready")
        sys.stdin.readline()


{"publish": publish, "consume": consume, "hold": hold, "lock": lock}[what]()
broker.close()
"""


class Crew:
    """Processes that use the file of a rig."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[subprocess.Popen[str]] = []

    def start(self, what: str, name: str = "x", count: int = 1, size: int = 1) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, what, str(self.path), name, str(count), str(size)]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.all.append(started)
        return started

    @staticmethod
    def said(process: subprocess.Popen[str]) -> list[str]:
        """All it printed, once it has ended; a last line that was cut off is left out."""
        text, _ = process.communicate(timeout=60)
        return [line for line in text.splitlines(keepends=False) if line != "ready"]

    def close(self) -> None:
        for each in self.all:
            with contextlib.suppress(OSError):
                each.send_signal(getattr(signal, "SIGCONT", signal.SIGTERM))
                each.kill()
            each.communicate()


@pytest.fixture
def crew(rig: Any) -> Iterator[Crew]:
    rig.broker = rig.connect(clock=None)
    rig.make(rig.topic, rig.billing)
    made = Crew(rig.path)
    yield made
    made.close()


def word(process: subprocess.Popen[str]) -> str:
    """The next line, and no byte behind it: those would wait in a buffer that `communicate` does not look into."""
    assert process.stdout is not None
    line = b""
    while (byte := os.read(process.stdout.fileno(), 1)) not in (b"", b"\n"):
        line += byte
    return line.decode().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def stored(rig: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    while held := rig.take(rig.billing, 1000):
        found.update(rig.bodies(held))
        rig.settle("ack", *held)
    return found


def test_publishers_and_consumers_in_processes_lose_and_double_nothing(rig: Any, crew: Crew) -> None:
    consumers = [crew.start("consume", count=20, size=20) for _ in range(2)]
    publishers = [crew.start("publish", name, 400, size) for name, size in (("a", 1), ("b", 7), ("c", 100))]
    sent = [line for each in publishers for line in crew.said(each)]
    got = [line for each in consumers for line in crew.said(each)]
    got += stored(rig).elements()
    assert len(sent) == 1200
    assert Counter(got) == Counter(sent)
    assert [each.returncode for each in crew.all] == [0] * 5


def test_threads_lose_and_double_nothing(rig: Any) -> None:
    rig.broker = rig.connect(clock=None)
    rig.make(rig.topic, rig.billing)
    got: list[str] = []
    finished = threading.Event()

    def publish(name: str) -> None:
        publisher = rig.publisher(rig.topic)
        for n in range(100):
            publisher.send([Outbound(f"{name}-{n}".encode(), {})], timeout=30.0)

    def consume() -> None:
        subscriber = rig.subscriber(rig.billing)
        while True:
            ending = finished.is_set()
            held = subscriber.receive(10, 0.05).messages
            assert all(hasattr(each, "lease") for each in subscriber.settle("ack", held, timeout=30.0))
            got.extend(rig.bodies(held))
            if ending and not held:
                return

    consumers = [threading.Thread(target=consume) for _ in range(3)]
    publishers = [threading.Thread(target=publish, args=(name,)) for name in "abc"]
    for each in consumers + publishers:
        each.start()
    for each in publishers:
        each.join()
    finished.set()
    for each in consumers:
        each.join()
    assert Counter(got) == Counter(f"{name}-{n}" for name in "abc" for n in range(100))


def test_the_order_of_a_key_holds_among_consumers(rig: Any) -> None:
    rig.broker = rig.connect(clock=None)
    rig.make(rig.ordered, rig.lanes)
    keys = [f"k{n}" for n in range(10)]
    for n in range(30):
        batch = [Outbound(f"{n}".encode(), {}, key) for key in keys]
        rig.publisher(rig.ordered).send(batch, timeout=5.0)
    seen: dict[str, list[int]] = {key: [] for key in keys}

    def consume() -> None:
        connection = rig.connect(clock=None)
        subscriber = connection.open_subscriber(rig.lanes)
        while held := subscriber.receive(4, 0.3).messages:
            random.shuffle(held)
            for each in held:
                seen[each.key].append(int(each.body))
                subscriber.settle("ack", [each], timeout=30.0)
        connection.close()

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert seen == {key: list(range(30)) for key in keys}


# -- waiting


def test_a_publish_in_another_process_wakes_a_consumer(rig: Any, crew: Crew) -> None:
    delays = []
    for _ in range(3):
        taken: list[Any] = []
        waiting = threading.Thread(target=lambda: taken.extend(rig.subscriber(rig.billing).receive(1, 20.0).messages))  # noqa: B023
        waiting.start()
        process = crew.start("publish")
        assert [word(process), word(process)] == ["ready", "x-0"]
        published = time.monotonic()
        waiting.join()
        delays.append(time.monotonic() - published)
        rig.settle("ack", *taken)
    assert min(delays) < 0.5


def test_a_wait_ends_in_time_with_nothing(rig: Any, crew: Crew) -> None:
    started = time.monotonic()
    assert rig.subscriber(rig.billing).receive(1, 0.2).messages == ()
    assert 0.19 < time.monotonic() - started < 5
    assert rig.subscriber(rig.billing).receive(1, 0.0).messages == ()


@pytest.mark.parametrize("late", ["nack", "lease", "delay"])
def test_a_wait_ends_when_something_is_due(rig: Any, crew: Crew, late: str) -> None:
    rig.publish(rig.topic, "a", delay=0.3 if late == "delay" else 0.0)
    started = time.monotonic()
    if late != "delay":
        held = rig.take(rig.billing)
        rig.settle("nack" if late == "nack" else "extend", *held, seconds=0.3)
    [message] = rig.subscriber(rig.billing).receive(1, 20.0).messages
    assert 0.29 < time.monotonic() - started < 10
    assert message.body == b"a"


def test_what_others_do_wakes_all_who_wait_in_a_process(rig: Any, crew: Crew) -> None:
    rig.make(rig.audit)
    got: list[str] = []

    def consume(of: Any) -> None:
        got.extend(rig.bodies(rig.subscriber(of).receive(1, 20.0).messages))

    threads = [threading.Thread(target=consume, args=(of,)) for of in (rig.billing, rig.audit)]
    for each in threads:
        each.start()
    crew.said(crew.start("publish"))
    for each in threads:
        each.join(10)
    assert got == ["x-0", "x-0"]


def test_stop_ends_a_wait_and_settling_still_works(rig: Any, crew: Crew) -> None:
    rig.publish(rig.topic, "a")
    subscriber = rig.subscriber(rig.billing)
    held = subscriber.receive(1, 0.0).messages
    waiting = threading.Thread(target=subscriber.receive, args=(1, 60.0))
    waiting.start()
    rig.until(lambda: rig.broker._store.watch._led)
    started = time.monotonic()
    subscriber.stop()
    subscriber.stop()
    waiting.join()
    assert time.monotonic() - started < 5
    assert subscriber.receive(1, 60.0).messages == ()
    assert [each.lease for each in subscriber.settle("extend", held, seconds=9.0, timeout=5.0)] == [9.0]
    assert [hasattr(each, "lease") for each in subscriber.settle("ack", held, timeout=5.0)] == [True]


def test_settling_does_not_wait_for_a_receive(rig: Any, crew: Crew) -> None:
    rig.publish(rig.topic, "a")
    subscriber = rig.subscriber(rig.billing)
    held = subscriber.receive(1, 0.0).messages
    waiting = threading.Thread(target=subscriber.receive, args=(1, 60.0))
    waiting.start()
    rig.until(lambda: rig.broker._store.watch._led)
    started = time.monotonic()
    subscriber.settle("ack", held, timeout=5.0)
    assert time.monotonic() - started < 5
    assert waiting.is_alive()
    subscriber.stop()
    waiting.join()


@pytest.mark.skipif(sys.platform != "linux", reason="counts the processor time of a thread")
def test_waiting_costs_almost_nothing(rig: Any, crew: Crew) -> None:
    used: list[float] = []

    def wait() -> None:
        before = time.thread_time()
        rig.subscriber(rig.billing).receive(1, 1.0)
        used.append(time.thread_time() - before)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(used) < 0.2


def test_another_process_that_keeps_the_file_locked(rig: Any, crew: Crew) -> None:
    rig.publish(rig.topic, "a")
    process = crew.start("lock")
    assert word(process) == "ready"
    held: list[Any] = []
    subscriber = rig.subscriber(rig.billing)
    receiving = threading.Thread(target=lambda: held.extend(subscriber.receive(1, 20.0).messages))
    receiving.start()
    go_on(process)
    receiving.join()
    assert rig.bodies(held) == ["a"]


# -- killed, stopped, copied


def test_all_that_a_process_said_is_heard(crew: Crew) -> None:
    process = crew.start("publish", count=3)
    process.wait(60)
    assert word(process) == "ready"
    assert crew.said(process) == ["x-0", "x-1", "x-2"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_what_was_acknowledged_survives_kill_9(rig: Any, crew: Crew) -> None:
    sent: list[str] = []
    rounds = 0
    while rounds < 6 or len(sent) <= 100:
        rounds += 1
        processes = [crew.start("publish", f"{rounds}{name}", 100_000, size) for name, size in (("a", 1), ("b", 50))]
        for each in processes:
            assert word(each) == "ready"
        time.sleep(random.uniform(0.0, 0.1))
        for each in processes:
            each.kill()
            sent += crew.said(each)
    found = stored(rig)
    assert [each for each in sent if each not in found] == []
    assert max(found.values()) == 1
    assert rig.rows("PRAGMA integrity_check") == [("ok",)]
    for round_ in range(1, rounds + 1):
        names = [int(each.partition("-")[2]) for each in found if each.startswith(f"{round_}b-")]
        assert len(names) % 50 == 0  # a batch is stored whole or not at all


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_what_a_killed_consumer_held_comes_back(rig: Any, crew: Crew) -> None:
    rig.publish(rig.topic, *map(str, range(2000)))
    acked: list[str] = []
    for _ in range(4):
        process = crew.start("consume", count=20, size=10)
        assert word(process) == "ready"
        time.sleep(random.uniform(0.0, 0.1))
        process.kill()
        acked += crew.said(process)
    with rig.broker._store.write(5.0) as db:
        db.execute("UPDATE deliveries SET due = 0")
    rest = stored(rig)
    again = [each for each in acked if each in rest]
    assert len(acked) == len(set(acked))
    assert again == []
    missing = 2000 - len(acked) - len(rest)
    assert 0 <= missing <= 40  # acked, and killed before it could say so


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_a_consumer_stopped_past_its_lease_cannot_ack(rig: Any, crew: Crew) -> None:
    rig.publish(rig.topic, "a")
    process = crew.start("hold")
    assert word(process) == "a"
    process.send_signal(signal.SIGSTOP)
    with rig.broker._store.write(5.0) as db:
        db.execute("UPDATE deliveries SET due = ?", (rig.broker._store.now(),))
    [mine] = rig.take(rig.billing)
    process.send_signal(signal.SIGCONT)
    go_on(process)
    assert word(process) == "LEASE_LOST"
    assert mine.attempt == 2
    assert rig.settle("ack", mine) == ["ok"]


def test_a_copy_taken_in_the_middle_of_writing_is_whole(rig: Any, crew: Crew, tmp_path: Path) -> None:
    """By plain file copies, while a reader keeps SQLite from starting its log anew."""
    writers = [crew.start("publish", name, 100_000, size) for name, size in (("a", 1), ("b", 200))]
    for each in writers:
        assert word(each) == "ready"
    copies = []
    for n in range(5):
        rig.until(lambda n=n: rig.rows("SELECT count(*) FROM events")[0][0] > n * 200)
        reader = sqlite3.connect(rig.path, isolation_level=None)
        reader.execute("BEGIN")
        before = reader.execute("SELECT count(*) FROM events").fetchone()[0]
        copy = tmp_path / f"copy{n}.db"
        subprocess.run(["cp", rig.path, copy], check=True) if os.name == "posix" else shutil.copy(rig.path, copy)
        shutil.copy(f"{rig.path}-wal", f"{copy}-wal")
        reader.close()
        copies.append((copy, before))
    for each in writers:
        each.kill()
    for copy, before in copies:
        rig.path, was = copy, rig.broker
        rig.broker = rig.connect(clock=None)
        was.close()
        assert rig.rows("PRAGMA integrity_check") == [("ok",)]
        found = stored(rig)
        assert sum(found.values()) >= before
        for name in "ab":
            numbers = sorted(int(each[2:]) for each in found if each.startswith(f"{name}-"))
            assert numbers == list(range(len(numbers)))


def test_a_backup_by_sqlite_itself_is_whole(rig: Any, crew: Crew, tmp_path: Path) -> None:
    writer = crew.start("publish", "a", 100_000, 50)
    assert word(writer) == "ready"
    rig.until(lambda: rig.rows("SELECT count(*) FROM events")[0][0] > 500)
    source = sqlite3.connect(rig.path)
    source.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    source.close()
    rig.path = tmp_path / "copy.db"
    rig.broker = rig.connect(clock=None)
    found = stored(rig)
    assert sorted(int(each[2:]) for each in found) == list(range(len(found)))
    assert len(found) > 500
