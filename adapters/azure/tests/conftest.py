"""The emulator of Event Grid, once for each process of tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudevents_bridge_contract.emulators.eventgrid.launcher import Running, started

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def emulator() -> Iterator[Running]:
    with started() as running:
        running.make_topic("orders")
        running.make_subscription("orders", "billing")
        yield running
