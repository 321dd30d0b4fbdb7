"""The order example on an emulator, by its URL alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cloudevents_bridge_contract.emulators.ministack import ministack
from cloudevents_bridge_contract.emulators.venvs import NotInstalledError


def test_the_order_example_runs_by_its_url_alone() -> None:
    try:
        server = ministack()
    except NotInstalledError as missing:
        pytest.skip(f"not run: {missing}")
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with server:
        url = f"aws://eu-west-1?account=000000000000&endpoint=http://{server.address}"
        command = [sys.executable, "-m", "cloudevents_bridge", "--url", url, "--json", "demo"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["complete"]
        assert told["published"] > 100
        assert [feed["dead_lettered"] for feed in told["subscriptions"].values()] == [0, 1, 0, 0]
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
        assert again.returncode != 0
        assert "topic orders is on" in again.stderr
