"""What failed receives mean."""

from __future__ import annotations

from cloudevents_bridge.core.contact import Contact
from cloudevents_bridge.errors import BridgeError, ErrorCode, NotFoundError

DOWN = BridgeError("down", code=ErrorCode.UNAVAILABLE, retryable=True)
REFUSED = BridgeError("refused", code=ErrorCode.UNAUTHENTICATED)


def contact() -> Contact:
    return Contact(lambda failures: float(failures))


def test_a_broker_that_is_down_is_tried_for_ever_and_is_news_once() -> None:
    made = contact()
    missed = [made.missed(DOWN, now) for now in (0.0, 1.0, 1e6)]
    assert [each.delay for each in missed] == [1.0, 2.0, 3.0]
    assert [each.news for each in missed] == [True, False, False]
    assert not any(each.give_up for each in missed)
    assert (made.connected, made.ever) == (False, False)
    assert [made.reached(), made.reached()] == [True, False]
    assert (made.connected, made.ever) == (True, True)
    assert made.missed(DOWN, 1e6).news


def test_it_waits_as_long_as_the_broker_asks() -> None:
    asks = BridgeError("slow down", code=ErrorCode.RESOURCE_EXHAUSTED, retryable=True, retry_after=30.0)
    assert contact().missed(asks, 0.0).delay == 30.0


def test_what_never_worked_is_given_up_at_once() -> None:
    for error in (REFUSED, NotFoundError("nothing there")):
        assert contact().missed(error, 0.0).give_up


def test_what_worked_before_is_given_up_after_ten_minutes() -> None:
    made = contact()
    made.reached()
    assert not made.missed(REFUSED, 100.0).give_up
    assert not made.missed(REFUSED, 699.0).give_up
    assert made.missed(REFUSED, 700.0).give_up


def test_a_success_or_another_kind_of_failure_begins_the_ten_minutes_anew() -> None:
    made = contact()
    made.reached()
    made.missed(REFUSED, 100.0)
    made.reached()
    assert not made.missed(REFUSED, 800.0).give_up
    made.missed(DOWN, 900.0)
    assert not made.missed(REFUSED, 1500.0).give_up
