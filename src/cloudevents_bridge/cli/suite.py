"""What the distribution cloudevents-bridge-contract brings to the command line, where it is installed."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from cloudevents_bridge.errors import ConfigurationError

_PACKAGE = "cloudevents_bridge_contract"


def load(module: str, what: str) -> Any:
    """A module of the distribution, by its name there.

    Args:
        what: what is missing without it, as an error says it.

    Raises:
        ConfigurationError: if it is not installed.
    """
    try:
        return import_module(f"{_PACKAGE}.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != _PACKAGE:
            raise
        raise ConfigurationError(
            f"{what} not installed here ({sys.executable}): pip install cloudevents-bridge-contract"
        ) from error
