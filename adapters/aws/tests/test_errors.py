"""What AWS says, as faults. No emulator says most of it: botocore's own errors and stubs do."""

from __future__ import annotations

from typing import Any

import botocore.exceptions as native
import pytest
from botocore.session import get_session

from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_aws.errors import _CODES, _SERVICES, classify, of_code

# The pages "Common Error Types" of SNS and SQS, as they are and as they were before their rewriting of 2025.
COMMON = [
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InternalFailure",
    "InvalidAction",
    "InvalidClientTokenId",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "InvalidQueryParameter",
    "MalformedHttpRequestException",
    "MalformedQueryString",
    "MissingAction",
    "MissingAuthenticationToken",
    "MissingParameter",
    "NotAuthorized",
    "OptInRequired",
    "RequestAbortedException",
    "RequestEntityTooLargeException",
    "RequestExpired",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationError",
]


def _client_error(code: str, operation: str = "PublishBatch", status: int = 400, headers: Any = None) -> Exception:
    answer: Any = {
        "Error": {"Code": code, "Message": "why"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    error: Exception = native.ClientError(answer, operation)
    return error


@pytest.mark.parametrize(
    ("code", "wanted", "retryable", "maybe"),
    [
        ("Throttling", ErrorCode.RESOURCE_EXHAUSTED, True, False),
        ("RequestThrottled", ErrorCode.RESOURCE_EXHAUSTED, True, False),
        ("KMS.ThrottlingException", ErrorCode.RESOURCE_EXHAUSTED, True, False),
        ("InternalError", ErrorCode.UNAVAILABLE, True, True),
        ("503", ErrorCode.UNAVAILABLE, True, True),
        ("NotFound", ErrorCode.NOT_FOUND, False, False),
        ("AWS.SimpleQueueService.NonExistentQueue", ErrorCode.NOT_FOUND, False, False),
        ("QueueDoesNotExist", ErrorCode.NOT_FOUND, False, False),
        ("AuthorizationError", ErrorCode.PERMISSION_DENIED, False, False),
        ("KMS.DisabledException", ErrorCode.FAILED_PRECONDITION, False, False),
        ("ExpiredToken", ErrorCode.UNAUTHENTICATED, False, False),
        ("SignatureDoesNotMatch", ErrorCode.UNAUTHENTICATED, False, False),
        ("ReceiptHandleIsInvalid", ErrorCode.LEASE_LOST, False, False),
        ("BatchRequestTooLong", ErrorCode.TOO_LARGE, False, False),
        ("SomethingNew", ErrorCode.UNKNOWN, False, False),
    ],
)
def test_codes(code: str, wanted: ErrorCode, retryable: bool, maybe: bool) -> None:
    fault = classify(_client_error(code))
    assert (fault.code, fault.retryable, fault.maybe_applied) == (wanted, retryable, maybe)
    assert "why" in fault.message
    assert code in fault.message


def _documented(service: str) -> set[str]:
    """The codes that botocore's model of a service declares. SQS says them with its old prefix, too."""
    model = get_session().get_service_model(service)
    errors = [shape for name in model.shape_names if (shape := model.shape_for(name)).metadata.get("exception")]
    return {str(each.metadata.get("error", {}).get("code", each.name)) for each in errors}


@pytest.mark.parametrize(
    ("codes", "least"),
    [(_documented("sns"), 30), (_documented("sqs"), 25), (set(COMMON), 25)],
    ids=["sns", "sqs", "all"],
)
def test_every_documented_code_is_in_the_table(codes: set[str], least: int) -> None:
    assert codes - _CODES.keys() == set()
    assert len(codes) >= least, "the model is not what it was"


def test_operations_are_named_with_their_service() -> None:
    for service in ("sns", "sqs", "sts"):
        ours = {name for name, of in _SERVICES.items() if of == service}
        assert ours <= set(get_session().get_service_model(service).operation_names)


def test_refusal_names_the_action_as_a_policy_does() -> None:
    assert "sns:Publish is not allowed" in classify(_client_error("AuthorizationError")).message
    assert "sqs:DeleteMessage is not" in classify(_client_error("AccessDenied", "DeleteMessageBatch")).message


def test_unknown_code_that_is_not_the_senders_fault_may_have_been_done() -> None:
    fault = classify(_client_error("SomethingNew", status=500))
    assert (fault.code, fault.retryable, fault.maybe_applied) == (ErrorCode.INTERNAL, False, True)
    assert of_code("SomethingNew", "", action="sns:Publish", theirs=True).maybe_applied


def test_wait_that_is_asked_for_is_passed_on() -> None:
    assert classify(_client_error("503", headers={"retry-after": "7"})).retry_after == 7.0


@pytest.mark.parametrize(
    ("error", "wanted", "remedy"),
    [
        (native.NoCredentialsError(), ErrorCode.UNAUTHENTICATED, "AWS_PROFILE"),
        (native.PartialCredentialsError(provider="env", cred_var="x"), ErrorCode.UNAUTHENTICATED, "AWS_ACCESS_KEY_ID"),
        (native.TokenRetrievalError(provider="sso", error_msg="old"), ErrorCode.UNAUTHENTICATED, "aws sso login"),
        (native.MetadataRetrievalError(error_msg="no role"), ErrorCode.UNAUTHENTICATED, "aws sso login"),
        (native.ProfileNotFound(profile="x"), ErrorCode.FAILED_PRECONDITION, "AWS_PROFILE"),
        (native.InvalidConfigError(error_msg="no source"), ErrorCode.FAILED_PRECONDITION, "~/.aws/config"),
        (native.MissingDependencyException(msg="crt"), ErrorCode.FAILED_PRECONDITION, "package"),
        (native.EndpointConnectionError(endpoint_url="https://x"), ErrorCode.UNAVAILABLE, "network"),
        (native.ReadTimeoutError(endpoint_url="https://x"), ErrorCode.DEADLINE_EXCEEDED, "in time"),
        (native.ConnectionClosedError(endpoint_url="https://x"), ErrorCode.UNAVAILABLE, ""),
        (native.ResponseStreamingError(error="cut"), ErrorCode.UNAVAILABLE, ""),
        (ValueError("x"), ErrorCode.UNKNOWN, "ValueError"),
    ],
)
def test_errors_of_the_sdk(error: Exception, wanted: ErrorCode, remedy: str) -> None:
    fault = classify(error)
    assert fault.code is wanted
    assert remedy in fault.message
