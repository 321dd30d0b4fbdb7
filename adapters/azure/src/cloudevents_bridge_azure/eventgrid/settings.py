"""What subscriptions are to be like, in the words of their ARM resources, and what Event Grid cannot do. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_azure import native

MOST_DELIVERIES = 10
"""Deliveries after which Event Grid itself gives up, at most: later than the portable layer does, which keeps what it
gives up on."""
LEASE = (60, 300)
"""Seconds of a lock, at least and at most."""
RETENTION = (60, 7 * 86_400)
"""Seconds that an event is kept, at least and at most."""


_TOPIC: native.Checks = {"name": (native.is_text, "the name of a namespace topic")}
_SUBSCRIPTION: native.Checks = {
    "name": (native.is_text, "the name of an event subscription"),
    "dead_letter_topic": (native.is_text, "the name of a namespace topic"),
    "dead_letter_subscription": (native.is_text, "the name of an event subscription"),
    "filters": (lambda value: isinstance(value, Mapping), "a table, the filtersConfiguration of the ARM resource"),
}


def check(place: Topic | Subscription | DeadLetters) -> None:
    """Raises:
    ConfigurationError: if Event Grid cannot do what is declared, or a native setting is unknown or wrong.
    """
    if isinstance(place, Topic):
        native.check("Event Grid", place_name(place), place.native, _TOPIC)
        return
    of = place.of if isinstance(place, DeadLetters) else place
    check(of.topic)
    name = place_name(of)
    native.check("Event Grid", name, of.native, _SUBSCRIPTION)
    if of.lease > LEASE[1]:
        raise ConfigurationError(
            f"the lease of {name} is {of.lease:g} seconds, and Event Grid has {LEASE[1]} at most: declare a shorter "
            "one; a worker extends it while a handler runs"
        )
    if of.max_attempts >= MOST_DELIVERIES:
        raise ConfigurationError(
            f"max_attempts of {name} is {of.max_attempts}, and Event Grid itself gives up after {MOST_DELIVERIES}: "
            "declare less"
        )


def lease(of: Subscription, *, local: bool) -> int:
    """The lock duration: whole seconds, not below the shortest that there is. `local`: an emulator has shorter ones."""
    return max(1 if local else LEASE[0], math.ceil(of.lease))


def retention(of: Subscription) -> int:
    """Seconds that an event is kept: not above the longest that there is."""
    return min(max(math.ceil(of.retention), RETENTION[0]), RETENTION[1])


def queue(of: Subscription, *, local: bool) -> dict[str, Any]:
    """The `queue` of a subscription's delivery configuration."""
    return {
        "receiveLockDurationInSeconds": lease(of, local=local),
        "maxDeliveryCount": MOST_DELIVERIES,
        "eventTimeToLive": f"PT{retention(of)}S" if retention(of) % 86_400 else f"P{retention(of) // 86_400}D",
    }
