"""Connections that fail, and a broker that goes and comes back: nothing is lost, and nothing said that is not so."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import faulty
import pytest

from cloudevents_bridge import BridgeError, CloudEvent, Topic, Worker, connect
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
    """MiniStack forgets everything: the topology is applied again, beside the worker that waits."""
    topic = Topic(f"restart-{uuid.uuid4().hex[:8]}", subscriptions=["reader"])
    seen: list[str] = []

    def until(wanted: str) -> None:
        deadline = time.monotonic() + 60
        while wanted not in seen:
            assert time.monotonic() < deadline, f"{wanted} was not handled"
            time.sleep(0.05)

    def noticed(worker: Worker, *, connected: bool) -> None:
        deadline = time.monotonic() + 30
        while worker.stats.connected != connected:
            assert time.monotonic() < deadline, "nobody noticed"
            time.sleep(0.05)

    with connect(f"{faulty.URL}{server.port}", topics=[topic], poll=1) as broker:
        broker.topology.apply()
        with broker.worker().add(topic.name, "reader", lambda event: seen.append(event.id)) as worker:
            broker.publish(topic.name, CloudEvent(type="t", source="/s", id="before"))
            until("before")
            server.stop()
            noticed(worker, connected=False)
            with pytest.raises(BridgeError, match="reached"):
                broker.publish(topic.name, CloudEvent(type="t", source="/s", id="meanwhile"), timeout=0.5)
            server.restart()
            broker.topology.apply()
            broker.publish(topic.name, CloudEvent(type="t", source="/s", id="after"))
            until("after")
            noticed(worker, connected=True)
    assert seen == ["before", "after"]
