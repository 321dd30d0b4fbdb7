"""The order example on the emulator of Service Bus, by its URL alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cloudevents_bridge_contract.emulators.servicebus.launcher import Missing, started


def test_the_order_example_runs_by_its_url_alone() -> None:
    try:
        running = started()
        with running as emulator:
            url = f"azure-servicebus://shop?endpoint=amqp://{emulator.server.address}&administration={emulator.administration}"
            command = [sys.executable, "-m", "cloudevents_bridge", "--url", url, "--json", "demo"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
            assert told["complete"]
            assert told["published"] > 100
            assert [feed["dead_lettered"] for feed in told["subscriptions"].values()] == [0, 1, 0, 0]
            again = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
            assert again.returncode != 0
            assert "topic orders is on" in again.stderr
    except Missing as missing:
        pytest.skip(f"not run: {missing}")
