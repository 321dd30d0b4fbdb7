from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # for what the tests of this directory share

from scripted import Scripted, until

from cloudevents_bridge import Broker, RetryPolicy, connect

FAST = RetryPolicy(initial=0.0, maximum=0.0)
Opened = Callable[..., Broker]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Whatever a test starts ends with it."""
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
    brokers: list[Broker] = []

    def open_one(**options: Any) -> Broker:
        broker = connect("scripted://here", **{"retry": FAST, "timeout": 5.0, **options})
        brokers.append(broker)
        return broker

    yield open_one
    for broker in brokers:
        broker.close(timeout=5.0)


@pytest.fixture
def broker(opened: Opened) -> Broker:
    return opened()
