"""What becomes of each delivery when a request for several of them fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudevents_bridge.driver import Done, Fault
from cloudevents_bridge.errors import ErrorCode

REASON = "EXACTLY_ONCE_ACKID_FAILURE"
"""Exactly-once subscriptions name what failed, and why; what they do not name is done."""
_LOST = Fault(
    ErrorCode.LEASE_LOST,
    retryable=False,
    maybe_applied=False,
    message="its ack deadline is over, or it was settled before",
)
_AGAIN = Fault(ErrorCode.UNAVAILABLE, retryable=True, maybe_applied=True, message="Pub/Sub could not settle it now")


def outcomes(error: Any, ack_ids: Sequence[str], done: Done) -> list[Done | Fault] | None:
    """The outcome of each delivery; None: the error is that of the request as a whole."""
    if getattr(error, "reason", None) != REASON:
        return None
    failed: Mapping[str, str] = error.metadata or {}
    return [_outcome(failed.get(ack_id), done) for ack_id in ack_ids]


def _outcome(failure: str | None, done: Done) -> Done | Fault:
    if failure is None:
        return done
    if failure.startswith("TRANSIENT_"):
        return _AGAIN
    if failure == "PERMANENT_FAILURE_INVALID_ACK_ID":
        return _LOST
    return Fault(ErrorCode.FAILED_PRECONDITION, retryable=False, maybe_applied=False, message=failure)
