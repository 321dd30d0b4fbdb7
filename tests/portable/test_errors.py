"""The error tree: codes, co-bases, and the way through pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from cloudevents_bridge import errors
from cloudevents_bridge.errors import BridgeError, ErrorCode, PublishError, SettleError, make_error
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.outlet import Receipt

CLASSES = sorted(
    (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BridgeError)),
    key=lambda each: each.__name__,
)
CO_BASES = {
    "InvalidArgumentError": ValueError,
    "ConfigurationError": ValueError,
    "DecodeError": ValueError,
    "EventTooLargeError": ValueError,
    "NotFoundError": LookupError,
    "UnsupportedError": NotImplementedError,
    "DeadlineExceededError": TimeoutError,
}
FIELDS: dict[str, Any] = {
    "code": ErrorCode.INTERNAL,
    "retryable": True,
    "retry_after": 2.5,
    "broker": "memory://",
    "maybe_applied": True,
}
EVENT = CloudEvent(type="com.example.test", source="/test", data={"a": 1}, partitionkey="k")


def again(error: BridgeError, how: str) -> BridgeError:
    if how == "copy":
        return copy.copy(error)
    if how == "deepcopy":
        return copy.deepcopy(error)
    made: BridgeError = pickle.loads(pickle.dumps(error, int(how)))
    return made


WAYS = ["copy", "deepcopy", *(str(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))]


def test_all_classes_are_found() -> None:
    assert len(CLASSES) >= 14


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_the_same_after_a_copy(kind: type[BridgeError], how: str) -> None:
    error = kind("it failed: try again", **FIELDS)
    error.add_note("a note")
    made = again(error, how)
    assert type(made) is kind
    assert str(made) == "it failed: try again"
    assert made.args == error.args
    for name, value in FIELDS.items():
        assert getattr(made, name) == value
    assert made.__notes__ == ["a note"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_defaults(kind: type[BridgeError]) -> None:
    error = kind("it failed")
    assert isinstance(error.code, ErrorCode)
    assert (error.retryable, error.retry_after, error.broker, error.maybe_applied) == (False, None, "", False)
    assert pickle.loads(pickle.dumps(error)).code == error.code
    with pytest.raises(kind):
        raise error


@pytest.mark.parametrize("how", WAYS)
def test_a_publish_error_keeps_what_it_holds(how: str) -> None:
    refused = make_error("TOO_LARGE", "too large", broker="memory://")
    receipt = Receipt("1", "n1", None)
    made = again(PublishError("1 of 2", outcomes=[receipt, refused], failed=[(EVENT, refused)], **FIELDS), how)
    assert isinstance(made, PublishError)
    assert made.outcomes[0] == receipt
    assert isinstance(made.outcomes[1], errors.EventTooLargeError)
    [(event, error)] = made.failed
    assert event == EVENT
    assert str(error) == "too large"
    assert made.code == ErrorCode.INTERNAL


def test_nothing_is_shared_between_errors_without_lists() -> None:
    one, other = PublishError("one"), PublishError("other")
    one.failed.append((EVENT, one))
    assert other.failed == []
    assert SettleError("it").failed == []


@pytest.mark.parametrize(("name", "base"), CO_BASES.items())
def test_co_bases(name: str, base: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), base)
    assert issubclass(getattr(errors, name), BridgeError)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_an_error(code: ErrorCode) -> None:
    error = make_error(code, "it failed", broker="memory://", retryable=True)
    assert error.code is code
    assert make_error(str(code), "it failed").code is code
    assert type(error).code in (code, ErrorCode.UNKNOWN)


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(ValueError, match="NOT_A_CODE"):
        make_error("NOT_A_CODE", "it failed")


def test_codes_are_those_of_the_design() -> None:
    assert [code.value for code in ErrorCode] == [code.name for code in ErrorCode]
    assert len(ErrorCode) == 15
