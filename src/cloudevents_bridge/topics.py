"""What a program declares of its topics, and how failed calls and failed runs are repeated."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from cloudevents_bridge.errors import ConfigurationError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def check_name(kind: str, name: object) -> str:
    """Return the name of a topic or subscription.

    Portable names are 3 to 34 characters `[a-z][a-z0-9]*(-[a-z0-9]+)*`: legal on every broker.

    Raises:
        ConfigurationError: if the name is not portable; it names `kind`, the name and the rule.
    """
    if not isinstance(name, str) or not 3 <= len(name) <= 34 or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{kind} name {name!r} is not portable: use 3 to 34 lower-case letters, digits and single hyphens, "
            "starting with a letter"
        )
    return name


def _check_number(what: str, value: object, *, least: float, above: bool = False) -> float:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or (value <= least if above else value < least):  # type: ignore[operator]
        raise ConfigurationError(
            f"{what} is {value!r}: it must be a number {'above' if above else 'of at least'} {least:g}"
        )
    return float(value)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter: the n-th delay is drawn from 0 to min(maximum, initial x factor^(n-1)).

    Attributes:
        attempts: tries in all, the first included; None: for ever.
        initial, maximum: seconds.
        factor: growth from one delay to the next, at least 1.

    Raises:
        ConfigurationError: if a value is out of its range.
    """

    attempts: int | None = 5
    initial: float = 0.2
    maximum: float = 20.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts is not None and (type(self.attempts) is not int or self.attempts < 1):
            raise ConfigurationError(
                f"retry attempts is {self.attempts!r}: it must be a whole number of at least 1, or None for ever"
            )
        _check_number("retry initial (seconds)", self.initial, least=0.0)
        _check_number("retry maximum (seconds)", self.maximum, least=0.0)
        _check_number("retry factor", self.factor, least=1.0)


DEFAULT_REDELIVERY = RetryPolicy(attempts=None, initial=1.0, maximum=300.0)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A named, durable feed of a topic, as the program needs it on any broker.

    Attributes:
        name: portable name.
        max_attempts: failed runs after which a delivery goes to the dead-letter place.
        lease: seconds the broker keeps a delivery from other consumers.
        redelivery: the delays after failed runs; its `attempts` does not count here.
        filter: CloudEvents SQL expression; needs `Capability.FILTER`.
        native: this broker's own settings.

    Raises:
        ConfigurationError: if a value is out of its range.
    """

    name: str
    max_attempts: int = field(default=5, kw_only=True)
    lease: float = field(default=60.0, kw_only=True)
    redelivery: RetryPolicy = field(default=DEFAULT_REDELIVERY, kw_only=True)
    filter: str | None = field(default=None, kw_only=True)
    native: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        check_name("subscription", self.name)
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise ConfigurationError(
                f"max_attempts of subscription {self.name} is {self.max_attempts!r}: "
                "it must be a whole number of at least 1"
            )
        _check_number(f"lease of subscription {self.name} (seconds)", self.lease, least=0.0, above=True)
        object.__setattr__(self, "native", dict(self.native))


@dataclass(frozen=True, slots=True)
class Topic:
    """A named place that events are published to, with the subscriptions the program needs.

    Attributes:
        name: portable name.
        subscriptions: `Subscription` values, or names for one with the defaults.
        ordered: events of one `partitionkey` are delivered in the order they were published; needs
            `Capability.ORDERING`.
        native: this broker's own settings.

    Raises:
        ConfigurationError: if a name is not portable or given twice.
    """

    name: str
    subscriptions: tuple[Subscription, ...]
    ordered: bool
    native: Mapping[str, Any]

    def __init__(
        self,
        name: str,
        *,
        subscriptions: Iterable[Subscription | str] = (),
        ordered: bool = False,
        native: Mapping[str, Any] = _EMPTY,
    ) -> None:
        set_ = object.__setattr__
        set_(self, "name", check_name("topic", name))
        if isinstance(subscriptions, str):
            raise ConfigurationError(f"subscriptions of topic {name} is a string: give a list, [{subscriptions!r}]")
        made = tuple(s if isinstance(s, Subscription) else Subscription(s) for s in subscriptions)
        names = [s.name for s in made]
        for each in names:
            if names.count(each) > 1:
                raise ConfigurationError(f"topic {name} declares subscription {each} twice")
        set_(self, "subscriptions", made)
        set_(self, "ordered", bool(ordered))
        set_(self, "native", dict(native))


class Change(NamedTuple):
    """One thing that `Topology.apply` does, or would do.

    Attributes:
        kind: "topic", "subscription" or "dead letters".
        name: TOPIC or TOPIC/SUBSCRIPTION.
        detail: the setting with what it is and what it shall be; for people.
    """

    action: Literal["create", "update", "delete"]
    kind: str
    name: str
    detail: str
