"""What the errors of Event Grid mean: one table by HTTP status, one of errors without a status, one of lock tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from cloudevents_bridge.driver import Fault
from cloudevents_bridge.errors import BridgeError, ErrorCode


class RequestError(Exception):
    """A request to Event Grid failed: `__cause__` says how.

    Attributes:
        needed: what the identity in use lacks; empty: nothing that is known.
    """

    def __init__(self, said: str, needed: str = "") -> None:
        super().__init__(said)
        self.needed = needed


class _Meaning(NamedTuple):
    code: ErrorCode
    retryable: bool
    maybe_applied: bool


_STATUSES = {
    400: _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    401: _Meaning(ErrorCode.UNAUTHENTICATED, False, False),
    403: _Meaning(ErrorCode.PERMISSION_DENIED, False, False),
    404: _Meaning(ErrorCode.NOT_FOUND, False, False),
    405: _Meaning(ErrorCode.UNSUPPORTED, False, False),
    408: _Meaning(ErrorCode.DEADLINE_EXCEEDED, True, True),
    409: _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    410: _Meaning(ErrorCode.NOT_FOUND, False, False),
    413: _Meaning(ErrorCode.TOO_LARGE, False, False),
    415: _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    429: _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, False),
    500: _Meaning(ErrorCode.INTERNAL, True, True),
    502: _Meaning(ErrorCode.UNAVAILABLE, True, True),
    503: _Meaning(ErrorCode.UNAVAILABLE, True, True),
    504: _Meaning(ErrorCode.DEADLINE_EXCEEDED, True, True),
}
_KINDS = {
    "ServiceRequestTimeoutError": _Meaning(ErrorCode.UNAVAILABLE, True, False),  # no connection in time
    "ServiceRequestError": _Meaning(ErrorCode.UNAVAILABLE, True, False),
    "ServiceResponseTimeoutError": _Meaning(ErrorCode.DEADLINE_EXCEEDED, True, True),
    "ServiceResponseError": _Meaning(ErrorCode.UNAVAILABLE, True, True),
    "IncompleteReadError": _Meaning(ErrorCode.UNAVAILABLE, True, True),
    "ClientAuthenticationError": _Meaning(ErrorCode.UNAUTHENTICATED, False, False),  # of a credential, before a request
    "ResourceNotFoundError": _Meaning(ErrorCode.NOT_FOUND, False, False),  # the SDK's publisher drops the status
}
"""By the names of classes of azure.core.exceptions, for errors without a status."""
_TOKENS = {
    "TokenLost": (_Meaning(ErrorCode.LEASE_LOST, False, False), "its lock is over, or it was settled before"),
    "BadToken": (_Meaning(ErrorCode.INTERNAL, False, False), "Event Grid does not know this form of lock token"),
    "InternalServerError": (_Meaning(ErrorCode.UNAVAILABLE, True, True), "Event Grid could not settle it now"),
}


def classify(error: BaseException) -> Fault:
    """The fault of an error that the SDK raised. What is unknown is not retried."""
    if isinstance(error, RequestError) and error.__cause__ is not None:
        fault = classify(error.__cause__)
        return replace(fault, message=f"{error.needed}: {fault.message}") if error.needed else fault
    if isinstance(error, BridgeError):
        return Fault(error.code, error.retryable, error.maybe_applied, error.retry_after, str(error))
    kind = type(error)
    status = getattr(error, "status_code", None)
    meaning = _STATUSES.get(status) if isinstance(status, int) else None
    if meaning is not None:
        return Fault(*meaning, _retry_after(error), f"{_said(error)} (HTTP {status})")
    if not isinstance(status, int):
        for base in kind.__mro__:
            if base.__module__ == "azure.core.exceptions" and base.__name__ in _KINDS:
                return Fault(*_KINDS[base.__name__], None, f"{error} ({base.__name__})")
    return Fault(ErrorCode.UNKNOWN, False, False, None, f"unexpected error: {kind.__name__}: {error}")


def of_token(failed: Mapping[str, Any]) -> Fault:
    """The fault of one entry of `failedLockTokens`."""
    error = failed.get("error") or {}
    code = str(error.get("code") or "")
    if code in _TOKENS:
        meaning, text = _TOKENS[code]
        return Fault(*meaning, None, text)
    said = f"unexpected error of a lock token: {code}: {error.get('message')}"
    return Fault(ErrorCode.UNKNOWN, False, False, None, said)


def _said(error: Any) -> str:
    """What the service said, without what the SDK writes around it."""
    detail = getattr(error, "error", None)
    message = getattr(detail, "message", None) or getattr(error, "reason", None) or "no reason is given"
    code = getattr(detail, "code", None)
    return f"{code}: {message}" if code else str(message)


def _retry_after(error: Any) -> float | None:
    """Seconds that the service asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except (TypeError, ValueError):
        return None
