"""Requests and answers, as the parts of the emulator see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cloudevents_bridge_contract.emulators.eventgrid.problems import Problem, bad_request


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        headers: by their names in lower case.
        gone: whether who asked has closed the connection.
        base: the URL of the emulator, without a slash at the end.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str
    gone: Callable[[], bool] = field(default=lambda: False)

    @property
    def media(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty where there is none.

        Raises:
            Problem: 400 where it is something else.
        """
        try:
            return msgspec.json.decode(self.body or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise bad_request(f"The body is no JSON object: {error}") from error

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of the query.

        Raises:
            Problem: 400 where it is none, or out of bounds.
        """
        text = self.query.get(name, str(default))
        if not text.isdecimal() or not low <= int(text) <= high:
            raise bad_request(f"{name} is {text}, and must be a whole number from {low} to {high}.")
        return int(text)

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        """Seconds of the query. Parts of one are for tests: the service takes whole ones.

        Raises:
            Problem: 400 where it is no number, or out of bounds.
        """
        text = self.query.get(name, f"{default:g}")
        whole, _, part = text.partition(".")
        if not whole.isdecimal() or (part and not (part.isdecimal() and low < 1)) or not low <= float(text) <= high:
            raise bad_request(f"{name} is {text}, and must be a number of seconds from {low:g} to {high:g}.")
        return float(text)

    def require_version(self, *versions: str) -> None:
        """Raises:
        Problem: 400 where the request is of no version that is spoken here.
        """
        version = self.query.get("api-version", "")
        if version not in versions:
            message = f"The api-version {version or '(none)'} is not supported; there is: {', '.join(versions)}."
            raise Problem(400, "UnsupportedApiVersion", message)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(content: object, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(content))


def refusal(problem: Problem) -> Answer:
    headers = {"x-ms-error-code": problem.code}
    if problem.retry_after is not None:
        headers["Retry-After"] = f"{problem.retry_after:g}"
    return Answer(problem.status, msgspec.json.encode(problem.body), headers)
