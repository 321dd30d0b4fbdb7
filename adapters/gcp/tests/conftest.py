"""Google's emulator, once for each process of tests."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # for what the tests of this directory share

from pubsub_running import Running

from cloudevents_bridge import Broker, Topic, connect
from cloudevents_bridge_contract.emulators import pubsub
from cloudevents_bridge_contract.emulators.proxy import Proxy


@pytest.fixture(scope="session")
def found() -> pubsub.Emulator:
    try:
        return pubsub.find()
    except pubsub.Missing as missing:
        pytest.skip(f"not run: {missing}")


@pytest.fixture(scope="session")
def emulator(found: pubsub.Emulator) -> Iterator[Running]:
    with found.started() as server, Proxy(server.port) as proxy:
        yield Running(server, proxy)


@pytest.fixture
def name() -> str:
    """A portable name that no other test has."""
    return f"orders-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def opened(emulator: Running) -> Iterator[Callable[..., Broker]]:
    """Connects to the emulator; the declared topics are made, and removed in the end."""
    with ExitStack() as stack:

        def open_one(*topics: Topic, make: bool = True, **options: Any) -> Broker:
            broker = stack.enter_context(connect(emulator.url, topics=topics, **options))
            if make and topics:
                stack.callback(broker.topology.delete)
                broker.topology.apply()
            return broker

        yield open_one
