"""From portable names to those of Event Grid: topics of a namespace and their event subscriptions.

Topic `orders`; subscription `billing`; its dead letters are in the topic `orders--billing--dlq` and read from its
subscription `dlq`. A topic of Event Grid has 50 characters at most: a longer name is cut, and ends in a hash of all of
it. Portable names have no double hyphen, so that no two pairs collide. `native` in the declaration names others.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError

DLQ = "--dlq"
READER = "dlq"
"""The subscription that dead letters are read from."""
LONGEST = 50
_HASH = 10
_NAME = re.compile(r"[A-Za-z0-9-]{3,50}")


class Source(NamedTuple):
    """What is received from."""

    topic: str
    subscription: str


def topic_name(of: Topic | Subscription | DeadLetters) -> str:
    """The topic that is published to: for a subscription, its own; for dead letters, the one that holds them."""
    if isinstance(of, Topic):
        return _checked(of.native.get("name", of.name))
    if isinstance(of, Subscription):
        return topic_name(of.topic)
    named = of.of.native.get("dead_letter_topic")
    return _checked(_dead(of.of) if named is None else named)


def source(of: Subscription | DeadLetters) -> Source:
    """The topic and the event subscription that deliveries come from."""
    if isinstance(of, DeadLetters):
        return Source(topic_name(of), _checked(of.of.native.get("dead_letter_subscription", READER)))
    return Source(topic_name(of), _checked(of.native.get("name", of.name)))


def _dead(of: Subscription) -> str:
    live = source(of)
    return _cut(f"{live.topic}--{live.subscription}", LONGEST - len(DLQ)) + DLQ


def _cut(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
    return f"{name[: longest - _HASH - 1]}-{digest}"


def _checked(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name that Event Grid takes: 3 to 50 letters, digits and hyphens; choose another, or name "
            "the resource in the declaration's `native`"
        )
    return name
