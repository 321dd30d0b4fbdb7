"""The order example on an emulator, by its URL alone."""

from __future__ import annotations

import pytest

from cloudevents_bridge_contract import order_example
from cloudevents_bridge_contract.emulators.ministack import ministack
from cloudevents_bridge_contract.emulators.venvs import NotInstalledError


def test_the_order_example_runs_by_its_url_alone() -> None:
    try:
        server = ministack()
    except NotInstalledError as missing:
        pytest.skip(f"not run: {missing}")
    with server:
        url = f"aws://eu-west-1?account=000000000000&endpoint=http://{server.address}"
        order_example.check(url, {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"})
