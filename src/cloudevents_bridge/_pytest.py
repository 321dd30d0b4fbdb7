"""The pytest plugin: fixtures that load nothing until a test asks for them. What they give is in `testing`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cloudevents_bridge.broker import Broker
    from cloudevents_bridge.testing import FakeBroker


@pytest.fixture
def ceb_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    """A `FakeBroker` that the application's own `connect()` lands on."""
    from cloudevents_bridge.testing import FakeBroker

    with FakeBroker() as fake:
        monkeypatch.setenv("CLOUDEVENTS_BRIDGE_URL", fake.url)
        yield fake


@pytest.fixture
def ceb_sqlite(tmp_path: Path) -> Iterator[Broker]:
    """A durable broker in a file of the test's own, which creates what is missing."""
    from urllib.parse import quote

    from cloudevents_bridge import connect

    with connect(f"sqlite:///{quote(tmp_path.as_posix())}/events.db", create_missing=True) as broker:
        yield broker
