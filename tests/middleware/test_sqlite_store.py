"""The store in a file: several processes, restarts, other clocks, and files that are none."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.brokers.sqlite.clock import Clock
from cloudevents_bridge.errors import ErrorCode, InvalidArgumentError
from cloudevents_bridge.middleware import SQLiteStore
from cloudevents_bridge.middleware.sqlite import VERSION
from cloudevents_bridge.testing import make_event

CLAIMER = """
import sys, time
from cloudevents_bridge.middleware import SQLiteStore
store = SQLiteStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    if store.claim(f"key-{number}", sys.argv[2], lease=600.0).state == "claimed":
        print(number, flush=True)
        if number % 3:
            store.complete(f"key-{number}", sys.argv[2], ttl=600.0)
print("end", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "done.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., SQLiteStore]]:
    """Opens the file, as another process would."""
    stores: list[SQLiteStore] = []

    def open_one(**arguments: Any) -> SQLiteStore:
        stores.append(SQLiteStore(path, **arguments))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def rows(path: Path, table: str) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        db.close()


def test_of_many_processes_one_gets_each_key_and_a_killed_one_keeps_its_claims_till_they_end(
    path: Path, opened: Callable[..., SQLiteStore]
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, str(path), f"token-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    claimed: list[int] = []
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            claimed += [int(line) for line in iter(process.stdout.readline, "end\n")]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sorted(claimed) == list(range(100))
    store = opened()
    said = [store.claim(f"key-{number}", "late", lease=60.0).state for number in range(100)]
    assert said == ["done" if number % 3 else "busy" for number in range(100)]


def test_what_is_done_is_there_after_a_restart(opened: Callable[..., SQLiteStore]) -> None:
    store = opened()
    store.claim("key", "one", lease=60.0)
    store.complete("key", "one", ttl=600.0)
    store.close()
    assert opened().claim("key", "two", lease=60.0).state == "done"
    assert store.claim("key", "two", lease=60.0).state == "done"  # a closed one opens again


def test_clocks(opened: Callable[..., SQLiteStore]) -> None:
    """A claim does not care for the wall clock, and ends with the boot of its machine; done goes by the wall clock."""
    store, other = opened(), opened()
    store._clock = Clock("boot", lambda: 100.0, lambda: 1000.0)
    other._clock = Clock("boot", lambda: 130.0, lambda: 9000.0)
    store.claim("running", "one", lease=60.0)
    store.claim("done", "one", lease=60.0)
    store.complete("done", "one", ttl=3600.0)
    assert other.claim("running", "two", lease=60.0) == ("busy", 30.0)
    assert other.claim("done", "two", lease=60.0).state == "claimed"
    other._clock = Clock("next boot", lambda: 5.0, lambda: 1100.0)
    assert other.claim("running", "two", lease=60.0).state == "claimed"


def test_the_file_does_not_grow_with_what_has_ended(path: Path, opened: Callable[..., SQLiteStore]) -> None:
    store = opened()
    now = [0.0]
    store._clock = Clock("boot", lambda: now[0], lambda: now[0])
    for number in range(500):
        now[0] += 1.0
        store.claim(f"crashed-{number}", "one", lease=10.0)
        store.claim(f"done-{number}", "one", lease=10.0)
        store.complete(f"done-{number}", "one", ttl=20.0)
    assert rows(path, "running") <= 12
    assert rows(path, "done") <= 22


def test_claims_of_an_earlier_boot_are_swept_too(path: Path, opened: Callable[..., SQLiteStore]) -> None:
    store = opened()
    store._clock = Clock("boot", lambda: 100.0, lambda: 1000.0)
    for number in range(20):
        store.claim(str(number), "one", lease=60.0)
    store.close()
    store._clock = Clock("next boot", lambda: 1.0, lambda: 1000.0)
    store.claim("one more", "one", lease=60.0)
    assert rows(path, "running") == 1


def test_done_is_on_disk_before_it_is_said(path: Path, opened: Callable[..., SQLiteStore]) -> None:
    store = opened()
    store.claim("key", "one", lease=60.0)
    assert store._db is not None
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 1  # NORMAL: a claim need not survive a power cut
    store.complete("key", "one", ttl=60.0)
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_a_file_that_is_deleted_is_made_again(path: Path, opened: Callable[..., SQLiteStore]) -> None:
    store, other = opened(), opened()
    store.claim("key", "one", lease=60.0)
    for each in path.parent.glob("done.db*"):
        each.unlink()
    assert other.claim("key", "two", lease=60.0).state == "claimed"
    assert store.claim("key", "one", lease=60.0).state == "busy"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_after_a_fork_the_child_opens_its_own(opened: Callable[..., SQLiteStore]) -> None:
    store = opened()
    store.claim("parents", "one", lease=60.0)
    child = os.fork()
    if not child:
        inherited = store._db  # in use by two processes it would be damaged some day
        said = [store.claim("parents", "two", lease=60.0).state, store.claim("childs", "two", lease=60.0).state]
        os._exit(0 if inherited is None and said == ["busy", "claimed"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.claim("childs", "one", lease=60.0).state == "busy"
    assert store.complete("parents", "one", ttl=60.0)


def test_one_that_is_locked_for_too_long(path: Path, opened: Callable[..., SQLiteStore]) -> None:
    store = opened(timeout=0.05)
    store.claim("key", "one", lease=60.0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ceb.BridgeError, match=r"was locked by others for longer than 0\.05 s") as caught:
        store.complete("key", "one", ttl=60.0)
    assert caught.value.code == ErrorCode.DEADLINE_EXCEEDED
    other.execute("ROLLBACK")
    other.close()
    assert store.complete("key", "one", ttl=60.0)


def test_it_waits_for_others_as_long_as_it_may(path: Path, opened: Callable[..., SQLiteStore]) -> None:
    store = opened(timeout=60.0)
    store.claim("key", "one", lease=60.0)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(store.complete("key", "one", ttl=60.0)))
    thread.start()
    thread.join(0.05)
    assert not done
    other.execute("ROLLBACK")
    other.close()
    thread.join()
    assert done == [True]


class TestFilesThatAreNone:
    def failure(self, path: Path) -> ceb.BridgeError:
        store = SQLiteStore(path)
        with pytest.raises(ceb.BridgeError) as caught:
            store.claim("key", "one", lease=60.0)
        store.close()
        return caught.value

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        error = self.failure(tmp_path / "missing" / "done.db")
        assert error.code == ErrorCode.FAILED_PRECONDITION
        assert "create it first" in str(error)

    def test_the_file_of_a_broker(self, tmp_path: Path) -> None:
        with ceb.connect(f"sqlite:///{tmp_path}/events.db", create_missing=True) as broker:
            broker.subscriber("orders", "billing").receive(wait=0)
            broker.publish("orders", make_event())
        error = self.failure(tmp_path / "events.db")
        assert error.code == ErrorCode.FAILED_PRECONDITION
        assert "a file of its own" in str(error)

    def test_one_of_a_newer_version(self, path: Path, opened: Callable[..., SQLiteStore]) -> None:
        opened().claim("key", "one", lease=60.0)
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
        db.close()
        assert "newer version" in str(self.failure(path))

    def test_no_database(self, path: Path) -> None:
        path.write_text("to whom it may concern\n" * 100, encoding="utf-8")
        error = self.failure(path)
        assert error.code == ErrorCode.FAILED_PRECONDITION
        assert "no SQLite file" in str(error)

    @pytest.mark.parametrize("text", ["", ":memory:"])
    def test_none_that_lasts(self, text: str) -> None:
        with pytest.raises(InvalidArgumentError, match="MemoryStore"):
            SQLiteStore(text)
