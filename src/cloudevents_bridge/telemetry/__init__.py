"""Whether there is telemetry. What it does is beside this file, and is imported when there is some, never otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudevents_bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from cloudevents_bridge.telemetry.otel import Telemetry


def open_telemetry(wanted: bool | None, system: str) -> Telemetry | None:
    """The telemetry of a connection; None: there is none, and nothing of OpenTelemetry is imported.

    Args:
        wanted: None: if opentelemetry-api is there.
        system: what the conventions call the broker.

    Raises:
        ConfigurationError: if it is wanted and not there.
    """
    if wanted is False or not (_there() or wanted):
        return None
    try:
        from cloudevents_bridge.telemetry.otel import Telemetry
    except ImportError as error:
        raise ConfigurationError(
            "telemetry is wanted, and opentelemetry-api is not installed: pip install 'cloudevents-bridge[otel]', or "
            "leave telemetry out"
        ) from error
    return Telemetry(system)


def _there() -> bool:
    from importlib.util import find_spec

    try:
        return find_spec("opentelemetry.trace") is not None and find_spec("opentelemetry.metrics") is not None
    except (ImportError, ValueError):  # nothing of that name, or a module that was put there by hand
        return False
