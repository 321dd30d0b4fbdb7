"""What custom topics with queues cannot do, and what the queues are to be like. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_azure import native
from cloudevents_bridge_azure.servicebus.settings import MAX_DELIVERIES, MAX_LOCK, deliveries, lock

_SERVICE = "custom topics of Event Grid"
_CONTAINER = re.compile(r"[a-z0-9]{3,24}/[a-z0-9](-?[a-z0-9]){2,62}")


def _is_container(value: object) -> bool:
    return isinstance(value, str) and _CONTAINER.fullmatch(value) is not None


def _is_filter(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(each, Mapping) and native.is_text(each.get("key")) and native.is_text(each.get("operatorType"))
        for each in value.get("advancedFilters", ())
    )


_TOPIC: native.Checks = {
    "name": (native.is_text, "the name of a custom topic"),
    "endpoint": (native.is_text, "an address, https://TOPIC.HOST/api/events"),
}
_SUBSCRIPTION: native.Checks = {
    "queue": (native.is_text, "the name of a queue"),
    "filter": (_is_filter, "a table, the filter of the ARM resource"),
    "dead_letter_container": (_is_container, "STORAGE-ACCOUNT/CONTAINER, where blobs are kept"),
}


class Container(NamedTuple):
    """Where Event Grid puts what it cannot deliver to a queue: a blob container."""

    account: str
    name: str


def check(place: Topic | Subscription | DeadLetters) -> None:
    """Raises:
    ConfigurationError: if it cannot be as declared, or a native setting is unknown.
    """
    if isinstance(place, Topic):
        native.check(_SERVICE, place_name(place), place.native, _TOPIC)
        return
    of = place.of if isinstance(place, DeadLetters) else place
    check(of.topic)
    name = place_name(of)
    native.check(_SERVICE, name, of.native, _SUBSCRIPTION)
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


def container(of: Subscription) -> Container | None:
    """The one of a subscription; None: what cannot be delivered is dropped in the end."""
    named: str | None = of.native.get("dead_letter_container")
    return None if named is None else Container(*named.split("/"))
