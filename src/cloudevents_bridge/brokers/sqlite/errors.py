"""What SQLite's errors mean. One table by SQLite's primary result code (https://sqlite.org/rescode.html)."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from cloudevents_bridge.driver import Fault
from cloudevents_bridge.errors import BridgeError, ErrorCode

BUSY = 5
CANTOPEN = 14


class _Meaning(NamedTuple):
    code: ErrorCode
    retryable: bool
    text: str


_MEANINGS = {
    3: _Meaning(
        ErrorCode.PERMISSION_DENIED, False, "this user may not use {path}: give it the right to write the file"
    ),
    5: _Meaning(ErrorCode.UNAVAILABLE, True, "{path} is locked by another process; nothing was stored: try again"),
    6: _Meaning(ErrorCode.UNAVAILABLE, True, "{path} is locked by this process; nothing was stored: try again"),
    7: _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, "out of memory while using {path}; nothing was stored"),
    8: _Meaning(
        ErrorCode.PERMISSION_DENIED,
        False,
        "{path} is read-only: give this user the right to write the file and its directory; nothing was stored",
    ),
    10: _Meaning(
        ErrorCode.UNAVAILABLE,
        True,
        "the disk of {path} reported an error; nothing was stored: look at its health, quota and file size limit",
    ),
    11: _Meaning(
        ErrorCode.INTERNAL,
        False,
        "{path} is damaged: stop every process that uses it, then restore a copy or run `sqlite3 {path} .recover`",
    ),
    13: _Meaning(
        ErrorCode.RESOURCE_EXHAUSTED, True, "the disk of {path} is full; nothing was stored: free space, then try again"
    ),
    14: _Meaning(ErrorCode.FAILED_PRECONDITION, False, "{path} cannot be opened: look at the path and its rights"),
    15: _Meaning(ErrorCode.UNAVAILABLE, True, "{path} is being opened by too many processes at once: try again"),
    18: _Meaning(ErrorCode.TOO_LARGE, False, "an event is larger than SQLite can hold"),
    23: _Meaning(
        ErrorCode.PERMISSION_DENIED, False, "this user may not use {path}: give it the right to write the file"
    ),
    26: _Meaning(ErrorCode.FAILED_PRECONDITION, False, "{path} is no SQLite file: give the path of another file"),
}


def primary(error: BaseException) -> int:
    """SQLite's primary result code; 0: the error does not come from SQLite itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def classify(error: BaseException, path: str) -> Fault:
    """The fault of an error that the driver raised. What is unknown is not retried."""
    if isinstance(error, BridgeError):
        return Fault(error.code, error.retryable, error.maybe_applied, error.retry_after, str(error))
    meaning = _MEANINGS.get(primary(error))
    if meaning is not None:
        text = meaning.text.format(path=path)
        return Fault(meaning.code, meaning.retryable, False, None, f"{text} (SQLite says: {error})")
    code = ErrorCode.INTERNAL if isinstance(error, sqlite3.Error) else ErrorCode.UNKNOWN
    return Fault(code, False, False, None, f"unexpected error while using {path}: {type(error).__name__}: {error}")
