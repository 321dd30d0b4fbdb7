"""What the errors of azure-servicebus mean: those that the SDK makes of what the service refuses, and its own."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest
from azure.core import exceptions as core
from azure.servicebus import exceptions
from azure.servicebus._pyamqp.error import (
    AMQPConnectionError,
    AMQPException,
    AMQPLinkError,
    ErrorCondition,
    MessageException,
)
from azure.servicebus._transport._pyamqp_transport import PyamqpTransport

from cloudevents_bridge.driver import Fault
from cloudevents_bridge.errors import ClosedError, ErrorCode
from cloudevents_bridge_azure.servicebus import errors

CONDITIONS = [
    ("amqp:not-found", ErrorCode.NOT_FOUND, False, False),
    ("amqp:unauthorized-access", ErrorCode.PERMISSION_DENIED, False, False),
    ("amqp:not-allowed", ErrorCode.FAILED_PRECONDITION, False, False),
    ("amqp:resource-limit-exceeded", ErrorCode.RESOURCE_EXHAUSTED, True, False),
    ("amqp:internal-error", ErrorCode.INTERNAL, True, True),
    ("amqp:link:detach-forced", ErrorCode.UNAVAILABLE, True, True),
    ("amqp:link:message-size-exceeded", ErrorCode.TOO_LARGE, False, False),
    ("com.microsoft:auth-failed", ErrorCode.UNAUTHENTICATED, False, False),
    ("com.microsoft:entity-disabled", ErrorCode.FAILED_PRECONDITION, False, False),
    ("com.microsoft:message-lock-lost", ErrorCode.LEASE_LOST, False, False),
    ("com.microsoft:server-busy", ErrorCode.RESOURCE_EXHAUSTED, True, False),
    ("com.microsoft:session-cannot-be-locked", ErrorCode.FAILED_PRECONDITION, True, False),
    ("com.microsoft:session-lock-lost", ErrorCode.LEASE_LOST, False, False),
    ("com.microsoft:timeout", ErrorCode.DEADLINE_EXCEEDED, True, True),
    ("com.microsoft:something-new", ErrorCode.UNKNOWN, False, False),
]


OF_THE_SDK = {f"amqp:{each}-error" for each in ("client", "socket", "unknown", "vendor")}
"""Conditions that no peer says: the SDK's classes tell what they mean."""


def _meaning(fault: Fault) -> tuple[ErrorCode, bool, bool]:
    return fault.code, fault.retryable, fault.maybe_applied


@pytest.mark.parametrize(("condition", "code", "retryable", "maybe"), CONDITIONS, ids=[each[0] for each in CONDITIONS])
@pytest.mark.parametrize("kind", [AMQPException, MessageException, AMQPLinkError])
def test_conditions(condition: str, code: ErrorCode, retryable: bool, maybe: bool, kind: Any) -> None:
    native = kind(condition.encode(), description="the service says why")
    fault = errors.classify(PyamqpTransport.create_servicebus_exception(logging.getLogger("test"), native))
    assert _meaning(fault) == (code, retryable, maybe)
    assert "the service says why" in fault.message


@pytest.mark.parametrize(
    ("error", "code", "retryable", "maybe"),
    [
        (exceptions.OperationTimeoutError(), ErrorCode.DEADLINE_EXCEEDED, True, True),
        (exceptions.ServiceBusConnectionError(), ErrorCode.UNAVAILABLE, True, True),
        (exceptions.ServiceBusAuthenticationError(), ErrorCode.UNAUTHENTICATED, False, False),
        (exceptions.ServiceBusQuotaExceededError(), ErrorCode.RESOURCE_EXHAUSTED, True, False),
        (exceptions.MessageAlreadySettled(action="complete"), ErrorCode.LEASE_LOST, False, False),
        (exceptions.MessageLockLostError(), ErrorCode.LEASE_LOST, False, False),
        (core.ClientAuthenticationError("no token"), ErrorCode.UNAUTHENTICATED, False, False),
        (core.ServiceRequestError("no route"), ErrorCode.UNAVAILABLE, True, False),
        (core.ServiceResponseError("cut"), ErrorCode.UNAVAILABLE, True, True),
        (ConnectionResetError("reset"), ErrorCode.UNAVAILABLE, True, True),
        (errors.StalledError("no answer"), ErrorCode.DEADLINE_EXCEEDED, True, True),
        (ClosedError("closed"), ErrorCode.CLOSED, False, False),
        (KeyError("x"), ErrorCode.UNKNOWN, False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_classes(error: Exception, code: ErrorCode, retryable: bool, maybe: bool) -> None:
    assert _meaning(errors.classify(error)) == (code, retryable, maybe)


def test_every_condition_and_every_class_of_the_sdk_is_in_the_tables() -> None:
    conditions = {each.value.decode() for each in ErrorCondition}
    assert len(conditions) > 25
    assert conditions - errors._CONDITIONS.keys() == OF_THE_SDK
    renewer = {"AutoLockRenewFailed", "AutoLockRenewTimeout"}  # of a helper of the SDK that is not used here
    public = {
        name
        for name, each in vars(exceptions).items()
        if inspect.isclass(each) and "ServiceBusError" in str(each.__mro__)
    }
    assert public - errors._CLASSES.keys() - renewer == {"ServiceBusError"}


@pytest.mark.parametrize("status", sorted(errors._STATUSES))
def test_statuses_of_the_administration(status: int) -> None:
    error = core.HttpResponseError("the service says why")
    error.status_code = status
    assert errors.classify(error).code is errors._STATUSES[status].code
    error.status_code = None
    assert errors.classify(error).code is ErrorCode.UNKNOWN


def test_what_could_not_be_opened_was_not_sent() -> None:
    for cause in (exceptions.ServiceBusConnectionError(), AMQPConnectionError(b"amqp:socket-error"), OSError("x")):
        error = errors.OpeningError()
        error.__cause__ = cause
        fault = errors.classify(error)
        assert not fault.maybe_applied
    assert not errors.classify(errors.OpeningError()).maybe_applied


def test_who_cannot_log_in_is_told_what_to_do() -> None:
    assert "az login" in errors.classify(core.ClientAuthenticationError("no token")).message
