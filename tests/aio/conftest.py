from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # for what the tests of this directory share
sys.path.append(str(Path(__file__).parents[1] / "portable"))  # the scripted broker

from scripted import Scripted, until

from cloudevents_bridge import RetryPolicy
from cloudevents_bridge.aio import AsyncBroker, connect

FAST = RetryPolicy(initial=0.0, maximum=0.0)
Opened = Callable[..., AsyncBroker]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test starts ends with it."""
    monkeypatch.setattr("cloudevents_bridge.aio.threads.IDLE", 0.1)
    before = set(threading.enumerate())
    yield
    until(lambda: not {thread for thread in threading.enumerate() if thread.name.startswith("ceb-")} - before)


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def opened(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Connects to the scripted broker; every connection is closed in the end."""
    monkeypatch.setattr("cloudevents_bridge.broker.load_adapter", lambda scheme: scripted)
    brokers: list[AsyncBroker] = []

    def open_one(**options: Any) -> AsyncBroker:
        broker = connect("scripted://here", **{"retry": FAST, "timeout": 5.0, **options})
        brokers.append(broker)
        return broker

    yield open_one
    for broker in brokers:
        broker.sync.close(timeout=5.0)


@pytest.fixture
def broker(opened: Opened) -> AsyncBroker:
    return opened()
