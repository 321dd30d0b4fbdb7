"""From portable names to endpoints of custom topics and to queues of Service Bus.

Topic `orders` at `https://orders.HOST/api/events`; the queue of its subscription `billing` is `orders--billing`, with
its own dead-letter queue. The name of a custom topic is taken by the first in its region who has it: `native` names
another, or a whole endpoint.
"""

from __future__ import annotations

import re

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_azure.eventgrid.options import Options
from cloudevents_bridge_azure.servicebus.names import Entity

_TOPIC = re.compile(r"[A-Za-z0-9-]{3,50}")
_ENDPOINT = re.compile(r"https?://[^/?#@\s]+/[^?#@\s]*")
_QUEUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,258}[A-Za-z0-9])?")


def topic_name(of: Topic) -> str:
    """The name of the custom topic."""
    name = of.native.get("name", of.name)
    if not isinstance(name, str) or not _TOPIC.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name that Event Grid takes: 3 to 50 letters, digits and hyphens; name another in the "
            "declaration's `native`"
        )
    return name


def endpoint(of: Topic, options: Options) -> str:
    """Where the events of a topic are posted to."""
    named = of.native.get("endpoint")
    if named is not None:
        if not isinstance(named, str) or not _ENDPOINT.fullmatch(named):
            raise ConfigurationError(
                f"native setting endpoint of topic {of.name} is {named!r}: write https://TOPIC.HOST/api/events"
            )
        return named
    if options.endpoint:
        return f"{options.endpoint}/{topic_name(of)}/api/events"
    return f"https://{topic_name(of)}.{options.host}/api/events"


def queue_name(of: Subscription) -> str:
    """The queue of a subscription."""
    name = of.native.get("queue", f"{topic_name(of.topic)}--{of.name}")
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise ConfigurationError(f"{name!r} is no name of a queue of Service Bus: name another in `native`")
    return name


def queue(of: Subscription | DeadLetters) -> Entity:
    """The queue that is received from."""
    dead = isinstance(of, DeadLetters)
    return Entity(queue_name(of.of if isinstance(of, DeadLetters) else of), None, dead)
