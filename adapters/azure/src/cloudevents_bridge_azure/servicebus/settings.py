"""What is declared, in Service Bus's own settings, and how it differs from what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_azure import native
from cloudevents_bridge_azure.servicebus import filters
from cloudevents_bridge_azure.servicebus.names import entity

MAX_LOCK = 300.0
"""Seconds: the longest lock. A longer lease is had by renewing."""
MAX_DELIVERIES = 2000
MAX_WINDOW = 604_800.0
SHORTEST_IDLE = 300.0
"""Seconds: the shortest `AutoDeleteOnIdle`."""
_CRASHES = 3  # the portable layer gives a delivery up by itself after so many times max_attempts
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")

Settings = Mapping[str, Any]


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_window(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MAX_WINDOW


def _is_megabytes(value: object) -> bool:
    return type(value) is int and value > 0


_TOPIC: native.Checks = {
    "name": (native.is_text, "a name"),
    "deduplication": (_is_window, f"a number of seconds, {MAX_WINDOW:g} at most"),
    "partitioned": (_is_flag, "true or false"),
    "megabytes": (_is_megabytes, "a number of megabytes"),
}
_SUBSCRIPTION: native.Checks = {
    "name": (native.is_text, "a name"),
    "filter": (native.is_text, "a filter in Service Bus's own SQL"),
}


def check(place: Topic | Subscription | DeadLetters) -> None:
    """Raises:
    ConfigurationError: if Service Bus cannot do what is declared, or a native setting is unknown or wrong.
    """
    entity(place)
    if isinstance(place, Topic):
        native.check("Service Bus", f"topic {place.name}", place.native, _TOPIC)
        return
    of = place.of if isinstance(place, DeadLetters) else place
    check(of.topic)
    name = f"subscription {of.topic.name}/{of.name}"
    native.check("Service Bus", name, of.native, _SUBSCRIPTION)
    if of.lease > MAX_LOCK:
        raise ConfigurationError(
            f"the lease of {name} is {of.lease:g} seconds, and Service Bus has {MAX_LOCK:g} at most: declare a shorter "
            "one; a worker extends it while a handler runs"
        )
    if of.max_attempts >= MAX_DELIVERIES:
        raise ConfigurationError(
            f"max_attempts of {name} is {of.max_attempts}, and Service Bus itself gives up after {MAX_DELIVERIES}: "
            "declare less"
        )
    if of.filter is not None and "filter" in of.native:
        raise ConfigurationError(f"{name} has a filter, and another one in `native`: leave one of them out")


def lock(of: Subscription) -> float:
    """Seconds for which a message, or a session, is locked."""
    return of.lease


def deliveries(of: Subscription) -> int:
    """How often Service Bus delivers before it dead-letters by itself: later than the portable layer does."""
    return min(_CRASHES * of.max_attempts + 2, MAX_DELIVERIES)


def window(of: Topic) -> float:
    """Seconds within which a second message of the same id is dropped; 0: it is not."""
    return float(of.native.get("deduplication", 0.0))


def topic(of: Topic) -> Settings:
    """The settings of a topic that is to be made, as the SDK names them."""
    made: dict[str, Any] = {"support_ordering": of.ordered}
    if window(of):
        made["requires_duplicate_detection"] = True
        made["duplicate_detection_history_time_window"] = timedelta(seconds=window(of))
    if "partitioned" in of.native:
        made["enable_partitioning"] = of.native["partitioned"]
    if "megabytes" in of.native:
        made["max_size_in_megabytes"] = of.native["megabytes"]
    return made


def subscription(of: Subscription) -> Settings:
    """The settings of a subscription that is to be made, as the SDK names them."""
    made: dict[str, Any] = {
        "lock_duration": timedelta(seconds=lock(of)),
        "requires_session": of.topic.ordered,
        "default_message_time_to_live": timedelta(seconds=of.retention),
        "max_delivery_count": deliveries(of),
        "dead_lettering_on_message_expiration": True,
        "dead_lettering_on_filter_evaluation_exceptions": True,
    }
    if of.expires is not None:
        made["auto_delete_on_idle"] = timedelta(seconds=max(of.expires, SHORTEST_IDLE))
    return made


def rule(of: Subscription, mode: str) -> str | None:
    """The SQL of its one rule; None: it takes everything.

    Raises:
        UnsupportedError: if Service Bus cannot filter like that.
    """
    own: str | None = of.native.get("filter")
    return own if own is not None else filters.translate(of, mode)


class Setting(NamedTuple):
    """One thing to compare. `fixed`: it cannot be changed. `name`: as it is shown."""

    attribute: str
    name: str
    fixed: bool = False


_SETTINGS = {
    each.attribute: each
    for each in (
        Setting("requires_duplicate_detection", "deduplication", fixed=True),
        Setting("duplicate_detection_history_time_window", "deduplication_window"),
        Setting("enable_partitioning", "partitioned", fixed=True),
        Setting("max_size_in_megabytes", "megabytes"),
        Setting("support_ordering", "ordered"),
        Setting("lock_duration", "lease"),
        Setting("requires_session", "ordered", fixed=True),
        Setting("default_message_time_to_live", "retention"),
        Setting("max_delivery_count", "max_attempts"),
        Setting("dead_lettering_on_message_expiration", "expired_to_dead_letters"),
        Setting("dead_lettering_on_filter_evaluation_exceptions", "unfiltered_to_dead_letters"),
        Setting("auto_delete_on_idle", "expires"),
    )
}


def differences(place: Topic | Subscription, have: Any, want: Settings) -> Iterator[Change]:
    """What differs between a topic or subscription and the one that is wanted."""
    for attribute, value in want.items():
        setting = _SETTINGS[attribute]
        there = getattr(have, attribute)
        if _plain(there) != _plain(value):
            yield Change(place, setting.name, show(there), show(value), conflict=setting.fixed)


def change(have: Any, want: Settings) -> None:
    """Make the description as wanted, in all that can be changed."""
    for attribute, value in want.items():
        if not _SETTINGS[attribute].fixed:
            setattr(have, attribute, value)


def show(value: Any) -> str:
    plain = _plain(value)
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return f"{plain:g} s" if isinstance(plain, float) else str(plain)


def _plain(value: Any) -> Any:
    """A value to compare: a duration in seconds."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    days, hours, minutes, seconds = (float(each or 0) for each in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
