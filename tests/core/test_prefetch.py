"""How many deliveries are asked for, and when."""

from __future__ import annotations

from typing import Any

import pytest

from cloudevents_bridge.core.prefetch import Prefetch


def wanted(
    prefetch: Prefetch, now: float = 0.0, *, active: int = 0, ready: int = 0, free: int = 1, size: int = 0
) -> int:
    return prefetch.wanted(now, active=active, ready=ready, free=free, size=size)


def grown(slots: int = 1, batch_count: int = 10, receives: int = 3, **settings: Any) -> tuple[Prefetch, float]:
    """One that has seen a handler that takes a millisecond, for a second."""
    prefetch, now = Prefetch(slots, batch_count, receives, **settings), 0.0
    for _ in range(1000):
        now += 0.001
        prefetch.handled(now, well=True)
        wanted(prefetch, now, active=1)
    return prefetch, now


def test_it_begins_with_one_and_doubles_with_success() -> None:
    prefetch, asked = Prefetch(8, 10, 1), []
    for handled in (1, 2, 4, 8):
        number = wanted(prefetch, free=8)
        asked.append(number)
        prefetch.begin(number)
        prefetch.received(number, [1] * number)
        for _ in range(handled):
            prefetch.handled(0.0, well=True)
    assert asked == [1, 2, 4, 8]


def test_one_run_tells_whether_to_fetch_ahead() -> None:
    """A handler that takes a millisecond, behind requests that take ten: one at a time, all are handled in between."""
    prefetch, now, asked = Prefetch(1, 10, 1), 0.0, []
    for _ in range(6):
        now += 0.01
        number = wanted(prefetch, now)
        asked.append(number)
        prefetch.begin(number)
        now += 0.01
        prefetch.received(number, [1] * number)
        wanted(prefetch, now, active=number, ready=number)
        for _ in range(number):
            now += 0.001
            prefetch.handled(now, well=True)
    assert asked == [1, 2, 4, 8, 10, 10]


def test_a_first_run_that_takes_long_tells_too() -> None:
    prefetch = Prefetch(1, 10, 1)
    wanted(prefetch, 0.0, active=1)
    prefetch.handled(2.0, well=True)
    assert prefetch.most == 1


def test_it_asks_for_all_that_a_receive_can_bring_where_there_is_room_for_it() -> None:
    prefetch, now = grown(ahead=0.0145)
    assert prefetch.most == 15
    assert wanted(prefetch, now, active=6, ready=5, free=0) == 0
    assert wanted(prefetch, now, active=5, ready=4, free=0) == 10
    assert wanted(prefetch, now, active=6, ready=0, free=1) == 9  # a slot has nothing to do


def test_what_failed_is_no_success() -> None:
    prefetch = Prefetch(8, 10, 1)
    for _ in range(20):
        prefetch.handled(0.0, well=False)
    assert wanted(prefetch, free=8) == 1


def test_handlers_that_run_for_a_moment_are_a_success_too() -> None:
    prefetch = Prefetch(8, 10, 1)
    assert wanted(prefetch, 0.0, active=1, free=7) == 0
    at = prefetch.wake_at()
    assert at == 0.25
    assert wanted(prefetch, 0.24, active=1, free=7) == 0
    assert wanted(prefetch, 0.25, active=1, free=7) == 1
    assert wanted(prefetch, 0.5, active=1, free=7) == 3


def test_it_begins_with_one_again_after_a_suspect() -> None:
    prefetch, now = grown(slots=8)
    assert wanted(prefetch, now, free=8) > 1
    prefetch.restart()
    assert wanted(prefetch, now, free=8) == 1


def test_slow_handlers_get_no_more_than_they_can_run() -> None:
    prefetch, now = Prefetch(4, 10, 3), 0.0
    for _ in range(50):
        now += 2.0
        prefetch.handled(now, well=True)
        wanted(prefetch, now, active=1)
    assert prefetch.most == 4
    assert wanted(prefetch, now, active=4, free=0) == 0


def test_fast_handlers_get_what_they_do_in_a_moment_within_a_bound() -> None:
    assert grown()[0].most == pytest.approx(1 + 60)  # 10 a receive, 3 receives under way and 3 more
    assert grown(batch_count=1000)[0].most == pytest.approx(1 + 500, rel=0.1)  # half a second's
    assert grown(batch_count=1000, ahead=0.1)[0].most == pytest.approx(1 + 100, rel=0.1)


def test_it_does_not_ask_for_a_few_while_there_is_work() -> None:
    prefetch, now = grown()
    assert wanted(prefetch, now, active=55, ready=54, free=0) == 0
    assert wanted(prefetch, now, active=51, ready=50, free=0) == 10


def test_what_was_asked_for_counts() -> None:
    prefetch, now = grown()
    prefetch.begin(10)
    prefetch.received(10, [1] * 10)
    prefetch.begin(wanted(prefetch, now, active=11, ready=10))
    assert wanted(prefetch, now, active=42, ready=40, free=0) == 0
    assert wanted(prefetch, now, active=41, ready=40, free=0) == 10


def test_one_receive_waits_while_there_is_nothing_and_more_only_after_full_ones() -> None:
    prefetch, now = grown()
    prefetch.begin(wanted(prefetch, now))
    assert wanted(prefetch, now) == 0
    prefetch.received(10, [1] * 10)
    prefetch.begin(10)
    assert wanted(prefetch, now) == 10
    prefetch.begin(10)
    prefetch.received(10, [])
    assert prefetch.polls == 1
    assert wanted(prefetch, now) == 0


def test_enough_bytes_are_enough() -> None:
    prefetch, now = grown(max_bytes=1000)
    assert wanted(prefetch, now, active=1, size=1000) == 0
    assert wanted(prefetch, now, active=0, size=1000) > 0  # what is held only must not stop all else
    prefetch.begin(10)
    prefetch.received(10, [100] * 10)
    assert wanted(prefetch, now, active=1, size=700) == 3
    assert wanted(prefetch, now, active=1, size=990) == 1


def test_one_receive_of_large_ones_bounds_the_next() -> None:
    prefetch, now = grown(batch_count=1000, receives=1, max_bytes=64_000_000)
    for _ in range(20):
        prefetch.begin(1000)
        prefetch.received(1000, [200] * 1000)
    prefetch.begin(50)
    prefetch.received(50, [200_000] * 50)
    asked = wanted(prefetch, now, active=50, ready=48, free=0, size=10_000_000)
    assert 0 < asked * 200_000 <= 54_000_000


def test_after_a_failure_it_waits() -> None:
    prefetch = Prefetch(1, 10, 3)
    prefetch.begin(1)
    prefetch.failed(1, 5.0)
    assert wanted(prefetch, 4.9) == 0
    assert prefetch.wake_at() == 5.0
    assert wanted(prefetch, 5.0) == 1
