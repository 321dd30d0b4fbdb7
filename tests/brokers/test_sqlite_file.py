"""The file itself: opening, refusing, migrating, failing without losing anything."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge.brokers.sqlite import adapter
from cloudevents_bridge.brokers.sqlite.errors import classify
from cloudevents_bridge.brokers.sqlite.schema import MIGRATIONS
from cloudevents_bridge.driver import Capability, Fault, Subscription, Topic, Url
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    ErrorCode,
    NotFoundError,
    make_error,
)

NEWER = (*MIGRATIONS, ("ALTER TABLE topics ADD COLUMN note TEXT NOT NULL DEFAULT 'migrated'",))


def url(path: str, *, authority: str = "", **query: str) -> Url:
    return Url(f"sqlite://{authority}{path}", "sqlite", authority, path, query)


def fault_of(rig: Any, error: BaseException) -> Fault:
    fault = rig.broker.classify(error)
    assert isinstance(fault, Fault)
    return fault


# -- the URL


def test_a_url_names_a_file_and_connecting_does_not_touch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = adapter(url("/my file#1.db"), {})
    monkeypatch.chdir("/")
    assert relative.native == tmp_path / "my file#1.db"
    assert adapter(url(f"/{tmp_path}/a.db", synchronous="normal"), {}).native == tmp_path / "a.db"
    relative.open_publisher(Topic("orders"))
    relative.open_subscriber(Subscription(Topic("orders"), "billing"))
    assert list(tmp_path.iterdir()) == []
    relative.topology.apply(relative.topology.diff([Topic("orders")]))
    assert (tmp_path / "my file#1.db").exists()
    relative.close()


@pytest.mark.parametrize(
    ("address", "options", "says"),
    [
        (url("/x.db", authority="host"), {}, "'host': write sqlite:///host/x.db"),
        (url(""), {}, "names no file"),
        (url("/"), {}, "names no file"),
        (url("/dir/"), {}, "names no file"),
        (url("/:memory:"), {}, "use memory://"),
        (url("/x.db", synchronous="off"), {}, "'off': use full"),
        (url("/x.db"), {"endpoint": 1}, "'endpoint' is unknown"),
    ],
)
def test_wrong_urls_and_options(address: Url, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        adapter(address, options)
    assert says in str(caught.value)


def test_what_it_declares() -> None:
    assert adapter.query == {"synchronous"}
    assert adapter.options == set()
    assert adapter(url("/x.db"), {}).capabilities == set(Capability) - {Capability.FILTER}


def test_the_wire_form_is_structured_json() -> None:
    from cloudevents_bridge.bindings import STRUCTURED
    from cloudevents_bridge.brokers.sqlite.publisher import USUAL
    from cloudevents_bridge.event import CloudEvent

    wire = adapter(url("/x.db"), {}).wire
    assert wire is STRUCTURED
    attributes, _ = wire.encode(CloudEvent(type="t", source="/s", data={"a": 1}))
    assert attributes == USUAL


# -- opening


def test_only_the_topology_creates_the_file(rig: Any) -> None:
    assert len(rig.broker.topology.diff([rig.topic, rig.billing])) == 2
    uses: list[Callable[[], object]] = [
        lambda: rig.publish(rig.topic, "a"),
        lambda: rig.take(rig.billing),
        lambda: rig.broker.ping(timeout=1.0),
    ]
    for call in uses:
        with pytest.raises(NotFoundError, match=r"events.db does not exist yet: .*ceb topology apply"):
            call()
    rig.broker.topology.delete(rig.topic)
    assert not rig.path.exists()
    rig.make(rig.topic, rig.billing)
    rig.broker.ping(timeout=1.0)
    assert rig.publish(rig.topic, "a")[0].reached == 1


def test_an_empty_file_is_taken_for_a_new_one(rig: Any) -> None:
    rig.path.touch()
    with pytest.raises(NotFoundError):
        rig.publish(rig.topic, "a")
    rig.make(rig.topic, rig.billing)
    assert rig.publish(rig.topic, "a")[0].reached == 1


def test_many_may_open_a_new_file_at_once(rig: Any) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work() -> None:
        broker = rig.connect()
        start.wait()
        try:
            broker.topology.apply(broker.topology.diff([rig.topic, rig.billing]))
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    assert rig.rows("SELECT count(*) FROM topics") == rig.rows("SELECT count(*) FROM subscriptions") == [(1,)]


def test_a_missing_directory(rig: Any) -> None:
    rig.path = rig.path.parent / "no" / "events.db"
    with pytest.raises(BridgeError, match=r"the directory .*/no does not exist: create it") as caught:
        broker = rig.connect()
        broker.topology.apply(broker.topology.diff([rig.topic]))
    assert caught.value.code == ErrorCode.FAILED_PRECONDITION


def test_a_directory_instead_of_a_file(rig: Any) -> None:
    rig.path.mkdir()
    with pytest.raises(BridgeError, match=r"events.db cannot be opened: it is a directory") as caught:
        rig.make(rig.topic)
    assert caught.value.code == ErrorCode.FAILED_PRECONDITION


def test_a_file_that_is_no_database_is_left_alone(rig: Any) -> None:
    rig.path.write_text("a diary, not a database " * 100)
    before = rig.path.read_bytes()
    with pytest.raises(sqlite3.DatabaseError) as caught:
        rig.make(rig.topic)
    fault = fault_of(rig, caught.value)
    assert (fault.code, fault.retryable) == (ErrorCode.FAILED_PRECONDITION, False)
    assert f"{rig.path} is no SQLite file" in fault.message
    assert rig.path.read_bytes() == before
    assert [each.name for each in rig.path.parent.iterdir()] == ["events.db"]


def test_the_database_of_another_program_is_left_alone(rig: Any) -> None:
    db = sqlite3.connect(rig.path)
    db.executescript("CREATE TABLE mine (x); INSERT INTO mine VALUES (1)")
    db.close()
    before = rig.path.read_bytes()
    with pytest.raises(BridgeError, match="file of another program") as caught:
        rig.make(rig.topic)
    assert caught.value.code == ErrorCode.FAILED_PRECONDITION
    assert rig.path.read_bytes() == before


def test_a_damaged_file_says_so(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    rig.publish(rig.topic, *["x" * 300] * 1000)
    rig.close()
    size = rig.path.stat().st_size
    with rig.path.open("r+b") as file:
        for page in range(1, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    rig.broker = rig.connect()
    with pytest.raises(sqlite3.DatabaseError) as caught:
        rig.take(rig.billing)
    fault = fault_of(rig, caught.value)
    assert (fault.code, fault.retryable) == (ErrorCode.INTERNAL, False)
    assert f"{rig.path} is damaged" in fault.message
    assert ".recover" in fault.message


def test_a_file_of_a_newer_version_is_refused_at_opening_and_while_open(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    rig.publish(rig.topic, "a")
    held = rig.take(rig.billing)
    newer = rig.connect(migrations=NEWER)
    newer.ping(timeout=1.0)
    says = "newer version of cloudevents-bridge .schema 2; this one knows 1.: upgrade"
    uses: list[Callable[[], object]] = [
        lambda: rig.publish(rig.topic, "b"),
        lambda: rig.settle("ack", *held),
        lambda: rig.connect().ping(timeout=1.0),
    ]
    for use in uses:
        with pytest.raises(BridgeError, match=says) as caught:
            use()
        assert caught.value.code == ErrorCode.FAILED_PRECONDITION


def test_an_older_file_is_migrated_with_what_is_in_it(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    rig.publish(rig.topic, "a")
    rig.close()
    start = threading.Barrier(4)
    brokers = [rig.connect(migrations=NEWER) for _ in range(4)]
    failures: list[BaseException] = []

    def work(broker: Any) -> None:
        start.wait()
        try:
            broker.ping(timeout=30.0)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in brokers]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    rig.broker = brokers[0]
    assert rig.rows("SELECT note FROM topics") == [("migrated",)]
    assert rig.rows("PRAGMA user_version") == [(2,)]
    assert rig.bodies(rig.take(rig.billing)) == ["a"]


def test_a_migration_that_fails_leaves_the_file_as_it_was(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    rig.publish(rig.topic, "a")
    broken = (*MIGRATIONS, ("ALTER TABLE topics ADD COLUMN note TEXT", "UPDATE nothing SET x = 1"))
    with pytest.raises(sqlite3.OperationalError):
        rig.connect(migrations=broken).ping(timeout=1.0)
    assert rig.rows("PRAGMA user_version") == [(1,)]
    assert "note" not in rig.rows("SELECT sql FROM sqlite_master WHERE name = 'topics'")[0][0]
    assert rig.bodies(rig.take(rig.billing)) == ["a"]


def test_an_sqlite_that_is_too_old(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(BridgeError, match=r"needs 3.35 or newer"):
        rig.make(rig.topic)


# -- trouble while in use


def test_a_file_that_is_locked_for_too_long(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    other = sqlite3.connect(rig.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    publisher = rig.publisher(rig.topic)
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"was locked by others for longer than 0.2 s; nothing") as caught:
        publisher.send([], timeout=0.2)
    assert 0.15 < time.monotonic() - started < 5
    assert caught.value.retryable
    assert not caught.value.maybe_applied
    other.execute("COMMIT")
    other.close()
    assert rig.publish(rig.topic, "a")[0].reached == 1


def test_a_full_disk_loses_nothing_and_is_over_when_there_is_space(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    rig.publish(rig.topic, "before")
    with rig.broker._store.write(1.0) as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError) as caught:
        rig.publish(rig.topic, *["x" * 5000] * 100)
    fault = fault_of(rig, caught.value)
    assert (fault.code, fault.retryable, fault.maybe_applied) == (ErrorCode.RESOURCE_EXHAUSTED, True, False)
    assert f"the disk of {rig.path} is full; nothing was stored: free space" in fault.message
    db.execute("PRAGMA max_page_count = 1000000")
    rig.publish(rig.topic, "after")
    assert rig.bodies(rig.take(rig.billing)) == ["before", "after"]


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from cloudevents_bridge.brokers.sqlite.adapter import Connection
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.driver import Outbound, Topic

broker = Connection(Store(Path(sys.argv[1]), "sqlite:///x"))
publisher = broker.open_publisher(Topic("orders"))
print(publisher.send([Outbound(b"fits", {})], timeout=5.0)[0].id)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
sent = 0
try:
    while True:
        publisher.send([Outbound(b"x" * 50_000, {})], timeout=5.0)
        sent += 1
except Exception as error:
    fault = broker.classify(error)
    print(sent, fault.code, fault.retryable, fault.maybe_applied)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_a_file_size_limit_loses_nothing(rig: Any) -> None:
    rig.broker = rig.connect(clock=None)
    rig.make(rig.topic, rig.billing)
    run = subprocess.run([sys.executable, "-c", _LIMITED, rig.path], capture_output=True, text=True, check=True)
    first, second = run.stdout.splitlines()
    sent, code, retryable, maybe = second.split()
    assert (first, code, retryable, maybe) == ("1", "UNAVAILABLE", "True", "False")
    assert len(rig.take(rig.billing)) == 1 + int(sent)
    assert rig.rows("PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that another user may look into."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


_READING = """
import os, sys, urllib.parse
from pathlib import Path
from cloudevents_bridge.brokers.sqlite.adapter import Connection
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.driver import Outbound, Topic

if os.geteuid() == 0:
    os.setuid(65534)  # root may do everything
broker = Connection(Store(Path(sys.argv[1]), "sqlite:///x"))
try:
    print(broker.open_publisher(Topic("orders")).send([Outbound(b"x", {})], timeout=5.0))
except Exception as error:
    fault = broker.classify(error)
    print(fault.code, fault.retryable, fault.message, sep="|")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
@pytest.mark.parametrize("directory", [0o555, 0o755])
@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_a_file_without_the_right_to_write(rig: Any, shared: Path, directory: int, mode: int) -> None:
    rig.path = shared / "events.db"
    rig.broker = rig.connect()
    rig.make(rig.topic, rig.billing)
    rig.close()
    rig.path.chmod(mode)
    shared.chmod(directory)
    run = subprocess.run([sys.executable, "-c", _READING, rig.path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    code, retryable, text = run.stdout.strip().split("|")
    assert (code, retryable) == ("PERMISSION_DENIED", "False"), text
    assert str(rig.path) in text
    assert "right" in text
    assert stat.S_IMODE(rig.path.stat().st_mode) == mode


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_is_taken_away_is_noticed(rig: Any, replaced: bool) -> None:
    rig.make(rig.topic, rig.billing)
    rig.publish(rig.topic, "a")
    for each in list(rig.path.parent.iterdir()):
        each.rename(each.with_name(each.name.replace("events", "moved")))
    if replaced:
        other = rig.connect()
        other.topology.apply(other.topology.diff([rig.topic, rig.billing]))
    with pytest.raises(BridgeError, match=r"was deleted or replaced while in use; nothing was stored") as caught:
        rig.until(lambda: rig.publish(rig.topic, "b") == [])
    assert (caught.value.code, caught.value.retryable) == (ErrorCode.UNAVAILABLE, True)
    if replaced:
        assert [done.sequence for done in rig.publish(rig.topic, "c")] == ["1"]
        assert rig.bodies(rig.take(rig.billing)) == ["c"]
    else:
        with pytest.raises(NotFoundError, match="does not exist yet"):
            rig.publish(rig.topic, "b")


def test_a_waiting_receive_notices_too(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    rig.take(rig.billing)
    threading.Timer(0.1, rig.path.unlink).start()
    with pytest.raises(BridgeError, match="deleted or replaced"):
        rig.subscriber(rig.billing).receive(1, 20.0)


# -- errors


@pytest.mark.parametrize("code", [3, 5, 6, 7, 8, 10, 11, 13, 14, 15, 18, 23, 26])
def test_every_error_of_the_table_names_the_file_and_what_sqlite_said(code: int) -> None:
    error = sqlite3.OperationalError("native words")
    error.sqlite_errorcode = code | 0x300
    fault = classify(error, "/dir/events.db")
    assert "native words" in fault.message
    assert code == 18 or "/dir/events.db" in fault.message
    assert not fault.maybe_applied


def test_what_is_unknown_is_not_retried() -> None:
    for error, code in (
        (sqlite3.ProgrammingError("?"), ErrorCode.INTERNAL),
        (RuntimeError("?"), ErrorCode.UNKNOWN),
        (make_error(ErrorCode.NOT_FOUND, "gone"), ErrorCode.NOT_FOUND),
    ):
        fault = classify(error, "x")
        assert (fault.code, fault.retryable) == (code, False)


# -- closing and forking


def test_closed_is_closed(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    publisher, subscriber = rig.publisher(rig.topic), rig.subscriber(rig.billing)
    publisher.close()
    publisher.close()
    with pytest.raises(ClosedError, match="publisher"):
        publisher.send([], timeout=1.0)
    subscriber.close()
    with pytest.raises(ClosedError, match="subscriber"):
        subscriber.receive(1, 0.0)
    with pytest.raises(ClosedError, match="subscriber"):
        subscriber.settle("ack", [], timeout=1.0)
    other = rig.publisher(rig.topic)
    rig.broker.close()
    rig.broker.close()
    uses: list[Callable[[], object]] = [
        lambda: other.send([], timeout=1.0),
        lambda: rig.take(rig.billing),
        lambda: rig.broker.ping(timeout=1.0),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="cannot be used: the connection is closed"):
            use()


def test_the_last_to_close_leaves_one_file_and_no_open_descriptor(rig: Any) -> None:
    rig.make(rig.topic, rig.billing)
    rig.publish(rig.topic, "a")
    rig.take(rig.billing)
    rig.close()
    assert [each.name for each in rig.path.parent.iterdir()] == ["events.db"]
    if Path("/proc/self/fd").exists():
        assert not [each for each in Path("/proc/self/fd").iterdir() if "events.db" in str(each.resolve())]


_FORKING = """
import os, sys
from pathlib import Path
from cloudevents_bridge.brokers.sqlite.adapter import Connection
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.driver import Outbound, Subscription, Topic

topic = Topic("orders")
of = Subscription(topic, "billing")
broker = Connection(Store(Path(sys.argv[1]), "sqlite:///x"))
publisher = broker.open_publisher(topic)
publisher.send([Outbound(b"parent", {})], timeout=5.0)
child = os.fork()
if child == 0:
    try:
        publisher.send([], timeout=5.0)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    broker.close()
    fresh = Connection(Store(Path(sys.argv[1]), "sqlite:///x"))
    fresh.open_publisher(topic).send([Outbound(b"child", {})], timeout=5.0)
    fresh.close()
    del publisher, broker
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
publisher.send([Outbound(b"parent again", {})], timeout=5.0)
print([m.body.decode() for m in broker.open_subscriber(of).receive(10, 0.0).messages])
broker.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_the_child_connects_anew(rig: Any) -> None:
    rig.broker = rig.connect(clock=None)
    rig.make(rig.topic, rig.billing)
    run = subprocess.run([sys.executable, "-c", _FORKING, rig.path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    refused, bodies = run.stdout.splitlines()
    assert refused.startswith("ClosedError")
    assert "left behind in the parent of a fork: connect anew" in refused
    assert bodies == "['parent', 'child', 'parent again']"
