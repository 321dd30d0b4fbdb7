"""What the errors of azure-servicebus mean: by AMQP condition, by class of the SDK, by status of the administration.

Source: https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-troubleshoot and the SDK's own classes.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from cloudevents_bridge.driver import Fault
from cloudevents_bridge.errors import BridgeError, ErrorCode


class StalledError(Exception):
    """The service did not answer in time, and the connection was cut."""


class OpeningError(Exception):
    """The link could not be opened, so nothing was sent. `__cause__` says why."""


class _Meaning(NamedTuple):
    code: ErrorCode
    retryable: bool
    maybe_applied: bool


_BROKEN = _Meaning(ErrorCode.UNAVAILABLE, True, True)
_CONDITIONS = {
    "amqp:decode-error": _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    "amqp:frame-size-too-small": _Meaning(ErrorCode.TOO_LARGE, False, False),
    "amqp:illegal-state": _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    "amqp:internal-error": _Meaning(ErrorCode.INTERNAL, True, True),
    "amqp:invalid-field": _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    "amqp:not-allowed": _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    "amqp:not-found": _Meaning(ErrorCode.NOT_FOUND, False, False),
    "amqp:not-implemented": _Meaning(ErrorCode.UNSUPPORTED, False, False),
    "amqp:precondition-failed": _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    "amqp:resource-deleted": _Meaning(ErrorCode.NOT_FOUND, False, False),
    "amqp:resource-limit-exceeded": _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, False),
    "amqp:resource-locked": _Meaning(ErrorCode.FAILED_PRECONDITION, True, False),
    "amqp:unauthorized-access": _Meaning(ErrorCode.PERMISSION_DENIED, False, False),
    "amqp:connection:forced": _BROKEN,
    "amqp:connection:framing-error": _BROKEN,
    "amqp:connection:redirect": _BROKEN,
    "amqp:link:detach-forced": _BROKEN,
    "amqp:link:message-size-exceeded": _Meaning(ErrorCode.TOO_LARGE, False, False),
    "amqp:link:redirect": _BROKEN,
    "amqp:link:stolen": _BROKEN,
    "amqp:link:transfer-limit-exceeded": _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, False),
    "amqp:session:errant-link": _BROKEN,
    "amqp:session:handle-in-use": _BROKEN,
    "amqp:session:unattached-handle": _BROKEN,
    "amqp:session:window-violation": _BROKEN,
    "com.microsoft:argument-error": _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    "com.microsoft:argument-out-of-range": _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    "com.microsoft:auth-failed": _Meaning(ErrorCode.UNAUTHENTICATED, False, False),
    "com.microsoft:container-close": _BROKEN,
    "com.microsoft:entity-already-exists": _Meaning(ErrorCode.ALREADY_EXISTS, False, False),
    "com.microsoft:entity-disabled": _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    "com.microsoft:message-lock-lost": _Meaning(ErrorCode.LEASE_LOST, False, False),
    "com.microsoft:message-not-found": _Meaning(ErrorCode.LEASE_LOST, False, False),
    "com.microsoft:operation-cancelled": _BROKEN,
    "com.microsoft:precondition-failed": _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    "com.microsoft:server-busy": _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, False),
    "com.microsoft:session-cannot-be-locked": _Meaning(ErrorCode.FAILED_PRECONDITION, True, False),
    "com.microsoft:session-lock-lost": _Meaning(ErrorCode.LEASE_LOST, False, False),
    "com.microsoft:timeout": _Meaning(ErrorCode.DEADLINE_EXCEEDED, True, True),
}
"""Those of AMQP 1.0 (part 2.8.14 to 2.8.17 and ), which any link may be told, and Service Bus's own."""
_CLASSES = {
    "MessageLockLostError": _Meaning(ErrorCode.LEASE_LOST, False, False),
    "SessionLockLostError": _Meaning(ErrorCode.LEASE_LOST, False, False),
    "MessageAlreadySettled": _Meaning(ErrorCode.LEASE_LOST, False, False),
    "MessageNotFoundError": _Meaning(ErrorCode.LEASE_LOST, False, False),
    "SessionCannotBeLockedError": _Meaning(ErrorCode.FAILED_PRECONDITION, True, False),
    "MessageSizeExceededError": _Meaning(ErrorCode.TOO_LARGE, False, False),
    "MessagingEntityNotFoundError": _Meaning(ErrorCode.NOT_FOUND, False, False),
    "MessagingEntityDisabledError": _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    "MessagingEntityAlreadyExistsError": _Meaning(ErrorCode.ALREADY_EXISTS, False, False),
    "ServiceBusQuotaExceededError": _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, False),
    "ServiceBusServerBusyError": _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, False),
    "ServiceBusAuthorizationError": _Meaning(ErrorCode.PERMISSION_DENIED, False, False),
    "ServiceBusAuthenticationError": _Meaning(ErrorCode.UNAUTHENTICATED, False, False),
    "ServiceBusCommunicationError": _Meaning(ErrorCode.UNAVAILABLE, True, True),
    "ServiceBusConnectionError": _Meaning(ErrorCode.UNAVAILABLE, True, True),
    "OperationTimeoutError": _Meaning(ErrorCode.DEADLINE_EXCEEDED, True, True),
    "ClientAuthenticationError": _Meaning(ErrorCode.UNAUTHENTICATED, False, False),
    "CredentialUnavailableError": _Meaning(ErrorCode.UNAUTHENTICATED, False, False),
    "ResourceNotFoundError": _Meaning(ErrorCode.NOT_FOUND, False, False),
    "ResourceExistsError": _Meaning(ErrorCode.ALREADY_EXISTS, False, False),
    "ServiceRequestError": _Meaning(ErrorCode.UNAVAILABLE, True, False),
    "ServiceResponseError": _Meaning(ErrorCode.UNAVAILABLE, True, True),
}
"""By the names of classes of azure.servicebus, azure.core and azure.identity; a condition or a status says more."""
_STATUSES = {
    400: _Meaning(ErrorCode.INVALID_ARGUMENT, False, False),
    401: _Meaning(ErrorCode.UNAUTHENTICATED, False, False),
    403: _Meaning(ErrorCode.PERMISSION_DENIED, False, False),
    404: _Meaning(ErrorCode.NOT_FOUND, False, False),
    408: _Meaning(ErrorCode.DEADLINE_EXCEEDED, True, True),
    409: _Meaning(ErrorCode.ALREADY_EXISTS, False, False),
    410: _Meaning(ErrorCode.NOT_FOUND, False, False),
    412: _Meaning(ErrorCode.FAILED_PRECONDITION, False, False),
    429: _Meaning(ErrorCode.RESOURCE_EXHAUSTED, True, False),
    500: _Meaning(ErrorCode.INTERNAL, True, True),
    502: _BROKEN,
    503: _Meaning(ErrorCode.UNAVAILABLE, True, True),
    504: _Meaning(ErrorCode.DEADLINE_EXCEEDED, True, True),
}
_LOGIN = (
    "run `az login` on a workstation, give the service a managed identity on Azure, or set "
    "AZURE_SERVICEBUS_CONNECTION_STRING"
)


def classify(error: BaseException) -> Fault:
    """The fault of an error that the SDK raised. What is unknown is not retried."""
    if isinstance(error, BridgeError):
        return Fault(error.code, error.retryable, error.maybe_applied, error.retry_after, str(error))
    if isinstance(error, OpeningError):
        return replace(classify(error.__cause__ or StalledError()), maybe_applied=False)
    if isinstance(error, StalledError):
        return Fault(ErrorCode.DEADLINE_EXCEEDED, True, True, None, str(error))
    said = condition(error)
    meaning = _CONDITIONS.get(said)
    names = [base.__name__ for base in type(error).__mro__ if base.__module__.startswith("azure.")]
    status = getattr(error, "status_code", None)
    if meaning is None and isinstance(status, int):
        meaning = _STATUSES.get(status)
    if meaning is None:
        meaning = next((_CLASSES[name] for name in names if name in _CLASSES), None)
    if meaning is None and isinstance(error, OSError):
        meaning = _Meaning(ErrorCode.UNAVAILABLE, True, True)
    if meaning is not None:
        text = f"{error}: {_LOGIN}" if meaning.code is ErrorCode.UNAUTHENTICATED else str(error)
        return Fault(*meaning, None, f"{text} ({type(error).__name__})")
    return Fault(ErrorCode.UNKNOWN, False, False, None, f"unexpected error: {type(error).__name__}: {error}")


def condition(error: BaseException) -> str:
    """The AMQP condition of an error; empty: it has none."""
    for each in (error, getattr(error, "inner_exception", None)):
        found = getattr(each, "_condition", None) or getattr(each, "condition", None)
        found = getattr(found, "value", found)
        if isinstance(found, bytes):
            return found.decode("ascii", "replace")
        if isinstance(found, str) and ":" in found:
            return found
    return ""
