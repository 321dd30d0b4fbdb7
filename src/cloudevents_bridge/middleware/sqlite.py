"""The store for the processes of one machine: a SQLite file."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from cloudevents_bridge.brokers.sqlite.clock import Clock, system_clock
from cloudevents_bridge.brokers.sqlite.errors import BUSY, classify, primary
from cloudevents_bridge.errors import BridgeError, DeadlineExceededError, ErrorCode, InvalidArgumentError, make_error
from cloudevents_bridge.middleware.store import Claim

T = TypeVar("T")
APPLICATION_ID = 0x43456269
"""Marks the file as ours, in the bytes where `file` and SQLite look ("CEbi")."""
VERSION = 1
SWEEP = 10
"""Records that have ended and are removed with each claim, at most: more than a claim can add."""

# A claim ends on the clock of the boot, which nothing moves, and is void after another; done is kept by the wall clock.
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS running (
        key TEXT PRIMARY KEY, token TEXT NOT NULL, boot TEXT NOT NULL, ends REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS running_ends ON running (boot, ends)",
    "CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY, token TEXT NOT NULL, ends REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS done_ends ON done (ends)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
_SWEEP_RUNNING = """
DELETE FROM running WHERE key IN (SELECT key FROM running WHERE boot = ? AND ends <= ? ORDER BY ends LIMIT ?)
"""
_SWEEP_DONE = "DELETE FROM done WHERE key IN (SELECT key FROM done WHERE ends <= ? ORDER BY ends LIMIT ?)"


class SQLiteStore:
    """Remembers in a SQLite file of its own, which is made on first use. Any number of threads and processes of one
    machine may share it; a network drive will not do. That an event is done is on disk before it is acked. The file
    does not grow with what has ended.

    Args:
        timeout: seconds to wait for others that have the file locked.

    Raises:
        InvalidArgumentError: if the path is empty or ":memory:".
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 10.0) -> None:
        if str(path) in ("", ":memory:"):
            raise InvalidArgumentError(f"{str(path)!r} is no file that lasts: give a path, or use MemoryStore")
        self._path = Path(path).absolute()
        self._timeout = timeout
        self._clock: Clock | None = None
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._durable = False
        _STORES.add(self)

    def claim(self, key: str, token: str, *, lease: float) -> Claim:
        with self._transaction() as (db, clock):
            now, wall = clock.ticks(), clock.wall()
            done = db.execute("SELECT ends FROM done WHERE key = ?", (key,)).fetchone()
            if done is not None and done[0] > wall:
                return Claim("done")
            running = db.execute("SELECT token, boot, ends FROM running WHERE key = ?", (key,)).fetchone()
            if running is not None and running[0] != token and running[1] == clock.boot and running[2] > now:
                return Claim("busy", running[2] - now)
            db.execute(_SWEEP_RUNNING, (clock.boot, now, SWEEP))
            db.execute(_SWEEP_DONE, (wall, SWEEP))
            db.execute("INSERT OR REPLACE INTO running VALUES (?, ?, ?, ?)", (key, token, clock.boot, now + lease))
            return Claim("claimed")

    def renew(self, key: str, token: str, *, lease: float) -> bool:
        with self._transaction() as (db, clock):
            ends = clock.ticks() + lease
            done = db.execute("UPDATE running SET ends = ? WHERE key = ? AND token = ?", (ends, key, token))
            return done.rowcount == 1

    def complete(self, key: str, token: str, *, ttl: float) -> bool:
        with self._transaction(durable=True) as (db, clock):
            now, wall = clock.ticks(), clock.wall()
            done = db.execute("SELECT token, ends FROM done WHERE key = ?", (key,)).fetchone()
            if done is not None and done[0] != token and done[1] > wall:
                return False
            running = db.execute("SELECT token, boot, ends FROM running WHERE key = ?", (key,)).fetchone()
            if running is not None and running[0] != token and running[1] == clock.boot and running[2] > now:
                return False
            db.execute("DELETE FROM running WHERE key = ?", (key,))
            db.execute("INSERT OR REPLACE INTO done VALUES (?, ?, ?)", (key, token, wall + ttl))
            return True

    def release(self, key: str, token: str) -> None:
        with self._transaction() as (db, _):
            db.execute("DELETE FROM running WHERE key = ? AND token = ?", (key, token))

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        with self._lock:
            self._drop()

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[tuple[sqlite3.Connection, Clock]]:
        """One transaction that no other writer is beside. `durable`: on disk when it ends.

        Raises:
            BridgeError: if the file cannot be used.
        """
        deadline = time.monotonic() + self._timeout
        if not self._lock.acquire(timeout=self._timeout):
            raise self._locked()
        try:
            db, clock = self._open(deadline)
            if durable is not self._durable:
                db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._patiently(lambda: db.execute("BEGIN IMMEDIATE"), deadline)
            try:
                yield db, clock
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            fault = classify(error, str(self._path))
            raise make_error(fault.code, fault.message, retryable=fault.retryable) from error
        finally:
            self._lock.release()

    def _open(self, deadline: float) -> tuple[sqlite3.Connection, Clock]:
        if self._clock is None:
            self._clock = system_clock()
        if self._db is not None:
            if self._file == _identity(self._path):
                return self._db, self._clock
            self._drop()  # what is written to a file that was deleted or replaced, nobody else sees
        if not self._path.parent.is_dir():
            raise make_error(
                ErrorCode.FAILED_PRECONDITION,
                f"{self._path} cannot be opened: the directory {self._path.parent} does not exist: create it first",
            )
        db = sqlite3.connect(self._path, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db, self._clock, deadline)
        except BaseException:
            db.close()
            raise
        self._db, self._file, self._durable = db, _identity(self._path), True
        return db, self._clock

    def _prepare(self, db: sqlite3.Connection, clock: Clock, deadline: float) -> None:
        application, version, tables = self._patiently(
            lambda: db.execute(
                "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM "
                "pragma_user_version), (SELECT count(*) FROM sqlite_master)"
            ).fetchone(),
            deadline,
        )
        if tables and (application != APPLICATION_ID or version > VERSION):
            raise make_error(
                ErrorCode.FAILED_PRECONDITION,
                f"{self._path} is a file of another program, or of a newer version: give idempotent handling a file of "
                "its own",
            )
        mode = self._patiently(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone()[0], deadline)
        if mode != "wal":
            raise make_error(
                ErrorCode.FAILED_PRECONDITION,
                f"{self._path} is on a file system without shared memory (a network drive?): use a local disk",
            )
        db.execute("PRAGMA synchronous = FULL")
        self._patiently(lambda: db.execute("BEGIN IMMEDIATE"), deadline)
        for statement in _SCHEMA:
            db.execute(statement)
        db.execute("DELETE FROM running WHERE boot <> ?", (clock.boot,))
        db.execute("COMMIT")

    def _patiently(self, call: Callable[[], T], deadline: float) -> T:
        """Poll for the lock: SQLite's own busy handler sleeps up to 100 ms at a time."""
        pause = 0.0002
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if primary(error) != BUSY:
                    raise
                if time.monotonic() >= deadline:
                    raise self._locked() from error
            time.sleep(random.uniform(0.2, 1.0) * pause)  # noqa: S311 - spreads the pollers, keeps no secret
            pause = min(pause * 1.3, 0.004)

    def _locked(self) -> BridgeError:
        return DeadlineExceededError(
            f"{self._path} was locked by others for longer than {self._timeout:.3g} s: look for a program that keeps a "
            "transaction open or is stopped",
            retryable=True,
        )

    def _drop(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = None

    def _abandon(self) -> None:
        # In the child of a fork: never close what belongs to the parent, and open anew.
        import ctypes

        if self._db is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
        self._db, self._lock = None, threading.Lock()


def _identity(path: Path) -> tuple[int, int]:
    try:
        file = os.stat(path)  # noqa: PTH116 - Path.stat takes twice as long
    except FileNotFoundError:
        return 0, 0
    return file.st_dev, file.st_ino


_STORES: WeakSet[SQLiteStore] = WeakSet()


def _after_fork() -> None:
    for each in list(_STORES):
        each._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
