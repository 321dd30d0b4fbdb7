"""The lock of a link: had in turn, and let go of for those who wait."""

from __future__ import annotations

import threading

import pytest

from cloudevents_bridge_azure.servicebus.errors import StalledError
from cloudevents_bridge_azure.servicebus.links import Pool
from cloudevents_bridge_azure.servicebus.turns import Turns
from cloudevents_bridge_azure.servicebus.watch import Watch
from cloudevents_bridge_contract.emulators.process import wait_until

WAIT = 15.0


def _waiting(turns: Turns) -> int:
    return len(turns._waiting)


def test_it_is_had_in_the_order_in_which_it_was_asked_for() -> None:
    turns, had = Turns(), list[int]()

    def have(number: int) -> None:
        with turns:
            had.append(number)

    threads = []
    with turns:
        for number in range(5):
            threads.append(threading.Thread(target=have, args=(number,)))
            threads[-1].start()
            assert wait_until(lambda number=number: _waiting(turns) == number + 1, WAIT)  # type: ignore[misc]
    for each in threads:
        each.join()
    assert had == [0, 1, 2, 3, 4]
    assert turns.acquire(0)


def test_those_who_wait_pass_and_then_it_is_the_holders_again() -> None:
    turns, passed = Turns(), threading.Event()

    def have() -> None:
        with turns:
            passed.set()

    with turns:
        turns.let_pass()
        assert not turns.wanted
        thread = threading.Thread(target=have)
        thread.start()
        assert wait_until(lambda: turns.wanted, WAIT)
        assert not passed.is_set()
        turns.let_pass()
        assert passed.is_set()
        assert not turns.acquire(0)
    thread.join()


def test_who_waited_too_long_leaves_and_the_next_has_it() -> None:
    turns = Turns()
    with turns:
        assert not turns.acquire(0.01)
        assert not turns.wanted
    assert turns.acquire(0)


def test_who_wants_any_link_has_the_one_that_another_had_its_turn_on() -> None:
    watch = Watch()
    pool, had = Pool(object, watch, 1), threading.Event()

    def have() -> None:
        with pool.one(4 * WAIT):
            had.set()

    with pool.one(WAIT) as link:
        pass
    with pool.turn(link, WAIT):
        thread = threading.Thread(target=have)
        thread.start()
        assert wait_until(lambda: bool(pool._free._waiters), WAIT)  # type: ignore[attr-defined]
        with pytest.raises(StalledError, match=r"in use for 0\.01 s"), pool.turn(link, 0.01):
            pass
    assert had.wait(WAIT), "nobody said that it was free"
    thread.join()
    watch.close()
