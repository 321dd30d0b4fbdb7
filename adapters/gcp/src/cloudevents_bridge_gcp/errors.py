"""What Google's errors mean. One table by gRPC status (https://grpc.io/docs/guides/status-codes/)."""

from __future__ import annotations

from typing import Any, NamedTuple

from cloudevents_bridge.driver import Fault
from cloudevents_bridge.errors import BridgeError, ErrorCode


class _Meaning(NamedTuple):
    code: ErrorCode
    retryable: bool
    maybe_applied: bool


_MEANINGS = {
    "CANCELLED": _Meaning(ErrorCode.UNAVAILABLE, True, True),
    "UNKNOWN": _Meaning(ErrorCode.UNKNOWN, False, True),
    "INVALID_ARGUMENT": _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    "DEADLINE_EXCEEDED": _Meaning(ErrorCode.DEADLINE_EXCEEDED, True, True),
    "NOT_FOUND": _Meaning(ErrorCode.NOT_FOUND, False, False),
    "ALREADY_EXISTS": _Meaning(ErrorCode.ALREADY_EXISTS, False, False),
    "PERMISSION_DENIED": _Meaning(ErrorCode.PERMISSION_DENIED, False, False),
    "UNAUTHENTICATED": _Meaning(ErrorCode.UNAUTHENTICATED, False, False),
    "RESOURCE_EXHAUSTED": _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, False),
    "FAILED_PRECONDITION": _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    "ABORTED": _Meaning(ErrorCode.UNAVAILABLE, True, True),
    "OUT_OF_RANGE": _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    "UNIMPLEMENTED": _Meaning(ErrorCode.UNSUPPORTED, False, False),
    "INTERNAL": _Meaning(ErrorCode.INTERNAL, True, True),
    "UNAVAILABLE": _Meaning(ErrorCode.UNAVAILABLE, True, True),
    "DATA_LOSS": _Meaning(ErrorCode.INTERNAL, False, True),
}

_LOGIN = (
    "run `gcloud auth application-default login` on a workstation, give the service an account of its own on Google "
    "Cloud, or name a key file in GOOGLE_APPLICATION_CREDENTIALS"
)
_CREDENTIALS = {
    "DefaultCredentialsError": (ErrorCode.UNAUTHENTICATED, False, f"there are no Google credentials here: {_LOGIN}"),
    "RefreshError": (ErrorCode.UNAUTHENTICATED, False, f"Google does not accept the credentials any more: {_LOGIN}"),
    "TransportError": (ErrorCode.UNAVAILABLE, True, "Google's service for credentials cannot be reached"),
}


def classify(error: BaseException) -> Fault:
    """The fault of an error that the driver raised. What is unknown is not retried."""
    if isinstance(error, BridgeError):
        return Fault(error.code, error.retryable, error.maybe_applied, error.retry_after, str(error))
    status = status_of(error)
    meaning = _MEANINGS.get(status)
    if meaning is not None:
        text = getattr(error, "message", None) or getattr(error, "details", str)()
        return Fault(meaning.code, meaning.retryable, meaning.maybe_applied, _retry_after(error), f"{text} ({status})")
    kind = type(error)
    for base in kind.__mro__:
        if base.__module__ == "google.auth.exceptions" and base.__name__ in _CREDENTIALS:
            code, retryable, text = _CREDENTIALS[base.__name__]
            return Fault(code, retryable, False, None, f"{text} (Google says: {error})")
    return Fault(ErrorCode.UNKNOWN, False, False, None, f"unexpected error: {kind.__name__}: {error}")


def status_of(error: BaseException) -> str:
    """The name of the gRPC status of an error; empty: it has none."""
    code = getattr(error, "grpc_status_code", None)  # of the SDK's own errors
    if code is None and callable(ask := getattr(error, "code", None)):  # of gRPC's
        code = ask()
    name = getattr(code, "name", "")
    return name if isinstance(name, str) else ""


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the service asks to wait."""
    details: Any = getattr(error, "details", ())
    for detail in details if isinstance(details, (list, tuple)) else ():
        delay = getattr(detail, "retry_delay", None)
        if delay is not None:
            return float(delay.seconds + delay.nanos / 1e9)
    return None
