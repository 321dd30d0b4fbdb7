"""Durations as people write them."""

from __future__ import annotations

import math
import re

from cloudevents_bridge.errors import ConfigurationError

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)", re.ASCII)
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(value: object) -> float:
    """Seconds from a number of seconds or from text: "20", "500ms", "60s", "5m", "1h".

    Raises:
        ConfigurationError: if it is neither, negative or not finite; it names the value and the forms.
    """
    if isinstance(value, str) and (match := _FORM.fullmatch(value)):
        seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = _finite(value)
    else:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f'{value!r} is no duration: use seconds, or "500ms", "60s", "5m", "1h"')
    return seconds


def _finite(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
