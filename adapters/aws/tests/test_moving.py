"""What becomes of a whole-queue move, on an account in memory. That SQS has one is tried on LocalStack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_aws import Aws, queue_arn, refusal

from cloudevents_bridge import BridgeError, Broker, Topic, connect
from cloudevents_bridge.errors import DeadlineExceededError, ErrorCode, InvalidArgumentError, UnsupportedError
from cloudevents_bridge_aws import moving
from cloudevents_bridge_aws.moving import move_dead_letters

ORDERS = Topic("orders", subscriptions=["billing"])


@pytest.fixture(autouse=True)
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "LOOK", 0.01)


@pytest.fixture
def broker(opened: Callable[..., Broker]) -> Broker:
    return opened(ORDERS)


def _asked(aws: Aws, operation: str) -> list[dict[str, Any]]:
    return [given for name, given in aws.asked if name == operation]


def test_it_waits_until_all_is_moved(aws: Aws, broker: Broker) -> None:
    aws.outcomes.extend([{}, {}, {"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 7}])
    assert move_dead_letters(broker, "orders", "billing", rate=50) == 7
    letters = queue_arn("orders--billing--dlq")
    there = {"SourceArn": letters, "DestinationArn": queue_arn("orders--billing"), "MaxNumberOfMessagesPerSecond": 50}
    assert _asked(aws, "StartMessageMoveTask") == [there]
    assert aws.calls["CancelMessageMoveTask"] == 0


def test_an_earlier_move_is_not_taken_for_this_one(aws: Aws, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.moves.append({"StartedTimestamp": 1, "Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 1})
    shown = Aws.list_message_move_tasks
    looks = 0

    def late(self: Aws, SourceArn: str, MaxResults: int) -> dict[str, Any]:
        nonlocal looks
        looks += 1
        if looks in (2, 3):  # the new one cannot be seen yet
            return {"Results": [self.moves[-1]]}
        return shown(self, SourceArn, MaxResults)

    monkeypatch.setattr(Aws, "list_message_move_tasks", late)
    aws.outcomes.extend([{}, {"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 7}])
    assert move_dead_letters(broker, "orders", "billing") == 7


def test_what_an_earlier_move_has_moved_is_not_said_of_this_one(
    aws: Aws, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.moves.append({"StartedTimestamp": 1, "Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 5})
    monkeypatch.setattr(Aws, "list_message_move_tasks", lambda self, **_: {"Results": [self.moves[-1]]})
    with pytest.raises(DeadlineExceededError, match="after about 0 letters"):
        move_dead_letters(broker, "orders", "billing", timeout=0.05)


def test_it_is_cancelled_when_it_is_interrupted(aws: Aws, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloudevents_bridge_aws.moving.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        move_dead_letters(broker, "orders", "billing")
    assert aws.calls["CancelMessageMoveTask"] == 1


def test_it_is_cancelled_when_its_time_is_over(aws: Aws, broker: Broker) -> None:
    aws.outcomes.append({"ApproximateNumberOfMessagesMoved": 3})
    with pytest.raises(DeadlineExceededError, match="cancelled after about 3 letters; call it again"):
        move_dead_letters(broker, "orders", "billing", timeout=0.1)
    [cancelled] = _asked(aws, "CancelMessageMoveTask")
    assert cancelled["TaskHandle"].startswith("task ")


def test_one_that_cannot_be_cancelled_any_more_is_late_all_the_same(aws: Aws, broker: Broker) -> None:
    aws.fail["CancelMessageMoveTask"] = refusal("ResourceNotFoundException", "CancelMessageMoveTask")
    with pytest.raises(DeadlineExceededError, match="after about 0 letters"):
        move_dead_letters(broker, "orders", "billing", timeout=0.05)


def test_what_failed_says_why(aws: Aws, broker: Broker) -> None:
    aws.outcomes.append({"Status": "FAILED", "FailureReason": "AccessDenied", "ApproximateNumberOfMessagesMoved": 2})
    with pytest.raises(BridgeError, match="ended as FAILED after about 2 letters: AccessDenied; the others") as caught:
        move_dead_letters(broker, "orders", "billing")
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION


@pytest.mark.parametrize("rate", [0, 501, 1.5])
def test_a_rate_that_sqs_does_not_take(broker: Broker, rate: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="1 to 500 letters per second"):
        move_dead_letters(broker, "orders", "billing", rate=rate)


def test_another_broker_has_none() -> None:
    with connect("memory://") as broker, pytest.raises(UnsupportedError, match="is not SQS: use"):
        move_dead_letters(broker, "orders", "billing")
