"""What AWS's errors mean. One table by the code that a service says, and one by the class that botocore raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cloudevents_bridge.driver import Fault
from cloudevents_bridge.errors import BridgeError, ErrorCode


class _Meaning(NamedTuple):
    """`text`: what to say in front of, or instead of, what AWS says."""

    code: ErrorCode
    retryable: bool = False
    maybe_applied: bool = False
    text: str = ""
    retry_after: float | None = None


_C = ErrorCode
_THROTTLED = _Meaning(_C.RESOURCE_EXHAUSTED, retryable=True)
_INVALID = _Meaning(_C.INVALID_ARGUMENT)
_DENIED = _Meaning(_C.PERMISSION_DENIED)
_MISSING = _Meaning(_C.NOT_FOUND, text="there is none in the region and the account of the URL; ")
_LARGE = _Meaning(_C.TOO_LARGE)
_DOWN = _Meaning(_C.UNAVAILABLE, retryable=True, maybe_applied=True)
_CLOCK = _Meaning(
    _C.UNAUTHENTICATED, text="AWS does not accept the time of this machine: set its clock, and try again; "
)
_UNKNOWN_KEY = _Meaning(
    _C.UNAUTHENTICATED,
    text="AWS does not know these credentials, or not in this region: look at `aws sts get-caller-identity`, the "
    "environment and the region; ",
)
_EXPIRED = _Meaning(_C.UNAUTHENTICATED, text="the credentials have expired: log in again, or renew the session token; ")
_NO_REGION = _Meaning(_C.PERMISSION_DENIED, text="the account is not subscribed to the service or region; ")
_KEY_STATE = _Meaning(_C.FAILED_PRECONDITION, text="the KMS key cannot be used: enable it, or name another; ")

_CODES: Mapping[str, _Meaning] = {
    # of both services, and of AWS in front of them
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AuthorizationError": _DENIED,
    "AuthorizationErrorException": _DENIED,
    "UnauthorizedOperation": _DENIED,
    "OptInRequired": _NO_REGION,
    "RegionDisabledException": _NO_REGION,
    "NotAuthorized": _DENIED,
    "IncompleteSignature": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "UnrecognizedClientException": _UNKNOWN_KEY,
    "InvalidSecurity": _UNKNOWN_KEY,
    "InvalidSecurityException": _UNKNOWN_KEY,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "MissingAuthenticationToken": _UNKNOWN_KEY,
    "MissingAuthenticationTokenException": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _UNKNOWN_KEY,
    "InvalidSignatureException": _UNKNOWN_KEY,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": _CLOCK,
    "RequestTimeTooSkewed": _CLOCK,
    "InternalError": _DOWN,
    "InternalErrorException": _DOWN,
    "InternalFailure": _DOWN,
    "InternalServerError": _DOWN,
    "ServiceUnavailable": _DOWN,
    "ServiceUnavailableException": _DOWN,
    "RequestTimeout": _DOWN,
    "RequestTimeoutException": _DOWN,
    "RequestAbortedException": _DOWN,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "Throttled": _THROTTLED,
    "ThrottledException": _THROTTLED,
    "RequestThrottled": _THROTTLED,
    "RequestThrottledException": _THROTTLED,
    "RequestLimitExceeded": _THROTTLED,
    "TooManyRequestsException": _THROTTLED,
    "SlowDown": _THROTTLED,
    "OverLimit": _THROTTLED,  # 120,000 messages in flight: the queue gives no more until some are settled
    "OverLimitException": _THROTTLED,
    "InvalidAction": _Meaning(_C.UNSUPPORTED),
    "UnknownOperationException": _Meaning(_C.UNSUPPORTED),
    "UnsupportedOperation": _Meaning(_C.UNSUPPORTED),
    "InvalidParameter": _INVALID,
    "InvalidParameterException": _INVALID,
    "InvalidParameterCombination": _INVALID,
    "InvalidParameterValue": _INVALID,
    "ParameterValueInvalid": _INVALID,
    "InvalidQueryParameter": _INVALID,
    "InvalidAddress": _Meaning(
        _C.INVALID_ARGUMENT, text="the queue is in another region or account than its URL says; "
    ),
    "InvalidHost": _INVALID,
    "MalformedQueryString": _INVALID,
    "MalformedHttpRequestException": _INVALID,
    "MissingAction": _INVALID,
    "MissingParameter": _INVALID,
    "ValidationError": _INVALID,
    "ValidationException": _INVALID,
    "SerializationException": _INVALID,
    "RequestEntityTooLargeException": _LARGE,
    # SNS
    "NotFound": _MISSING,
    "NotFoundException": _MISSING,
    "ResourceNotFound": _MISSING,
    "ResourceNotFoundException": _MISSING,
    "EndpointDisabled": _Meaning(_C.FAILED_PRECONDITION),
    "PlatformApplicationDisabled": _Meaning(_C.FAILED_PRECONDITION),
    "TopicLimitExceeded": _Meaning(_C.RESOURCE_EXHAUSTED),
    "SubscriptionLimitExceeded": _Meaning(_C.RESOURCE_EXHAUSTED),
    "FilterPolicyLimitExceeded": _Meaning(_C.RESOURCE_EXHAUSTED),
    "ReplayLimitExceeded": _Meaning(_C.RESOURCE_EXHAUSTED),
    "TagLimitExceeded": _Meaning(_C.RESOURCE_EXHAUSTED),
    "TagPolicy": _DENIED,
    "StaleTag": _INVALID,
    "ConcurrentAccess": _THROTTLED,
    "InvalidState": _Meaning(_C.FAILED_PRECONDITION),
    "OptedOut": _Meaning(_C.FAILED_PRECONDITION),
    "UserError": _INVALID,
    "VerificationException": _INVALID,
    # SQS
    "AWS.SimpleQueueService.NonExistentQueue": _MISSING,
    "QueueDoesNotExist": _MISSING,
    "QueueNameExists": _Meaning(_C.ALREADY_EXISTS),
    "QueueAlreadyExists": _Meaning(_C.ALREADY_EXISTS),
    "AWS.SimpleQueueService.QueueDeletedRecently": _Meaning(
        _C.FAILED_PRECONDITION, text="a queue of this name was deleted within the last minute: wait that long; "
    ),
    "QueueDeletedRecently": _Meaning(
        _C.FAILED_PRECONDITION, text="a queue of this name was deleted within the last minute: wait that long; "
    ),
    "AWS.SimpleQueueService.PurgeQueueInProgress": _Meaning(_C.RESOURCE_EXHAUSTED, retryable=True, retry_after=60.0),
    "PurgeQueueInProgress": _Meaning(_C.RESOURCE_EXHAUSTED, retryable=True, retry_after=60.0),
    "ReceiptHandleIsInvalid": _Meaning(_C.LEASE_LOST),
    "MessageNotInflight": _Meaning(_C.LEASE_LOST),
    "AWS.SimpleQueueService.MessageNotInflight": _Meaning(_C.LEASE_LOST),
    "InvalidIdFormat": _Meaning(_C.LEASE_LOST),  # of a receipt handle
    "InvalidAttributeName": _INVALID,
    "InvalidAttributeValue": _INVALID,
    "InvalidMessageContents": _INVALID,
    "BatchRequestTooLong": _LARGE,
    "AWS.SimpleQueueService.BatchRequestTooLong": _LARGE,
    "BatchEntryIdsNotDistinct": _INVALID,
    "AWS.SimpleQueueService.BatchEntryIdsNotDistinct": _INVALID,
    "EmptyBatchRequest": _INVALID,
    "AWS.SimpleQueueService.EmptyBatchRequest": _INVALID,
    "InvalidBatchEntryId": _INVALID,
    "AWS.SimpleQueueService.InvalidBatchEntryId": _INVALID,
    "TooManyEntriesInBatchRequest": _INVALID,
    "AWS.SimpleQueueService.TooManyEntriesInBatchRequest": _INVALID,
    "AWS.SimpleQueueService.UnsupportedOperation": _Meaning(_C.UNSUPPORTED),
    # KMS, through either of them; SQS says some with and some without the prefix
    "KMSAccessDenied": _DENIED,
    "KMSAccessDeniedException": _DENIED,
    "KmsAccessDenied": _DENIED,
    "KMS.AccessDeniedException": _DENIED,
    "KMSDisabled": _KEY_STATE,
    "KMSDisabledException": _KEY_STATE,
    "KmsDisabled": _KEY_STATE,
    "KMS.DisabledException": _KEY_STATE,
    "KMSInvalidState": _KEY_STATE,
    "KMSInvalidStateException": _KEY_STATE,
    "KmsInvalidState": _KEY_STATE,
    "KMS.KMSInvalidStateException": _KEY_STATE,
    "KmsInvalidKeyUsage": _KEY_STATE,
    "KMSNotFound": _Meaning(_C.FAILED_PRECONDITION, text="the KMS key does not exist; "),
    "KMSNotFoundException": _Meaning(_C.FAILED_PRECONDITION, text="the KMS key does not exist; "),
    "KmsNotFound": _Meaning(_C.FAILED_PRECONDITION, text="the KMS key does not exist; "),
    "KMS.NotFoundException": _Meaning(_C.FAILED_PRECONDITION, text="the KMS key does not exist; "),
    "KMSOptInRequired": _DENIED,
    "KmsOptInRequired": _DENIED,
    "KMS.OptInRequired": _DENIED,
    "KMSThrottling": _THROTTLED,
    "KMSThrottlingException": _THROTTLED,
    "KmsThrottled": _THROTTLED,
    "KMS.ThrottlingException": _THROTTLED,
    # of something in between that is not AWS: botocore gives the status as the code
    "408": _DOWN,
    "413": _LARGE,
    "429": _THROTTLED,
    "500": _DOWN,
    "502": _DOWN,
    "503": _DOWN,
    "504": _DOWN,
}

_NO_CREDENTIALS = (
    "there are no AWS credentials here: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run "
    "`aws sso login`, or give the machine a role"
)
_RENEW = "the AWS credentials cannot be renewed: run `aws sso login`, or look at the profile in use"
_UNREACHED = "AWS cannot be reached from here: look at the network, the region and the endpoint"

_CLASSES: Mapping[str, _Meaning] = {
    "NoCredentialsError": _Meaning(_C.UNAUTHENTICATED, text=_NO_CREDENTIALS),
    "NoAuthTokenError": _Meaning(_C.UNAUTHENTICATED, text=_NO_CREDENTIALS),
    "PartialCredentialsError": _Meaning(_C.UNAUTHENTICATED, text=_NO_CREDENTIALS),
    "CredentialRetrievalError": _Meaning(_C.UNAUTHENTICATED, text=_RENEW),
    "TokenRetrievalError": _Meaning(_C.UNAUTHENTICATED, text=_RENEW),
    "SSOError": _Meaning(_C.UNAUTHENTICATED, text=_RENEW),
    "LoginError": _Meaning(_C.UNAUTHENTICATED, text=_RENEW),
    "RefreshWithMFAUnsupportedError": _Meaning(_C.UNAUTHENTICATED, text=_RENEW),
    "MetadataRetrievalError": _Meaning(_C.UNAUTHENTICATED, text=_RENEW),
    "ProfileNotFound": _Meaning(
        _C.FAILED_PRECONDITION, text="AWS_PROFILE names a profile that ~/.aws/config does not have"
    ),
    "ConfigParseError": _Meaning(_C.FAILED_PRECONDITION, text="~/.aws/config cannot be read"),
    "InvalidConfigError": _Meaning(
        _C.FAILED_PRECONDITION, text="the profile in use is not complete: see ~/.aws/config"
    ),
    "MissingDependencyException": _Meaning(_C.FAILED_PRECONDITION, text="a package that the profile needs is missing"),
    "EndpointConnectionError": _Meaning(_C.UNAVAILABLE, retryable=True, text=_UNREACHED),
    "ConnectTimeoutError": _Meaning(_C.UNAVAILABLE, retryable=True, text=_UNREACHED),
    "ProxyConnectionError": _Meaning(
        _C.UNAVAILABLE, retryable=True, text="the proxy cannot be reached: look at HTTPS_PROXY"
    ),
    "SSLError": _Meaning(
        _C.UNAVAILABLE, text="the certificate of AWS's endpoint is not accepted: look at proxies, CAs"
    ),
    "ReadTimeoutError": _Meaning(
        _C.DEADLINE_EXCEEDED, retryable=True, maybe_applied=True, text="AWS did not answer in time"
    ),
    "ConnectionClosedError": _DOWN,
    "ResponseStreamingError": _DOWN,
    "IncompleteReadError": _DOWN,
    "HTTPClientError": _DOWN,
    "ResponseParserError": _DOWN,
    "EndpointProviderError": _Meaning(_C.FAILED_PRECONDITION, text="there is no such region, or none of this service"),
    "UnknownRegionError": _Meaning(_C.FAILED_PRECONDITION, text="there is no such region"),
    "ParamValidationError": _INVALID,
    "UnsupportedSignatureVersionError": _Meaning(_C.UNSUPPORTED),
}


def classify(error: BaseException) -> Fault:
    """The fault of an error that the driver raised. What is unknown is not retried."""
    if isinstance(error, BridgeError):
        return Fault(error.code, error.retryable, error.maybe_applied, error.retry_after, str(error))
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        said = response["Error"]
        action = action_of(error)
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return of_code(
            str(said.get("Code", "")),
            str(said.get("Message", "")),
            action=action,
            theirs=isinstance(status, int) and status >= 500,
            retry_after=_retry_after(response),
        )
    for base in type(error).__mro__:
        meaning = _CLASSES.get(base.__name__) if base.__module__.startswith(("botocore.", "boto3.")) else None
        if meaning is not None:
            text = f"{meaning.text} (botocore says: {error})" if meaning.text else f"{base.__name__}: {error}"
            return Fault(meaning.code, meaning.retryable, meaning.maybe_applied, None, text)
    return Fault(ErrorCode.UNKNOWN, False, False, None, f"unexpected error: {type(error).__name__}: {error}")


def of_code(code: str, message: str, *, action: str, theirs: bool = False, retry_after: float | None = None) -> Fault:
    """The fault of a code, for a request or for one entry of it.

    Args:
        action: what was asked, as a policy names it.
        theirs: AWS says that it is not the sender's fault.
    """
    meaning = _CODES.get(code)
    if meaning is None:
        # A code that is not in the table, and a fault that is not ours: it may have been done, and nobody knows more.
        meaning = _Meaning(ErrorCode.INTERNAL if theirs else ErrorCode.UNKNOWN, maybe_applied=theirs)
    text = f"{meaning.text}{action} failed: {message or 'no reason was given'} ({code})"
    if meaning.code is ErrorCode.PERMISSION_DENIED:
        text = f"{meaning.text}{action} is not allowed: {message} ({code})"
    retry = meaning.retry_after if retry_after is None else retry_after
    return Fault(meaning.code, meaning.retryable, meaning.maybe_applied, retry, text)


def action_of(error: BaseException) -> str:
    """The action of a request that failed, as a policy names it: `sns:Publish`, for a batch too."""
    operation = str(getattr(error, "operation_name", "the request"))
    service = _SERVICES.get(operation)
    name = operation.removesuffix("Batch")
    return f"{service}:{name}" if service else name


_SERVICES = {
    name: service
    for service, names in {
        "sns": "Publish PublishBatch CreateTopic DeleteTopic GetTopicAttributes SetTopicAttributes Subscribe "
        "Unsubscribe ListSubscriptionsByTopic GetSubscriptionAttributes SetSubscriptionAttributes "
        "ListTagsForResource TagResource",
        "sqs": "SendMessage SendMessageBatch ReceiveMessage DeleteMessage DeleteMessageBatch ChangeMessageVisibility "
        "ChangeMessageVisibilityBatch CreateQueue DeleteQueue GetQueueAttributes SetQueueAttributes ListQueueTags "
        "ListQueues PurgeQueue TagQueue",
        "sts": "GetCallerIdentity AssumeRole AssumeRoleWithWebIdentity",
    }.items()
    for name in names.split()
}


def _retry_after(response: Mapping[str, Any]) -> float | None:
    """Seconds that the service asks to wait."""
    given = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return float(given) if str(given).isdigit() else None
