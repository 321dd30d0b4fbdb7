"""Leases in simulated time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudevents_bridge.core.leases import Held, Leases, margin


class Item:
    pass


@pytest.mark.parametrize(("lease", "expected"), [(60.0, 1.0), (20.0, 1.0), (10.0, 0.5), (1.0, 0.05), (0.0, 0.0)])
def test_the_margin_is_a_second_or_a_twentieth(lease: float, expected: float) -> None:
    assert margin(lease) == pytest.approx(expected)


def test_a_lease_is_extended_when_half_of_it_is_left() -> None:
    leases, item = Leases(), Item()
    leases.keep(item, 110.0, 10.0)
    assert leases.wake_at() == 105.0
    assert leases.due(104.9) == ([], [], [])
    [held] = leases.due(105.0).extend
    assert held.item is item
    leases.extended(held, 115.0, 10.0)
    assert leases.wake_at() == 110.0


def test_a_lease_that_was_not_extended_is_lost_a_margin_before_its_end() -> None:
    leases, item = Leases(), Item()
    leases.keep(item, 110.0, 10.0)
    assert leases.due(109.4).extend
    [held] = leases.due(109.5).lost
    assert held.item is item
    assert not len(leases)
    assert leases.wake_at() is None


def test_a_lease_that_is_not_extended_is_no_longer_kept() -> None:
    leases, item = Leases(), Item()
    leases.keep(item, 110.0, 10.0)
    [held] = leases.due(105.0).extend
    leases.lose(held)
    assert not len(leases)
    leases.lose(held)


def test_what_is_held_is_given_back_at_its_time_once() -> None:
    leases, item = Leases(), Item()
    leases.keep(item, 110.0, 10.0, until=103.0)
    assert leases.wake_at() == 103.0
    assert leases.due(102.9) == ([], [], [])
    [held] = leases.due(103.0).give_back
    assert held.item is item
    assert leases.due(103.0) == ([], [], [])


def test_what_is_held_longer_than_its_lease_is_extended_first() -> None:
    leases, item = Leases(), Item()
    leases.keep(item, 110.0, 10.0, until=112.0)
    [held] = leases.due(105.0).extend
    leases.extended(held, 115.0, 10.0)
    assert leases.wake_at() == 110.0
    assert leases.due(112.0).give_back == [held]


def test_dropping_ends_keeping_but_not_holding() -> None:
    leases, kept, held = Leases(), Item(), Item()
    leases.keep(kept, 110.0, 10.0)
    leases.keep(held, 110.0, 10.0, until=103.0)
    leases.drop(kept)
    leases.drop(held)
    leases.drop(Item())
    assert leases.to_give_back() == [held]
    assert len(leases) == 1


def test_holding_what_was_kept_replaces_the_keeping() -> None:
    leases, item = Leases(), Item()
    leases.keep(item, 110.0, 10.0)
    leases.keep(item, 110.0, 10.0, until=101.0)
    assert len(leases) == 1
    assert leases.to_give_back() == [item]


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_a_shell_that_wakes_when_told_loses_nothing(seed: int) -> None:
    """Wake at each `wake_at`, a little late; grants are shorter or longer than the last: nothing is ever lost, and
    everything held goes back at its time."""
    choose = random.Random(seed)
    leases, now = Leases(), 100.0
    ends: dict[Item, float] = {}
    until: dict[Item, float | None] = {}
    returned: dict[Item, float] = {}
    for _ in range(choose.randint(1, 8)):
        item, lease = Item(), choose.choice((0.5, 2.0, 10.0, 60.0))
        hold = choose.choice((None, now + choose.uniform(0.0, 100.0)))
        leases.keep(item, now + lease, lease, hold)
        ends[item], until[item] = now + lease, hold
    for _ in range(60):
        wake = leases.wake_at()
        if wake is None:
            break
        assert wake >= now - 1e-9 or leases.due(now) != ([], [], [])
        now = max(now, wake) + choose.choice((0.0, 0.001, 0.01))
        due = leases.due(now)
        assert due.extend or due.give_back, "woken for nothing"
        assert not due.lost
        for held in due.extend:
            assert now < ends[held.item]
            lease = choose.choice((0.5, 2.0, 10.0))
            ends[held.item] = now + lease
            leases.extended(held, now + lease, lease)
        for held in due.give_back:
            returned[held.item] = now
    for item, when in returned.items():
        planned = until[item]
        assert planned is not None
        assert planned <= when <= planned + 0.02
        assert when <= ends[item]


@given(st.floats(0.01, 1e4), st.floats(0.0, 1e4), st.floats(0.0, 2e4))
def test_each_lease_is_in_one_state(lease: float, hold: float, now: float) -> None:
    leases, item = Leases(), Item()
    leases.keep(item, lease, lease, hold)
    due = leases.due(now)
    assert len(due.extend) + len(due.give_back) + len(due.lost) <= 1
    if now >= lease:
        assert due.lost
    if due == ([], [], []):
        wake = leases.wake_at()
        assert wake is not None
        assert wake > now
    assert len(leases) == (0 if due.lost or due.give_back else 1)


def test_held_says_when_something_is_to_be_done() -> None:
    assert Held(None, 110.0, 10.0).due == 105.0
    assert Held(None, 110.0, 10.0, 101.0).due == 101.0
    assert Held(None, 110.0, 10.0, 108.0).due == 105.0
