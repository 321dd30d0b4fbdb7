"""Waiting for what another thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SOON = 10.0
"""Seconds that something may take on a busy machine."""


def until(true: Callable[[], Any]) -> None:
    """Wait for it, not for long."""
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)
