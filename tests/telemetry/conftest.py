from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for what the tests of this directory share
sys.path.append(str(Path(__file__).parents[1] / "portable"))  # the scripted broker

from recorded import Recorded
from scripted import until

from cloudevents_bridge import Broker, RetryPolicy, Subscription, Topic, connect

REDELIVERY = RetryPolicy(attempts=None, initial=0.0, maximum=0.0)
TOPICS = [
    Topic("orders", subscriptions=[Subscription("billing", redelivery=REDELIVERY), "shipping"]),
    Topic("invoices", subscriptions=["mail"]),
]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Whatever a test starts ends with it."""
    before = set(threading.enumerate())
    yield
    until(lambda: not {thread for thread in threading.enumerate() if thread.name.startswith("ceb-")} - before)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """What connections that are opened from now on tell."""
    recorded = Recorded(monkeypatch)
    yield recorded
    recorded.shutdown()


@pytest.fixture
def broker(recorded: Recorded) -> Iterator[Broker]:
    with connect("memory://", topics=TOPICS, create_missing=True) as broker:
        yield broker
