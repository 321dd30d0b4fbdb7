"""One line for each event, with fields for machines, and never its data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.middleware import log
from cloudevents_bridge.testing import FakeBroker, make_event


def line(
    caplog: pytest.LogCaptureFixture, handler: Callable[..., object], data: object = None, *, attempt: int = 1
) -> logging.LogRecord:
    router = ceb.Router(middleware=[log])
    router.on("com.example.*")(handler)
    with FakeBroker() as fake, caplog.at_level(logging.INFO, "cloudevents_bridge.events"):
        caplog.clear()
        fake.deliver(router, make_event(data=data), attempt=attempt)
    [record] = [each for each in caplog.records if each.name == "cloudevents_bridge.events"]
    return record


def raising(error: BaseException) -> Callable[[ceb.CloudEvent], None]:
    def handler(event: ceb.CloudEvent) -> None:
        raise error

    return handler


def test_what_a_line_has(caplog: pytest.LogCaptureFixture) -> None:
    record: Any = line(caplog, lambda event: None, attempt=3)
    assert (record.event_id, record.event_type, record.event_source) == ("test-1", "com.example.test", "/test")
    assert (record.topic, record.subscription, record.attempt) == ("deliver", "here", 3)
    assert (record.outcome, record.error, record.levelno) == ("ack", None, logging.INFO)
    assert 0 <= record.seconds < 60
    assert record.getMessage().startswith(
        "ack of event test-1 (com.example.test) from /test to deliver/here, attempt 3, after 0."
    )


@pytest.mark.parametrize(
    ("error", "attempt", "outcome", "kind"),
    [
        (ValueError("secret"), 1, "nack", "ValueError"),
        (ValueError("secret"), 5, "dead_letter", "ValueError"),
        (ceb.Retry(5, "secret"), 1, "nack", "Retry"),
        (ceb.Retry(5, "secret"), 5, "dead_letter", "Retry"),
        (ceb.Reject("secret"), 1, "dead_letter", "Reject"),
    ],
    ids=repr,
)
def test_what_failed_is_a_warning(
    caplog: pytest.LogCaptureFixture, error: Exception, attempt: int, outcome: str, kind: str
) -> None:
    record: Any = line(caplog, raising(error), {"card": "secret"}, attempt=attempt)
    assert (record.outcome, record.error, record.levelno) == (outcome, kind, logging.WARNING)
    assert record.getMessage().endswith(f" s: {kind}")
    assert "secret" not in str(record.__dict__)
    assert record.exc_info is None


@pytest.mark.parametrize(
    ("word", "outcome"), [("ack", "ack"), ("nack", "nack"), ("give_back", "nack"), ("dead_letter", "dead_letter")]
)
def test_what_the_handler_settled_itself_is_said(caplog: pytest.LogCaptureFixture, word: str, outcome: str) -> None:
    def handler(delivery: ceb.Delivery) -> None:
        getattr(delivery, word)(*(["by hand"] if word == "dead_letter" else []))

    record: Any = line(caplog, handler)
    assert record.outcome == outcome


def test_an_interrupt_is_given_back_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    router = ceb.Router(middleware=[log])
    router.on("*")(raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        router.handle(make_event())
    [record] = caplog.records
    assert vars(record)["outcome"] == "nack"


def test_unmatched_events_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ceb.Reject):
        ceb.Router(middleware=[log]).handle(make_event())
    assert vars(caplog.records[-1])["outcome"] == "dead_letter"


def test_where_nobody_listens_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    router = ceb.Router(middleware=[log])
    router.on("*")(lambda event: None)
    monkeypatch.setattr(logging.Logger, "_log", lambda *_, **__: pytest.fail("it was written"))
    logger = logging.getLogger("cloudevents_bridge.events")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    router.handle(make_event())
    monkeypatch.undo()
    logger.manager._clear_cache()  # type: ignore[attr-defined]
