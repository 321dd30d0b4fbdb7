"""The settings of subscriptions, in the words of their ARM resources, checked and given defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudevents_bridge_contract.emulators.eventgrid.filters import Matches, compiled
from cloudevents_bridge_contract.emulators.eventgrid.problems import bad_request

NAME = re.compile(r"[A-Za-z0-9-]{3,50}\Z")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?\Z")
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class PullSettings:
    """A subscription of a namespace topic. Times are in seconds.

    Attributes:
        time_scale: what release delays are multiplied by; 1 on the service.
        container: the blob container of dead letters; empty: what is given up on is dropped.
    """

    lock: float
    max_count: int
    ttl: float
    time_scale: float
    container: str
    matches: Matches


@dataclass(frozen=True, slots=True)
class PushSettings:
    """A subscription of a custom topic. Times are in seconds.

    Attributes:
        time_scale: what the retry schedule is multiplied by; 1 on the service.
        kind: of the destination, `WebHook` or `ServiceBusQueue`.
        target: an URL, or the name of a queue.
        attributes: what is sent along, by name: a fixed value, or None and the field that it is taken from.
    """

    max_attempts: int
    ttl: float
    time_scale: float
    container: str
    matches: Matches
    kind: str
    target: str
    attributes: Mapping[str, tuple[str | None, str]]


def pull_settings(given: Mapping[str, Any], *, scale: float, strict: bool) -> PullSettings:
    """Args:
        scale: the time scale where none is given.
        strict: whether times below the service's minimum are refused.

    Raises:
        Problem: 400 where one is wrong.
    """
    _known(
        given,
        "receiveLockDurationInSeconds",
        "maxDeliveryCount",
        "eventTimeToLive",
        "filtersConfiguration",
        "deadLetterContainer",
        "timeScale",
    )
    return PullSettings(
        lock=_within(given, "receiveLockDurationInSeconds", 60, (60, 300), strict=strict),
        max_count=_whole(given, "maxDeliveryCount", 10, (1, 10)),
        ttl=_within(given, "eventTimeToLive", 7 * DAY, (60, 7 * DAY), strict=strict),
        time_scale=_within(given, "timeScale", scale, (1, 1), strict=strict),
        container=_string(given, "deadLetterContainer"),
        matches=compiled(_object(given, "filtersConfiguration")),
    )


def push_settings(given: Mapping[str, Any], *, scale: float, strict: bool) -> PushSettings:
    """As `pull_settings`."""
    _known(given, "destination", "filter", "retryPolicy", "deadLetterContainer", "timeScale")
    destination, retry = _object(given, "destination"), _object(given, "retryPolicy")
    kind = destination.get("endpointType")
    if kind not in ("WebHook", "ServiceBusQueue"):
        raise bad_request(f"The endpointType {kind} is neither WebHook nor ServiceBusQueue.")
    target = _string(destination, "endpointUrl" if kind == "WebHook" else "queue")
    if not target:
        raise bad_request(f"The destination {kind} has no {'endpointUrl' if kind == 'WebHook' else 'queue'}.")
    return PushSettings(
        max_attempts=_whole(retry, "maxDeliveryAttempts", 30, (1, 30)),
        ttl=60 * _within(retry, "eventTimeToLiveInMinutes", 1440, (1, 1440), strict=strict),
        time_scale=_within(given, "timeScale", scale, (1, 1), strict=strict),
        container=_string(given, "deadLetterContainer"),
        matches=compiled(_object(given, "filter")),
        kind=kind,
        target=target,
        attributes=dict(map(_attribute, destination.get("deliveryAttributeMappings") or [])),
    )


def seconds(value: Any) -> float:
    """A number of seconds, or a duration of ISO 8601 as ARM has them.

    Raises:
        Problem: 400 where it is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _DURATION.match(value) if isinstance(value, str) else None
    if found is None or not any(found.groups()):
        raise bad_request(f"{value!r} is neither a number of seconds nor a duration such as PT30S.")
    days, hours, minutes, rest = (float(each or 0) for each in found.groups())
    return days * DAY + hours * 3600 + minutes * 60 + rest


def check_name(name: str) -> None:
    if not NAME.match(name):
        raise bad_request(f"The name {name!r} is not of 3 to 50 letters, digits and hyphens.")


def _known(given: Mapping[str, Any], *names: str) -> None:
    if unknown := sorted(set(given) - set(names)):
        raise bad_request(f"Unknown settings: {', '.join(unknown)}; there are: {', '.join(names)}.")


def _object(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = given.get(name) or {}
    if not isinstance(value, dict):
        raise bad_request(f"{name} is no object.")
    return value


def _string(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name) or ""
    if not isinstance(value, str) or ".." in value.split("/"):
        raise bad_request(f"{name} is not right.")
    return value


def _whole(given: Mapping[str, Any], name: str, default: int, bounds: tuple[int, int]) -> int:
    value = given.get(name, default)
    if not isinstance(value, int) or not bounds[0] <= value <= bounds[1]:
        raise bad_request(f"{name} is a whole number from {bounds[0]} to {bounds[1]}.")
    return value


def _within(given: Mapping[str, Any], name: str, default: float, bounds: tuple[float, float], *, strict: bool) -> float:
    value = seconds(given.get(name, default))
    low, high = bounds
    if not (low if strict else 0) <= value <= high or (value <= 0):
        raise bad_request(f"{name} is from {low:g} to {high:g}.")
    return value


def _attribute(mapping: Any) -> tuple[str, tuple[str | None, str]]:
    match mapping:
        case {"name": str(name), "type": "Static", "value": str(value)}:
            return name, (value, "")
        case {"name": str(name), "type": "Dynamic", "sourceField": str(field)}:
            return name, (None, field)
    raise bad_request(f"The delivery attribute mapping {mapping!r} is neither Static with value nor Dynamic.")
