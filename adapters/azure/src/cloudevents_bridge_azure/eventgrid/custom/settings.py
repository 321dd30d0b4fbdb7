"""What custom topics with queues cannot do, and what the queues are to be like. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_azure.servicebus.settings import MAX_DELIVERIES, MAX_LOCK, deliveries, lock

_TOPIC = frozenset({"name", "endpoint"})
_SUBSCRIPTION = frozenset({"queue", "filter"})


def check(place: Topic | Subscription | DeadLetters) -> None:
    """Raises:
    ConfigurationError: if it cannot be as declared, or a native setting is unknown.
    """
    if isinstance(place, Topic):
        _check(place_name(place), place.native, _TOPIC)
        return
    of = place.of if isinstance(place, DeadLetters) else place
    check(of.topic)
    name = place_name(of)
    _check(name, of.native, _SUBSCRIPTION)
    if of.lease > MAX_LOCK:
        raise ConfigurationError(
            f"the lease of {name} is {of.lease:g} seconds, and Service Bus has {MAX_LOCK:g} at most: declare a shorter "
            "one; a worker extends it while a handler runs"
        )
    if of.max_attempts >= MAX_DELIVERIES:
        raise ConfigurationError(f"max_attempts of {name} is {of.max_attempts}: declare less than {MAX_DELIVERIES}")


def queue(of: Subscription) -> dict[str, Any]:
    """The settings of the queue of a subscription, as the administration client has them."""
    return {
        "lock_duration": timedelta(seconds=lock(of)),
        "max_delivery_count": deliveries(of),
        "default_message_time_to_live": timedelta(seconds=of.retention),
        "dead_lettering_on_message_expiration": True,
    }


def _check(name: str, native: Mapping[str, Any], known: frozenset[str]) -> None:
    for key in native:
        if key not in known:
            raise ConfigurationError(
                f"{name} has the native setting {key!r}: on custom topics there are {', '.join(sorted(known))}"
            )
