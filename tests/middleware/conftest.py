from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for what the tests of this directory share
sys.path.append(str(Path(__file__).parents[1] / "portable"))  # the scripted broker

from scripted import until

from cloudevents_bridge.middleware import renewing


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test starts ends with it."""
    monkeypatch.setattr(renewing, "LOOK", 0.02)
    before = set(threading.enumerate())
    yield
    until(lambda: not {thread for thread in threading.enumerate() if thread.name.startswith("ceb-")} - before)
