"""From what a driver says to the errors that users see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloudevents_bridge import driver
from cloudevents_bridge.errors import BridgeError, ErrorCode, make_error

_REMEDIES: dict[ErrorCode, str] = {
    ErrorCode.NOT_FOUND: "create it with `ceb topology apply`, or open with create_missing=True in development",
    ErrorCode.PERMISSION_DENIED: "give the identity in use this right; `ceb check` shows which are missing",
    ErrorCode.UNAUTHENTICATED: "check the credentials of the environment; `ceb check` tests them",
    ErrorCode.TOO_LARGE: "make the event smaller, or put its data in a store and name it in `dataref`",
    ErrorCode.RESOURCE_EXHAUSTED: "try again more slowly",
    ErrorCode.UNAVAILABLE: "check that the broker runs and can be reached, and try again",
    ErrorCode.DEADLINE_EXCEEDED: "try again, or give the call a longer timeout",
    ErrorCode.LEASE_LOST: "the event is delivered again: ask for a longer lease, or extend it while working",
}


def place_name(place: driver.Topic | driver.Subscription | driver.DeadLetters) -> str:
    """`topic T`, `subscription T/S` or `dead letters of T/S`, as errors name it."""
    if isinstance(place, driver.Topic):
        return f"topic {place.name}"
    if isinstance(place, driver.Subscription):
        return f"subscription {place.topic.name}/{place.name}"
    return f"dead letters of {place.of.topic.name}/{place.of.name}"


def to_error(
    fault: driver.Fault,
    doing: str,
    broker: str,
    *,
    maybe_applied: bool | None = None,
    subject: str = "",
    cause: BaseException | None = None,
) -> BridgeError:
    """The error for a fault. `doing` is "publish to topic orders"; `subject` names the event, where there is one."""
    applied = fault.maybe_applied if maybe_applied is None else maybe_applied
    parts = [f"{doing} on {broker} failed"]
    if subject:
        parts.append(f" for {subject}")
    parts.append(f": {fault.message or fault.code.lower().replace('_', ' ')}")
    if applied:
        parts.append("; the answer was lost, so it may have been done all the same")
    remedy = _REMEDIES.get(fault.code)
    if remedy and not isinstance(cause, BridgeError):  # an error of ours has said its own
        parts.append(f" ({remedy})")
    error = make_error(
        fault.code,
        "".join(parts),
        retryable=fault.retryable,
        retry_after=fault.retry_after,
        broker=broker,
        maybe_applied=applied,
    )
    error.__cause__ = cause
    return error


def fault_of(connection: driver.Connection, error: Exception) -> driver.Fault:
    """The fault for anything that a driver raised. An error of ours needs no table."""
    if isinstance(error, BridgeError):
        return driver.Fault(error.code, error.retryable, error.maybe_applied, error.retry_after, str(error))
    return connection.classify(error)


@contextmanager
def wrapped(connection: driver.Connection, doing: str, broker: str) -> Iterator[None]:
    """Native errors come out as ours, with the native one as the cause. Cancellation and interrupts are not touched."""
    try:
        yield
    except BridgeError:
        raise
    except Exception as error:
        raise to_error(connection.classify(error), doing, broker) from error
