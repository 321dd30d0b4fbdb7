"""The emulator of Event Grid, once for each process of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloudevents_bridge_contract.emulators.eventgrid.launcher import Running, started


@pytest.fixture(scope="session")
def emulator() -> Iterator[Running]:
    with started() as running:
        running.make_topic("orders")
        running.make_subscription("orders", "billing")
        yield running
