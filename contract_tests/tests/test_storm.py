"""The storm sees what it is there for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cloudevents_bridge import Broker, CloudEvent, PublishError, Receipt, Subscription, Topic, connect
from cloudevents_bridge.errors import BridgeError, ErrorCode, make_error
from cloudevents_bridge_contract import storm

TOPIC = Topic("orders", ordered=True, subscriptions=[Subscription("reader", lease=1.0)])
Publish = Callable[[Broker, Sequence[CloudEvent]], list[Receipt]]


class _Lying:
    """A broker that publishes in a way of its own."""

    def __init__(self, broker: Broker, publish: Publish) -> None:
        self._broker, self._publish = broker, publish

    def publish_many(self, topic: str, events: Sequence[CloudEvent]) -> list[Receipt]:
        return self._publish(self._broker, events)

    def worker(self) -> Any:
        return self._broker.worker()


def _honest(broker: Broker, events: Sequence[CloudEvent]) -> list[Receipt]:
    return broker.publish_many("orders", events)


def _loses(broker: Broker, events: Sequence[CloudEvent]) -> list[Receipt]:
    broker.publish_many("orders", events[1:])
    return [Receipt(event.id, "", None) for event in events]


def _refuses_what_it_sent(broker: Broker, events: Sequence[CloudEvent]) -> list[Receipt]:
    broker.publish_many("orders", events)
    error = make_error(ErrorCode.UNAVAILABLE, "it was not sent")
    outcomes: list[Receipt | BridgeError] = [error for _ in events]
    raise PublishError("none was accepted", outcomes=outcomes, failed=[(event, error) for event in events])


def _overtakes(broker: Broker, events: Sequence[CloudEvent]) -> list[Receipt]:
    return broker.publish_many("orders", events[::-1])[::-1]


def _twice(broker: Broker, events: Sequence[CloudEvent]) -> list[Receipt]:
    broker.publish_many("orders", events)
    return broker.publish_many("orders", events)


@pytest.mark.parametrize(
    ("publish", "lost", "false", "overtaken", "duplicates"),
    [
        (_honest, 0, 0, 0, 0),
        (_loses, 2, 0, 0, 0),
        (_refuses_what_it_sent, 0, 20, 0, 0),
        (_overtakes, 0, 0, 16, 0),  # of two parts, with two keys, all but the last of each
        (_twice, 0, 0, 0, 20),
    ],
)
def test_it_counts(publish: Publish, lost: int, false: int, overtaken: int, duplicates: int) -> None:
    with connect("memory://", topics=[TOPIC]) as broker:
        broker.topology.apply()
        lying: Any = _Lying(broker, publish)
        outcome = storm.run(TOPIC, lying, lying, 20, seed=1, faults=Counter(), part=10, keys=2, deadline=5.0)
    assert (outcome.lost, outcome.false, outcome.overtaken, outcome.duplicates) == (lost, false, overtaken, duplicates)
