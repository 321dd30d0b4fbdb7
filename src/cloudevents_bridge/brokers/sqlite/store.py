"""The file: opened on first use, written by one connection and watched by another, both shared by all threads.

SQLite lets one transaction write at a time, whoever asks. With one writing connection per process its threads queue at
a lock, which is cheap, and only the processes poll for the file's own lock.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cloudevents_bridge.brokers.sqlite import clock as clocks
from cloudevents_bridge.brokers.sqlite.errors import BUSY, CANTOPEN, primary
from cloudevents_bridge.brokers.sqlite.schema import APPLICATION_ID, MIGRATIONS, migrate, version_of
from cloudevents_bridge.brokers.sqlite.watch import Watch
from cloudevents_bridge.errors import BridgeError, ErrorCode, make_error

if TYPE_CHECKING:
    from cloudevents_bridge.brokers.sqlite.places import TopicRow

OLDEST_SQLITE = (3, 35, 0)
SETUP = 5.0
"""Seconds to wait for others while opening the file, and for a read."""
LOOK = 0.02
"""Seconds between two looks whether the path still leads to the open file."""

_PRAGMAS = """
PRAGMA wal_autocheckpoint = 1000;  -- pages: a write to a log that still grows takes twice as long to reach the disk
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -16000;
PRAGMA temp_store = MEMORY;
PRAGMA fullfsync = 1;
PRAGMA checkpoint_fullfsync = 1;
"""

T = TypeVar("T")


class Store:
    """One file as one process sees it. Any thread may call any method.

    Attributes:
        path: absolute.
        url: how the broker was addressed, for errors.
        watch: wakes those who wait for a change.
        topics: what was found out about topics, by name. It holds as long as nobody changes topics or subscriptions,
            and no other process writes; who adds events keeps `last` up to date. Only within `write`.
        tend_at: when this process looks next for what has grown old.
    """

    def __init__(
        self,
        path: Path,
        url: str,
        *,
        synchronous: str = "FULL",
        clock: clocks.Clock | None = None,
        migrations: Sequence[Sequence[str]] = MIGRATIONS,
    ) -> None:
        self.path = path
        self.url = url
        self.watch = Watch(self._poll)
        self.topics: dict[str, TopicRow] = {}
        self.tend_at = 0.0
        self._clock = clock
        self._durable = synchronous
        self._migrations = migrations
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._synchronous = ""
        self._base = 0.0
        self._data_version = -1
        self._file = (0, 0)
        self._look_at = 0.0
        self._closed = ""
        _STORES.add(self)

    def now(self) -> float:
        """The time of the file, in seconds. Only once the file is open."""
        return self.clock.ticks() + self._base

    @property
    def clock(self) -> clocks.Clock:
        if self._clock is None:
            self._clock = clocks.system_clock()
        return self._clock

    @contextlib.contextmanager
    def write(
        self,
        timeout: float,
        *,
        durable: bool = False,
        create: bool = False,
        stopped: Callable[[], bool] | None = None,
    ) -> Iterator[sqlite3.Connection]:
        """One transaction that no other writer is beside. `durable`: on disk when it ends. `create`: the file too.

        Raises:
            DeadlineExceededError: if others kept the file locked for `timeout` seconds, or until `stopped`.
            BridgeError: if the file is missing, foreign, of a newer version or was closed here.
        """
        deadline = time.monotonic() + timeout
        if self._closed or not self._writing.acquire(timeout=max(0.0, timeout)):
            raise self._refusal(timeout)
        try:
            db = self._open(create=create)
            mode = self._durable if durable else "NORMAL"
            if mode != self._synchronous:
                db.execute(f"PRAGMA synchronous = {mode}")
                self._synchronous = mode
            self._patiently(lambda: db.execute("BEGIN IMMEDIATE"), deadline, timeout, stopped)
            try:
                self._learn(db)
                yield db
                db.execute("COMMIT")
            except BaseException:
                self.topics.clear()
                if db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                raise
        finally:
            self._writing.release()

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one query, as of now. Waits for no writer.

        Raises:
            BridgeError: as `write`.
        """
        if self._reader is None or not self._is_current():
            if self._closed or not self._writing.acquire(timeout=SETUP):
                raise self._refusal(SETUP)
            try:
                self._open(create=False)
            finally:
                self._writing.release()
        with self._reading:
            if self._reader is None:
                raise self._refusal(SETUP)
            return self._reader.execute(sql, parameters).fetchall()

    def close(self, why: str = "the connection is closed") -> None:
        """Idempotent. Waits for the transaction that is running."""
        if self._closed:
            return
        self._closed = why
        with self._writing, self._reading:
            self._drop()
        self.watch.notify()

    def fail(self, code: ErrorCode, text: str, **fields: Any) -> BridgeError:
        return make_error(code, text, broker=self.url, **fields)

    def abandon(self) -> None:
        """In the child of a fork: never touch, and never let go of, what belongs to the parent."""
        import ctypes

        self._closed = "it was left behind in the parent of a fork: connect anew in the child"
        for each in (self._writer, self._reader):
            if each is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))
        self._writer = self._reader = None

    def _refusal(self, timeout: float) -> BridgeError:
        if self._closed:
            return self.fail(ErrorCode.CLOSED, f"{self.url} cannot be used: {self._closed}")
        return self._locked(timeout)

    def _locked(self, timeout: float) -> BridgeError:
        return self.fail(
            ErrorCode.DEADLINE_EXCEEDED,
            f"{self.path} was locked by others for longer than {timeout:.3g} s; nothing was stored: try again, "
            "and look for a program that keeps a transaction open or is stopped",
            retryable=True,
        )

    def _patiently(
        self, call: Callable[[], T], deadline: float, timeout: float, stopped: Callable[[], bool] | None = None
    ) -> T:
        """Poll for the lock: SQLite's own busy handler sleeps up to 100 ms at a time."""
        pause = 0.0002
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if primary(error) != BUSY:
                    raise
                if time.monotonic() >= deadline or (stopped and stopped()):
                    raise self._locked(timeout) from error
            time.sleep(random.uniform(0.2, 1.0) * pause)  # noqa: S311 - spreads the pollers, keeps no secret
            pause = min(pause * 1.3, 0.004)

    def _poll(self) -> int:
        try:
            return int(self.read("PRAGMA data_version")[0][0])
        except sqlite3.OperationalError as error:
            if primary(error) != BUSY:
                raise
            return -1  # something is going on there: worth a closer look

    def _open(self, *, create: bool) -> sqlite3.Connection:
        if self._closed:
            raise self._refusal(0.0)
        if self._writer is not None:
            if self._is_current():
                return self._writer
            with self._reading:
                self._drop()
            raise self.fail(
                ErrorCode.UNAVAILABLE,
                f"{self.path} was deleted or replaced while in use; nothing was stored: the next call opens it anew",
                retryable=True,
            )
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise self.fail(
                ErrorCode.FAILED_PRECONDITION,
                f"this Python has SQLite {sqlite3.sqlite_version}: {self.url} needs 3.35 or newer",
            )
        writer = self._connect(create=create)
        try:
            deadline = time.monotonic() + SETUP
            self._base = self._patiently(lambda: self._prepare(writer, create=create), deadline, SETUP)
            writer.executescript(_PRAGMAS)
            reader = self._connect(create=False)
            reader.execute(f"PRAGMA busy_timeout = {int(SETUP * 1000)}")
        except BaseException:
            writer.close()
            raise
        file = self.path.stat()
        self._look_at = 0.0
        self._file = (file.st_dev, file.st_ino)
        self._synchronous = ""
        self._data_version = -1
        self.topics.clear()
        self._writer, self._reader = writer, reader
        return writer

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        there = os.access(self.path, os.F_OK)
        try:
            return sqlite3.connect(
                f"{self.path.as_uri()}?mode={'rwc' if create else 'rw'}",
                uri=True,
                timeout=0.0,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        except sqlite3.OperationalError as error:
            if primary(error) != CANTOPEN:
                raise
            raise self._explain(there=there) from error

    def _explain(self, *, there: bool) -> BridgeError:
        """Why the file could not be opened, which SQLite does not say. `there`: it existed before the try."""
        directory = self.path.parent
        code = ErrorCode.FAILED_PRECONDITION
        if self.path.is_dir():
            why = "it is a directory: give the path of a file"
        elif not directory.is_dir():
            why = f"the directory {directory} does not exist: create it first"
        elif not os.access(directory, os.X_OK | (0 if there else os.W_OK)):
            code, why = ErrorCode.PERMISSION_DENIED, f"give this user the right to use the directory {directory}"
        elif not there:
            return self._missing()
        elif not os.access(self.path, os.R_OK | os.W_OK):
            code, why = ErrorCode.PERMISSION_DENIED, "give this user the right to read and write it"
        else:
            code, why = ErrorCode.RESOURCE_EXHAUSTED, "look whether this process has too many files open"
        return self.fail(code, f"{self.path} cannot be opened: {why}")

    def _missing(self) -> BridgeError:
        return self.fail(
            ErrorCode.NOT_FOUND,
            f"{self.path} does not exist yet: apply the topology of {self.url} (`ceb topology apply`, "
            "or connect with create_missing=True) to create it",
        )

    def _prepare(self, db: sqlite3.Connection, *, create: bool) -> float:
        """Check that the file is ours and of our version, or make it so; give the base of its time."""
        application, tables = db.execute(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_master)"
        ).fetchone()
        if tables and application != APPLICATION_ID:
            raise self.fail(
                ErrorCode.FAILED_PRECONDITION,
                f"{self.path} is the SQLite file of another program: give the path of another file",
            )
        if not tables and not create:
            raise self._missing()
        self._check_version(db)
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise self.fail(
                    ErrorCode.FAILED_PRECONDITION,
                    f"{self.path} is on a file system without shared memory (a network drive?): use a local disk",
                )
        if tables and version_of(db) == len(self._migrations):
            base = clocks.base_of(db, self.clock)
            if base is not None:
                return base
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        try:
            self._check_version(db)
            migrate(db, self._migrations)
            base = clocks.meet(db, self.clock)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return base

    def _learn(self, db: sqlite3.Connection) -> None:
        """See whether another process has written since the last transaction here."""
        (data_version,) = db.execute("PRAGMA data_version").fetchone()
        if data_version != self._data_version:
            self.topics.clear()
            self._check_version(db)
            self._data_version = data_version

    def _check_version(self, db: sqlite3.Connection) -> None:
        version = version_of(db)
        if version > len(self._migrations):
            raise self.fail(
                ErrorCode.FAILED_PRECONDITION,
                f"{self.path} was written by a newer version of cloudevents-bridge (schema {version}; this one knows "
                f"{len(self._migrations)}): upgrade cloudevents-bridge here",
            )

    def _is_current(self) -> bool:
        """An event written to a file that was deleted or replaced under us would be lost.

        Looking now and then will do: what is written in between is lost as if the file had gone a moment later.
        """
        now = time.monotonic()
        if now < self._look_at:
            return True
        try:
            file = os.stat(self.path)  # noqa: PTH116 - Path.stat takes twice as long
        except FileNotFoundError:
            return False
        if (file.st_dev, file.st_ino) != self._file:
            return False
        self._look_at = now + LOOK
        return True

    def _drop(self) -> None:
        for each in (self._reader, self._writer):
            if each is not None:
                each.close()
        self._writer = self._reader = None


_STORES: weakref.WeakSet[Store] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_STORES):
        each.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
