"""How long each type takes: told to a function, or added up in the log; with a bound on what is told apart."""

from __future__ import annotations

import logging
import time

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge.middleware import timing
from cloudevents_bridge.router import Action, Middleware
from cloudevents_bridge.testing import make_event

Told = list[tuple[str, float, Action]]


def handle(middleware: Middleware, *types: str) -> None:
    router = ceb.Router(middleware=[middleware])

    @router.on("*")
    def handler(event: ceb.CloudEvent) -> None:
        if event.type == "slow":
            time.sleep(0.02)
        if event.type == "bad":
            raise ceb.Reject("no")

    for type in types:
        try:
            router.handle(make_event(type))
        except ceb.Reject:
            assert type == "bad"


def test_a_function_is_told_of_each_run() -> None:
    told: Told = []
    handle(timing(lambda *what: told.append(what)), "slow", "bad")
    [(slow, seconds, acked), (bad, _, dead)] = told
    assert (slow, acked, bad, dead) == ("slow", "ack", "bad", "dead_letter")
    assert 0.02 <= seconds < 60


def test_types_beyond_the_bound_are_other() -> None:
    told: Told = []
    handle(timing(lambda *what: told.append(what), max_types=2), "a", "b", "c", "a", "d", "b")
    assert [type for type, _, _ in told] == ["a", "b", "other", "a", "other", "b"]


def test_a_function_that_fails_is_logged_and_fails_no_event(caplog: pytest.LogCaptureFixture) -> None:
    def report(type: str, seconds: float, outcome: Action) -> None:
        raise ZeroDivisionError

    handle(timing(report), "a")
    assert "reporting how long an event took failed" in caplog.text


def test_the_log_adds_up(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "cloudevents_bridge.events")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    middleware = timing(every=60.0)
    handle(middleware, "a", "bad", "a")
    assert not caplog.records
    monkeypatch.setattr(time, "monotonic", lambda: now + 60.0)
    handle(middleware, "a")
    assert [record.getMessage().partition(" not")[0] for record in caplog.records] == [
        "a: 3 runs, 0",
        "bad: 1 runs, 1",
    ]
    fields = vars(caplog.records[0])
    assert (fields["event_type"], fields["runs"], fields["failed"]) == ("a", 3, 0)
    assert 0 <= fields["longest"] <= fields["seconds"]
    caplog.clear()
    handle(middleware, "a")
    assert not caplog.records


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="every is -1"):
        timing(every=-1)
    with pytest.raises(InvalidArgumentError, match="max_types is 0"):
        timing(max_types=0)
