"""Where a broker's address and settings come from: arguments, environment, `bridge.toml`."""

from __future__ import annotations

from cloudevents_bridge.config.durations import parse_duration
from cloudevents_bridge.config.settings import Settings, load, profiles
from cloudevents_bridge.config.urls import parse_url

__all__ = ["Settings", "load", "parse_duration", "parse_url", "profiles"]
