"""The error tree. Every error of the library is a `BridgeError` with a code; few leaves have a class of their own."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudevents_bridge.event import CloudEvent
    from cloudevents_bridge.publisher import Receipt
    from cloudevents_bridge.subscriber import Delivery


class ErrorCode(StrEnum):
    """What kind of failure it is, the same on every broker."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED = "UNSUPPORTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    LEASE_LOST = "LEASE_LOST"
    CLOSED = "CLOSED"
    INTERNAL = "INTERNAL"
    UNKNOWN = "UNKNOWN"


class BridgeError(Exception):
    """An operation failed. The native error, where there is one, is the `__cause__`.

    Attributes:
        code: what kind of failure it is.
        retryable: whether the same call may succeed later. The library's own retries are already spent.
        retry_after: seconds the broker asked to wait before the next try; None where it did not say.
        broker: the URL of the broker, without credentials; empty where no broker was involved.
        maybe_applied: the broker may have done it although the answer was lost. Trying again may duplicate.
    """

    code: ErrorCode = ErrorCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        broker: str = "",
        maybe_applied: bool = False,
    ) -> None:
        super().__init__(message)
        if code is not None:
            self.code = ErrorCode(code)
        self.retryable = retryable
        self.retry_after = retry_after
        self.broker = broker
        self.maybe_applied = maybe_applied

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[BridgeError], args: tuple[Any, ...], state: dict[str, Any]) -> BridgeError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidArgumentError(BridgeError, ValueError):
    """A value that the library or the broker refuses."""

    code = ErrorCode.INVALID_ARGUMENT


class ConfigurationError(InvalidArgumentError):
    """A URL, profile, file or option that is wrong or missing."""


class DecodeError(BridgeError, ValueError):
    """Bytes that are no CloudEvent, or data that is not what the caller asked for.

    Attributes:
        of: source and id of the event whose data it is; None for bytes that are no event.
    """

    code = ErrorCode.INVALID_ARGUMENT
    of: tuple[str, str] | None = None


class NotFoundError(BridgeError, LookupError):
    """The topic, subscription or dead letter does not exist."""

    code = ErrorCode.NOT_FOUND


class PermissionDeniedError(BridgeError):
    """The identity in use has no right to do this."""

    code = ErrorCode.PERMISSION_DENIED


class EventTooLargeError(BridgeError, ValueError):
    """The event, encoded for this broker, is over the broker's limit."""

    code = ErrorCode.TOO_LARGE


class UnsupportedError(BridgeError, NotImplementedError):
    """The broker lacks the capability that the call needs."""

    code = ErrorCode.UNSUPPORTED


class UnavailableError(BridgeError):
    """The broker cannot be reached or cannot answer now."""

    code = ErrorCode.UNAVAILABLE


class DeadlineExceededError(BridgeError, TimeoutError):
    """The time given to the call, its retries included, is over."""

    code = ErrorCode.DEADLINE_EXCEEDED


class LeaseLostError(BridgeError):
    """The delivery no longer belongs to this consumer: its event is, or will be, delivered again."""

    code = ErrorCode.LEASE_LOST


class ClosedError(BridgeError):
    """The object was closed, or was left behind in the parent of a fork."""

    code = ErrorCode.CLOSED


class PublishError(BridgeError):
    """Some events of a call were not accepted.

    Attributes:
        outcomes: one entry per event of the call, in its order: the receipt, or the error of that event.
        failed: the events that were not accepted, each with its error.
    """

    def __init__(
        self,
        message: str,
        *,
        outcomes: list[Receipt | BridgeError] | None = None,
        failed: list[tuple[CloudEvent, BridgeError]] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.outcomes: list[Receipt | BridgeError] = outcomes or []
        self.failed: list[tuple[CloudEvent, BridgeError]] = failed or []


class SettleError(BridgeError):
    """Some deliveries of a call could not be settled.

    Attributes:
        failed: the deliveries that were not settled, each with its error.
    """

    def __init__(
        self, message: str, *, failed: list[tuple[Delivery, BridgeError]] | None = None, **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.failed: list[tuple[Delivery, BridgeError]] = failed or []


_CLASSES: dict[ErrorCode, type[BridgeError]] = {
    ErrorCode.INVALID_ARGUMENT: InvalidArgumentError,
    ErrorCode.NOT_FOUND: NotFoundError,
    ErrorCode.PERMISSION_DENIED: PermissionDeniedError,
    ErrorCode.TOO_LARGE: EventTooLargeError,
    ErrorCode.UNSUPPORTED: UnsupportedError,
    ErrorCode.UNAVAILABLE: UnavailableError,
    ErrorCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    ErrorCode.LEASE_LOST: LeaseLostError,
    ErrorCode.CLOSED: ClosedError,
}


def make_error(code: ErrorCode | str, message: str, **fields: Any) -> BridgeError:
    """The error of a code, in its own class where it has one; `fields` are those of `BridgeError`."""
    code = ErrorCode(code)
    return _CLASSES.get(code, BridgeError)(message, code=code, **fields)
