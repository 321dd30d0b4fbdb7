"""The settings that a declaration gives for Azure alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cloudevents_bridge.errors import ConfigurationError

Checks = Mapping[str, tuple[Callable[[object], bool], str]]
"""By the setting's name: whether a value will do, and what it must be, as an error says it."""


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def check(service: str, name: str, native: Mapping[str, Any], known: Checks) -> None:
    """Raises:
    ConfigurationError: if a setting is unknown or wrong.
    """
    for key, value in native.items():
        if key not in known:
            raise ConfigurationError(
                f"{name} has the native setting {key!r}: on {service} there are {', '.join(sorted(known))}"
            )
        fine, what = known[key]
        if not fine(value):
            raise ConfigurationError(f"native setting {key} of {name} is {value!r}: it must be {what}")
