"""From portable names to resources of Pub/Sub: `projects/P/topics/T` and `projects/P/subscriptions/S`.

Topic `orders`; subscription `orders--billing`; its dead letters, topic and subscription, `orders--billing--dlq`.
Portable names have no double hyphen, so that no two pairs collide. `native` in the declaration names others, also of
other projects.
"""

from __future__ import annotations

import re

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError

_ID = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_RESOURCE = re.compile(r"projects/[^/]+/(topics|subscriptions)/([^/]+)")
DELETED = "_deleted-topic_"
"""What a subscription names as its topic when that was deleted."""


def topic_name(project: str, of: Topic | DeadLetters) -> str:
    """The resource name of a topic, or of the topic that holds the dead letters of a subscription."""
    if isinstance(of, Topic):
        return _resource(project, "topics", of.native.get("name"), of.name)
    return _resource(project, "topics", of.of.native.get("dead_letter_topic"), _dead(project, of.of))


def subscription_name(project: str, of: Subscription | DeadLetters) -> str:
    """The resource name of a subscription, or of the one that its dead letters are read from."""
    if isinstance(of, Subscription):
        default = f"{short(topic_name(project, of.topic))}--{of.name}"
        return _resource(project, "subscriptions", of.native.get("name"), default)
    return _resource(project, "subscriptions", of.of.native.get("dead_letter_subscription"), _dead(project, of.of))


def short(resource: str) -> str:
    """The name without its project."""
    return resource.rpartition("/")[2]


def dead_letters_of(subscription: str) -> tuple[str, str]:
    """The topic and the subscription that hold the dead letters of a subscription, where it names no others."""
    dead = f"{subscription}--dlq"
    return dead.replace("/subscriptions/", "/topics/", 1), dead


def _dead(project: str, of: Subscription) -> str:
    return f"{short(subscription_name(project, of))}--dlq"


def _resource(project: str, kind: str, native: object, default: str) -> str:
    name = default if native is None else native
    if not isinstance(name, str):
        raise ConfigurationError(f"a native name is {name!r}: give a string, NAME or projects/PROJECT/{kind}/NAME")
    if "/" in name:
        match = _RESOURCE.fullmatch(name)
        if match is None or match[1] != kind:
            raise ConfigurationError(f"{name!r} is no resource name: write NAME or projects/PROJECT/{kind}/NAME")
        return name
    if not _ID.fullmatch(name) or name.startswith("goog"):
        raise ConfigurationError(
            f"{name!r} is no name that Pub/Sub takes: 3 to 255 letters, digits and -._~+%, a letter first, and not "
            "beginning with goog; choose another, or name the resource in the declaration's `native`"
        )
    return f"projects/{project}/{kind}/{name}"
