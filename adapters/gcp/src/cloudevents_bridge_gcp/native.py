"""What a declaration says in Pub/Sub's own words: the keys of `native`, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_gcp.options import Manners

MAX_LEASE = 600
ATTEMPTS = (5, 100)
"""Deliveries after which Pub/Sub itself moves a message to the dead letters: at least and at most."""
_CRASHES = 3  # the portable layer gives a delivery up by itself after so many times max_attempts


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _are_labels(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, str) for pair in value.items() for each in pair)


def _are_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _is_retry(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {"minimum", "maximum"} and all(map(_is_seconds, value.values()))


_Checks = Mapping[str, tuple[Callable[[object], bool], str]]
_TOPIC: _Checks = {
    "name": (_is_text, "a name, or projects/PROJECT/topics/NAME"),
    "labels": (_are_labels, "a table of strings"),
    "kms_key": (_is_text, "the resource name of a key"),
    "retention": (_is_seconds, "a number of seconds"),
    "regions": (_are_texts, "a list of regions"),
    "schema": (_is_text, "projects/PROJECT/schemas/NAME"),
    "schema_encoding": (lambda value: value in ("JSON", "BINARY"), "JSON or BINARY"),
}
_SUBSCRIPTION: _Checks = {
    "name": (_is_text, "a name, or projects/PROJECT/subscriptions/NAME"),
    "dead_letter_topic": (_is_text, "a name, or projects/PROJECT/topics/NAME"),
    "dead_letter_subscription": (_is_text, "a name, or projects/PROJECT/subscriptions/NAME"),
    "labels": (_are_labels, "a table of strings"),
    "exactly_once": (_is_flag, "true or false"),
    "retain_acked": (_is_flag, "true or false"),
    "retry": (_is_retry, "a table with minimum and maximum, in seconds"),
    "filter": (_is_text, "a filter in Pub/Sub's own language"),
}


def check(place: Topic | Subscription | DeadLetters, manners: Manners) -> None:
    """Raises:
    ConfigurationError: if Pub/Sub cannot do what is declared, or a native setting is unknown or wrong.
    """
    if isinstance(place, Topic):
        _check(f"topic {place.name}", place.native, _TOPIC)
        return
    of = place.of if isinstance(place, DeadLetters) else place
    check(of.topic, manners)
    name = f"subscription {of.topic.name}/{of.name}"
    _check(name, of.native, _SUBSCRIPTION)
    if of.lease > MAX_LEASE:
        raise ConfigurationError(
            f"the lease of {name} is {of.lease:g} seconds, and Pub/Sub has {MAX_LEASE} at most: declare a shorter one; "
            "a worker extends it while a handler runs"
        )
    if of.max_attempts >= ATTEMPTS[1]:
        raise ConfigurationError(
            f"max_attempts of {name} is {of.max_attempts}, and Pub/Sub itself gives up after {ATTEMPTS[1]}: "
            "declare less"
        )
    if of.filter is not None and "filter" in of.native:
        raise ConfigurationError(f"{name} has a filter, and another one in `native`: leave one of them out")


def lease(of: Subscription, manners: Manners) -> int:
    """The ack deadline: whole seconds, not below the shortest that there is."""
    return max(manners.lease, -int(-of.lease // 1))


def deliveries(of: Subscription) -> int:
    """How often Pub/Sub delivers before it moves a message to the dead letters by itself: later than the portable
    layer does, which gives a reason.
    """
    return min(max(_CRASHES * of.max_attempts + 2, ATTEMPTS[0]), ATTEMPTS[1])


def retention(of: Subscription, manners: Manners) -> int:
    """Seconds that an event is kept: not above the longest that there is."""
    return min(int(of.retention), manners.retention)


def _check(name: str, native: Mapping[str, Any], known: _Checks) -> None:
    for key, value in native.items():
        if key not in known:
            raise ConfigurationError(
                f"{name} has the native setting {key!r}: on Pub/Sub there are {', '.join(sorted(known))}"
            )
        fine, what = known[key]
        if not fine(value):
            raise ConfigurationError(f"native setting {key} of {name} is {value!r}: it must be {what}")
