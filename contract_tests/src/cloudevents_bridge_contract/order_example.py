"""The order example on a broker, by its URL alone: the tests of each adapter run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType

PATIENCE = 110.0
"""Seconds that one run may take."""


def check(url: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Run it on a broker that has no topic `orders`, and then once more, which it refuses.

    Args:
        environment: set beside what this process has.

    Raises:
        AssertionError: if an order is not where it should be, or the second run begins.
    """
    command = [sys.executable, "-m", "cloudevents_bridge", "--url", url, "--json", "demo"]

    def run() -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **environment}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["complete"]
    assert told["published"] > 100
    assert [feed["dead_lettered"] for feed in told["subscriptions"].values()] == [0, 1, 0, 0]
    again = run()
    assert again.returncode != 0
    assert "topic orders is on" in again.stderr
