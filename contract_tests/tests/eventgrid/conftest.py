"""The emulator of Event Grid, once for each process of tests."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent))  # for what the tests of this directory share

from eventgrid.running import QUICK

from cloudevents_bridge_contract.emulators.eventgrid.launcher import Running, started


@pytest.fixture(scope="session")
def emulator() -> Iterator[Running]:
    with started() as running:
        yield running


@pytest.fixture
def topic(emulator: Running) -> str:
    """A namespace topic of the test's own, with a quick subscription `billing`."""
    name = f"orders-{uuid.uuid4().hex[:8]}"
    emulator.make_topic(name)
    emulator.make_subscription(name, "billing", **QUICK)
    return name


@pytest.fixture
def name() -> str:
    return f"orders-{uuid.uuid4().hex[:8]}"
