"""Connections that fail, and a broker that goes and comes back: nothing is lost, and nothing said that is not so."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import faulty
import pytest

from cloudevents_bridge import Topic, connect
from cloudevents_bridge_contract import storm
from cloudevents_bridge_contract.emulators.faults import FAULTS
from cloudevents_bridge_contract.emulators.ministack import ministack
from cloudevents_bridge_contract.emulators.process import Server
from cloudevents_bridge_contract.emulators.venvs import NotInstalledError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    try:
        made = ministack()
    except NotInstalledError as missing:
        pytest.skip(f"not run: {missing}")
    with made as running:
        yield running


def test_nothing_is_lost_or_falsely_reported_over_faults(server: Server) -> None:
    outcome = faulty.run(server.port, 2000, seed=7)
    assert (outcome.lost, outcome.false) == (0, 0), outcome
    assert outcome.accepted + outcome.refused + outcome.unknown == 2000
    assert outcome.accepted > 1500
    assert set(FAULTS) <= set(outcome.faults), "not every fault was tried"


def test_worker_resumes_when_the_broker_was_restarted(server: Server) -> None:
    topic = Topic(f"restart-{uuid.uuid4().hex[:8]}", subscriptions=["reader"])
    with connect(f"{faulty.URL}{server.port}", topics=[topic], poll=1) as broker:
        storm.resumes(topic, broker, server)
