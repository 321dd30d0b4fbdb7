"""The order example on the emulator of Service Bus, by its URL alone."""

from __future__ import annotations

import pytest

from cloudevents_bridge_contract import order_example
from cloudevents_bridge_contract.emulators.servicebus.launcher import Missing, find, started


def test_the_order_example_runs_by_its_url_alone() -> None:
    try:
        find()
    except Missing as missing:
        pytest.skip(f"not run: {missing}")
    with started() as emulator:
        places = f"endpoint=amqp://{emulator.server.address}&administration={emulator.administration}"
        order_example.check(f"azure-servicebus://shop?{places}")
