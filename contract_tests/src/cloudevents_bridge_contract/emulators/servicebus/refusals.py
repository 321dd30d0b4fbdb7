"""What the service refuses, with the condition that its documentation names for it."""

from __future__ import annotations

NOT_FOUND = "amqp:not-found"
NOT_ALLOWED = "amqp:not-allowed"
NOT_IMPLEMENTED = "amqp:not-implemented"
INTERNAL = "amqp:internal-error"
UNAUTHORIZED = "amqp:unauthorized-access"
TOO_LARGE = "amqp:link:message-size-exceeded"
DETACHED = "amqp:link:detach-forced"
ARGUMENT = "com.microsoft:argument-error"
DISABLED = "com.microsoft:entity-disabled"
LOCK_LOST = "com.microsoft:message-lock-lost"
MESSAGE_NOT_FOUND = "com.microsoft:message-not-found"
SESSION_LOCK_LOST = "com.microsoft:session-lock-lost"
SESSION_LOCKED = "com.microsoft:session-cannot-be-locked"
TIMEOUT = "com.microsoft:timeout"

_STATUS = {
    NOT_FOUND: 404,
    MESSAGE_NOT_FOUND: 404,
    LOCK_LOST: 410,
    SESSION_LOCK_LOST: 410,
    SESSION_LOCKED: 410,
    UNAUTHORIZED: 401,
    NOT_IMPLEMENTED: 501,
    INTERNAL: 500,
}


class Refusal(Exception):  # noqa: N818 - the answer to a request, and no error of the program's
    """The answer is no. `condition`: an AMQP error condition; `status`: that of the management node's response."""

    def __init__(self, condition: str, text: str) -> None:
        super().__init__(text)
        self.condition = condition
        self.text = text
        self.status = _STATUS.get(condition, 400)


def no_entity(path: str) -> Refusal:
    return Refusal(NOT_FOUND, f"The messaging entity '{path}' could not be found.")


def lock_lost() -> Refusal:
    return Refusal(
        LOCK_LOST,
        "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the "
        "queue.",
    )


def session_lock_lost(session: str) -> Refusal:
    return Refusal(SESSION_LOCK_LOST, f"The session lock has expired on the session '{session}'. Accept it again.")
