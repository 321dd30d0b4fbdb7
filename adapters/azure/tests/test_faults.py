"""Connections that fail, and a broker that goes and comes back: nothing is lost, and nothing said that is not so."""

from __future__ import annotations

import uuid

import azure_storms
import pytest

from cloudevents_bridge import Topic, connect
from cloudevents_bridge_contract import storm
from cloudevents_bridge_contract.emulators.faults import FAULTS
from cloudevents_bridge_contract.emulators.servicebus.launcher import Missing, find, started


@pytest.fixture
def _servicebus() -> None:
    try:
        find()
    except Missing as missing:
        pytest.skip(f"not run: {missing}")


def test_nothing_is_lost_or_falsely_reported_by_event_grid_over_faults() -> None:
    outcome = azure_storms.on_eventgrid(3000, 7)
    _is_true(outcome, 3000)
    assert set(FAULTS) <= set(outcome.faults), "not every fault was tried"


@pytest.mark.usefixtures("_servicebus")
def test_nothing_is_lost_or_falsely_reported_by_service_bus_over_faults() -> None:
    outcome = azure_storms.on_servicebus(3000, 7)
    _is_true(outcome, 3000)
    assert {"cut", "held"} <= set(outcome.faults), "not every fault was tried"


@pytest.mark.usefixtures("_servicebus")
def test_nothing_is_lost_falsely_reported_or_overtaken_in_sessions_over_faults() -> None:
    outcome = azure_storms.on_sessions(1500, 7)
    _is_true(outcome, 1500)
    assert {"cut", "held"} <= set(outcome.faults), "not every fault was tried"


@pytest.mark.usefixtures("_servicebus")
def test_worker_resumes_when_the_broker_was_restarted() -> None:
    topic = Topic(f"restart-{uuid.uuid4().hex[:8]}", subscriptions=["reader"])
    with started() as running, connect(azure_storms.url(running, running.server.port), topics=[topic]) as broker:
        storm.resumes(topic, broker, running.server)


def _is_true(outcome: storm.Outcome, count: int) -> None:
    assert (outcome.lost, outcome.false, outcome.overtaken) == (0, 0, 0), outcome
    assert outcome.accepted + outcome.refused + outcome.unknown == count
    assert outcome.accepted > count / 4
