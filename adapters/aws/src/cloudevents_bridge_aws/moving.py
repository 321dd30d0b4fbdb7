"""The whole-queue move of dead letters, which is SQS's own."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from cloudevents_bridge import Broker
from cloudevents_bridge.driver import DeadLetters, Subscription
from cloudevents_bridge.errors import (
    BridgeError,
    DeadlineExceededError,
    ErrorCode,
    InvalidArgumentError,
    UnsupportedError,
    make_error,
)
from cloudevents_bridge.faults import place_name
from cloudevents_bridge.session import Session
from cloudevents_bridge_aws.connection import Connection

MOST = 500
"""Letters per second, at most: SQS's own limit."""
LOOK = 1.0
"""Seconds between two looks at how far it is."""


def move_dead_letters(
    broker: Broker, topic: str, subscription: str, *, rate: int | None = None, timeout: float = 3600.0
) -> int:
    """Have SQS move all dead letters of a subscription back to its queue, and wait until it has.

    It is quick, and keeps less than `DeadLetters.replay` does: see the page of the documentation. What it did not get
    to stays among the dead letters; calling it again goes on with that.

    Args:
        broker: one of `aws://` or `aws-sqs://`.
        rate: letters per second, 1 to 500; None: as SQS thinks right.
        timeout: seconds after which it is cancelled.

    Returns:
        How many were moved, as SQS counts, which is approximately.

    Raises:
        UnsupportedError: if it is another broker; or, from SQS, if such a move of these letters is under way.
        DeadlineExceededError: after `timeout`.
        InvalidArgumentError: if the rate is none that SQS takes.
        BridgeError: what SQS said; FAILED_PRECONDITION if it gave the move up.

    Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
    """
    session = broker._opener.get()
    connection: object = session.connection
    if not isinstance(connection, Connection):
        raise UnsupportedError(f"{broker.url} is not SQS: use broker.dead_letters(…).replay", broker=broker.url)
    if rate is not None and rate not in range(1, MOST + 1):
        raise InvalidArgumentError(f"rate is {rate!r}: it must be 1 to {MOST} letters per second")
    of = session.config.declared.subscription(topic, subscription)
    return _Move(session, connection, of).run(rate, timeout)


class _Move:
    """One such task. SQS has one for a queue at a time."""

    def __init__(self, session: Session, connection: Connection, of: Subscription) -> None:
        self._session = session
        self._sqs = connection.native.sqs
        self._source, self._destination = connection.queue_arn(DeadLetters(of)), connection.queue_arn(of)
        self._doing = f"move {place_name(DeadLetters(of))}"

    def run(self, rate: int | None, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        told = f"{self._doing} on {self._session.broker}"
        before = self._newest()
        limit = {} if rate is None else {"MaxNumberOfMessagesPerSecond": rate}
        handle = self._call(
            "start_message_move_task", SourceArn=self._source, DestinationArn=self._destination, **limit
        )["TaskHandle"]
        try:
            while (task := self._newest()) == before or task["Status"] in ("RUNNING", "CANCELLING"):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeadlineExceededError(
                        f"{told} took more than {timeout:.3g} s: it is cancelled after "
                        f"about {0 if task == before else _moved(task)} letters; call it again to go on",
                        broker=self._session.broker,
                    )
                time.sleep(min(LOOK, left))
        except BaseException:
            with suppress(BridgeError):  # it may have ended just now; what ended the wait counts more
                self._call("cancel_message_move_task", TaskHandle=handle)
            raise
        if task["Status"] != "COMPLETED":
            raise make_error(
                ErrorCode.FAILED_PRECONDITION,
                f"{told} ended as {task['Status']} after about {_moved(task)} letters: "
                f"{task.get('FailureReason') or 'SQS does not say why'}; the others are still there",
                broker=self._session.broker,
            )
        return _moved(task)

    def _newest(self) -> dict[str, Any]:
        """The newest task of these letters; empty: there was none, or it is not to be seen yet."""
        tasks: list[dict[str, Any]] = self._call("list_message_move_tasks", SourceArn=self._source, MaxResults=1).get(
            "Results", []
        )
        return tasks[0] if tasks else {}

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        made: dict[str, Any] = self._session.call(self._doing, lambda _: getattr(self._sqs, operation)(**arguments))
        return made


def _moved(task: dict[str, Any]) -> int:
    return int(task.get("ApproximateNumberOfMessagesMoved", 0))
