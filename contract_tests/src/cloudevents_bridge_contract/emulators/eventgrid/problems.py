"""What the service refuses, with the status and the body that it answers."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - an answer, and no error of the emulator's
    """An answer that is no success.

    Attributes:
        status: of HTTP.
        code: the error's code in the body, and in the header `x-ms-error-code`.
        retry_after: seconds, sent as `Retry-After`.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    @property
    def body(self) -> dict[str, object]:
        details = [{"code": self.code, "message": self.message}]
        return {"error": {"code": self.code, "message": self.message, "details": details}}


def bad_request(message: str) -> Problem:
    return Problem(400, "BadRequest", message)


def unauthorized(message: str) -> Problem:
    return Problem(401, "Unauthorized", message)


def not_found(message: str) -> Problem:
    return Problem(404, "NotFound", message)


def too_large(message: str) -> Problem:
    return Problem(413, "PayloadTooLarge", message)
