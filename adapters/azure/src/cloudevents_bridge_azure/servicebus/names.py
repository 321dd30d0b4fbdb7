"""From portable names to entities of Service Bus: topic `orders`, its subscription `billing`, a queue.

`native` in the declaration names others.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError

_TOPIC = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,258}[A-Za-z0-9])?")
_SUBSCRIPTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,48}[A-Za-z0-9])?")


class Entity(NamedTuple):
    """What messages are sent to, or received from.

    Attributes:
        name: of a topic, or of a queue.
        subscription: of the topic; None: it is a queue, or a topic to send to.
        dead: its dead-letter queue.
    """

    name: str
    subscription: str | None = None
    dead: bool = False

    @property
    def path(self) -> str:
        """As the service writes it."""
        whole = self.name if self.subscription is None else f"{self.name}/Subscriptions/{self.subscription}"
        return f"{whole}/$DeadLetterQueue" if self.dead else whole


def topic_name(of: Topic) -> str:
    return _checked(of.native.get("name", of.name), _TOPIC, "a topic")


def subscription_name(of: Subscription) -> str:
    return _checked(of.native.get("name", of.name), _SUBSCRIPTION, "a subscription")


def entity(of: Topic | Subscription | DeadLetters) -> Entity:
    """The entity of a place.

    Raises:
        ConfigurationError: if its name is none that Service Bus takes.
    """
    if isinstance(of, Topic):
        return Entity(topic_name(of))
    subscription = of.of if isinstance(of, DeadLetters) else of
    return Entity(topic_name(subscription.topic), subscription_name(subscription), isinstance(of, DeadLetters))


def _checked(name: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(name, str) or not form.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name of {what} that Service Bus takes: letters, digits and . - _, beginning and ending "
            "with a letter or digit; choose another, or name the entity in the declaration's `native`"
        )
    return name
