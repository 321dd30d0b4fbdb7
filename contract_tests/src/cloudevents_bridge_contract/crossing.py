"""Declarations on their way into another process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudevents_bridge import Subscription, Topic

_SUBSCRIPTION = ("name", "max_attempts", "lease", "redelivery", "filter")


def packed(topics: Iterable[Topic]) -> list[dict[str, Any]]:
    """Topics as values that pickle whatever their `native` mapping is made of."""
    return [
        {
            "name": topic.name,
            "ordered": topic.ordered,
            "native": dict(topic.native),
            "subscriptions": [
                {**{key: getattr(each, key) for key in _SUBSCRIPTION}, "native": dict(each.native)}
                for each in topic.subscriptions
            ],
        }
        for topic in topics
    ]


def unpacked(topics: Iterable[dict[str, Any]]) -> list[Topic]:
    """The topics again."""
    return [
        Topic(**{**topic, "subscriptions": [Subscription(**each) for each in topic["subscriptions"]]})
        for topic in topics
    ]
