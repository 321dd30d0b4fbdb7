"""What Google's errors mean, and what a user is told: without network."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.auth import exceptions as auth
from google.rpc import error_details_pb2
from pubsub_running import Refusal

from cloudevents_bridge import CloudEvent, RetryPolicy, connect
from cloudevents_bridge.driver import Done, Fault
from cloudevents_bridge.errors import BridgeError, ErrorCode, NotFoundError, PermissionDeniedError
from cloudevents_bridge_gcp import acks, pb, rpc
from cloudevents_bridge_gcp.errors import _MEANINGS, classify

TOPIC = "projects/my-project/topics/orders"


FAILURES = [each for each in grpc.StatusCode if each is not grpc.StatusCode.OK]


def test_every_status_has_a_meaning() -> None:
    assert set(_MEANINGS) == {status.name for status in FAILURES}


@pytest.mark.parametrize("status", FAILURES, ids=lambda status: status.name)
def test_the_errors_of_grpc_and_of_the_sdk_mean_the_same(status: grpc.StatusCode) -> None:
    raw = Refusal(status, "the service says why")
    fault, wrapped = classify(raw), classify(exceptions.from_grpc_error(raw))
    assert fault == wrapped
    assert "the service says why" in fault.message
    assert status.name in fault.message


@pytest.mark.parametrize(
    ("status", "code", "retryable", "maybe_applied"),
    [
        ("DEADLINE_EXCEEDED", ErrorCode.DEADLINE_EXCEEDED, True, True),
        ("UNAVAILABLE", ErrorCode.UNAVAILABLE, True, True),
        ("RESOURCE_EXHAUSTED", ErrorCode.RESOURCE_EXHAUSTED, True, False),
        ("NOT_FOUND", ErrorCode.NOT_FOUND, False, False),
        ("UNKNOWN", ErrorCode.UNKNOWN, False, True),
    ],
)
def test_some_meanings(status: str, code: ErrorCode, retryable: bool, maybe_applied: bool) -> None:
    fault = classify(Refusal(grpc.StatusCode[status], "why"))
    assert (fault.code, fault.retryable, fault.maybe_applied) == (code, retryable, maybe_applied)


def test_the_service_may_say_how_long_to_wait() -> None:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(1500)
    assert classify(exceptions.ResourceExhausted("busy", details=[info])).retry_after == 1.5


def test_what_is_unknown_is_not_retried() -> None:
    fault = classify(KeyError("x"))
    assert (fault.code, fault.retryable) == (ErrorCode.UNKNOWN, False)


def test_credentials() -> None:
    missing = classify(auth.DefaultCredentialsError("none"))
    assert (missing.code, missing.retryable) == (ErrorCode.UNAUTHENTICATED, False)
    assert "gcloud auth application-default login" in missing.message
    assert classify(auth.RefreshError("expired")).code == ErrorCode.UNAUTHENTICATED
    assert classify(auth.TransportError("offline")).retryable


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("PERMISSION_DENIED", f"the permission pubsub.topics.publish on {TOPIC} is missing"),
        ("NOT_FOUND", f"{TOPIC} does not exist, or its project: why"),
        ("RESOURCE_EXHAUSTED", f"{TOPIC}: why"),
    ],
)
def test_the_resource_and_the_right_are_named(status: str, said: str) -> None:
    error = rpc.explain(rpc.PUBLISH, pb.PublishRequest(topic=TOPIC), Refusal(grpc.StatusCode[status], "why"))
    assert isinstance(error, exceptions.GoogleAPICallError)
    assert said in str(error)


def _answering(monkeypatch: pytest.MonkeyPatch, status: str) -> list[str]:
    calls: list[str] = []

    def call(self: rpc.Rpc, method: rpc.Method, request: Any, *, timeout: float) -> Any:
        calls.append(method.path)
        error = Refusal(grpc.StatusCode[status], "User not authorized to perform this action.")
        raise rpc.explain(method, request, error) from error

    monkeypatch.setattr(rpc.Rpc, "call", call)
    return calls


def test_a_missing_right_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _answering(monkeypatch, "PERMISSION_DENIED")
    with connect("gcp://my-project") as broker, pytest.raises(PermissionDeniedError) as caught:
        broker.publish("orders", CloudEvent(type="a", source="b"))
    assert "pubsub.topics.publish" in str(caught.value)
    assert TOPIC in str(caught.value)
    assert isinstance(caught.value.__cause__, exceptions.PermissionDenied), "the SDK's own error is not the cause"
    assert len(calls) == 1, "what was refused was tried again"


def test_a_missing_topic_or_project_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, "NOT_FOUND")
    with connect("gcp://my-project") as broker, pytest.raises(NotFoundError) as caught:
        broker.publish("orders", CloudEvent(type="a", source="b"))
    assert "or its project" in str(caught.value)
    assert "topology apply" in str(caught.value)


def test_missing_credentials_are_said_on_first_use_and_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def default(**options: object) -> None:
        asked.append(options)
        raise auth.DefaultCredentialsError("Your default credentials were not found.")

    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.default", default)
    with connect("gcp://my-project", retry=RetryPolicy(attempts=3, initial=0.0)) as broker:
        assert not asked, "connecting asked for credentials"
        with pytest.raises(BridgeError) as caught:
            broker.publish("orders", CloudEvent(type="a", source="b"))
    assert caught.value.code == ErrorCode.UNAUTHENTICATED
    assert "gcloud auth application-default login" in str(caught.value)
    assert len(asked) == 1


@pytest.mark.parametrize("status", ["NOT_FOUND", "PERMISSION_DENIED"])
def test_ping_is_answered_by_whoever_knows_us(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    _answering(monkeypatch, status)
    with connect("gcp://my-project") as broker:
        broker.ping()


def test_ping_fails_where_the_service_does_not_know_us(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, "UNAUTHENTICATED")
    with connect("gcp://my-project") as broker, pytest.raises(BridgeError) as caught:
        broker.ping()
    assert caught.value.code == ErrorCode.UNAUTHENTICATED


def test_exactly_once_subscriptions_say_what_became_of_each() -> None:
    failed = {"b": "PERMANENT_FAILURE_INVALID_ACK_ID", "c": "TRANSIENT_FAILURE_OTHER", "d": "PERMANENT_FAILURE_ELSE"}
    info = error_details_pb2.ErrorInfo(reason=acks.REASON, domain="pubsub.googleapis.com", metadata=failed)
    error = exceptions.InvalidArgument("", details=[info], error_info=info)
    outcomes = acks.outcomes(error, ["a", "b", "c", "d"], Done())
    assert outcomes is not None
    good, lost, again, other = outcomes
    assert good == Done()
    assert isinstance(lost, Fault)
    assert (lost.code, lost.retryable) == (ErrorCode.LEASE_LOST, False)
    assert isinstance(again, Fault)
    assert (again.code, again.retryable) == (ErrorCode.UNAVAILABLE, True)
    assert isinstance(other, Fault)
    assert (other.code, other.retryable) == (ErrorCode.FAILED_PRECONDITION, False)
    assert acks.outcomes(exceptions.ServiceUnavailable("all of it"), ["a"], Done()) is None
