"""What becomes of each error: those that the SDK raises on the emulator, and those that it raises by itself."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceResponseTimeoutError
from azure.core.messaging import CloudEvent
from azure.core.rest import HttpRequest
from azure.eventgrid import EventGridConsumerClient, EventGridPublisherClient

from cloudevents_bridge.driver import Fault
from cloudevents_bridge.errors import ClosedError, ErrorCode
from cloudevents_bridge_azure.eventgrid import errors
from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, Running
from cloudevents_bridge_contract.emulators.process import free_port


def _fault(client: Any, act: str, **options: Any) -> Fault:
    with client, pytest.raises(AzureError) as caught:
        getattr(client, act)(**options)
    return errors.classify(caught.value)


def _consumer(url: str, subscription: str = "billing", key: str = KEY, **options: Any) -> EventGridConsumerClient:
    return EventGridConsumerClient(
        url, AzureKeyCredential(key), namespace_topic="orders", subscription=subscription, retry_total=0, **options
    )


CASES = [
    (400, ErrorCode.INVALID_ARGUMENT, False, False),
    (401, ErrorCode.UNAUTHENTICATED, False, False),
    (403, ErrorCode.PERMISSION_DENIED, False, False),
    (404, ErrorCode.NOT_FOUND, False, False),
    (408, ErrorCode.DEADLINE_EXCEEDED, True, True),
    (409, ErrorCode.FAILED_PRECONDITION, False, False),
    (413, ErrorCode.TOO_LARGE, False, False),
    (429, ErrorCode.RESOURCE_EXHAUSTED, True, False),
    (500, ErrorCode.INTERNAL, True, True),
    (503, ErrorCode.UNAVAILABLE, True, True),
    (504, ErrorCode.DEADLINE_EXCEEDED, True, True),
    (418, ErrorCode.UNKNOWN, False, False),
]


@pytest.mark.parametrize(("status", "code", "retryable", "maybe_applied"), CASES)
def test_statuses(emulator: Running, status: int, code: ErrorCode, retryable: bool, maybe_applied: bool) -> None:
    emulator.fail("receive", status, "SomeCode", retry_after=3)
    fault = _fault(_consumer(emulator.url), "receive", max_wait_time=10)
    assert (fault.code, fault.retryable, fault.maybe_applied) == (code, retryable, maybe_applied)
    if code is not ErrorCode.UNKNOWN:
        assert fault.retry_after == 3
        assert fault.message == f"SomeCode: A fault that was set. (HTTP {status})"


def test_real_refusals_have_what_the_service_said(emulator: Running) -> None:
    fault = _fault(_consumer(emulator.url, "nobody"), "receive", max_wait_time=10)
    assert fault.code is ErrorCode.NOT_FOUND
    assert "nobody of the topic orders does not exist. (HTTP 404)" in fault.message
    assert _fault(_consumer(emulator.url, key="eA=="), "receive").code is ErrorCode.UNAUTHENTICATED


def test_topic_that_is_not_there_has_no_status(emulator: Running) -> None:
    client = EventGridPublisherClient(emulator.url, AzureKeyCredential(KEY), namespace_topic="nothing", retry_total=0)
    fault = _fault(client, "send", events=CloudEvent(source="/s", type="t"))
    assert (fault.code, fault.retryable) == (ErrorCode.NOT_FOUND, False)


def test_nobody_listens() -> None:
    fault = _fault(_consumer(f"http://127.0.0.1:{free_port()}"), "receive", max_wait_time=10)
    assert (fault.code, fault.retryable, fault.maybe_applied) == (ErrorCode.UNAVAILABLE, True, False)


def test_answer_that_does_not_come(emulator: Running) -> None:
    fault = _fault(_consumer(emulator.url), "receive", max_wait_time=10, read_timeout=0.2)
    assert (fault.retryable, fault.maybe_applied) == (True, True)
    assert errors.classify(ServiceResponseTimeoutError("late")).code is ErrorCode.DEADLINE_EXCEEDED


def test_credential_that_cannot_be_had() -> None:
    class CredentialUnavailableError(ClientAuthenticationError):  # type: ignore[misc]
        """As azure-identity raises it, without an answer."""

    assert errors.classify(CredentialUnavailableError(message="no")).code is ErrorCode.UNAUTHENTICATED


def test_wait_that_cannot_be_read_is_none(emulator: Running) -> None:
    emulator.fail("publish", 503, "Busy")
    client = EventGridPublisherClient(emulator.url, AzureKeyCredential(KEY), namespace_topic="orders", retry_total=0)
    with client:
        answer = client.send_request(HttpRequest("POST", "/topics/orders:publish"))
        answer.headers["Retry-After"] = "Wed, 21 Oct 2015 07:28:00 GMT"
        with pytest.raises(HttpResponseError) as caught:
            answer.raise_for_status()
    assert errors.classify(caught.value).retry_after is None


@pytest.mark.parametrize(
    ("code", "expected", "retryable"),
    [
        ("TokenLost", ErrorCode.LEASE_LOST, False),
        ("BadToken", ErrorCode.INTERNAL, False),
        ("InternalServerError", ErrorCode.UNAVAILABLE, True),
        ("New", ErrorCode.UNKNOWN, False),
    ],
)
def test_tokens(code: str, expected: ErrorCode, retryable: bool) -> None:
    fault = errors.of_token({"lockToken": "t", "error": {"code": code, "message": "m"}})
    assert (fault.code, fault.retryable) == (expected, retryable)


def test_our_own_errors_and_unknown_ones() -> None:
    assert errors.classify(ClosedError("closed")).code is ErrorCode.CLOSED
    fault = errors.classify(ValueError("odd"))
    assert (fault.code, fault.retryable, fault.message) == (
        ErrorCode.UNKNOWN,
        False,
        "unexpected error: ValueError: odd",
    )
