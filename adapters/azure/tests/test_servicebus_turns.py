"""The lock of a link: had in turn, and let go of for those who wait."""

from __future__ import annotations

import threading

import pytest

from cloudevents_bridge_azure.servicebus.errors import StalledError
from cloudevents_bridge_azure.servicebus.turns import Turns
from cloudevents_bridge_contract.emulators.process import wait_until

WAIT = 15.0


def _waiting(turns: Turns) -> int:
    return len(turns._waiting)


def test_it_is_had_in_the_order_in_which_it_was_asked_for() -> None:
    turns, had = Turns(), list[int]()

    def have(number: int) -> None:
        with turns.turn(WAIT):
            had.append(number)

    threads = []
    with turns.turn(WAIT):
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
        with turns.turn(WAIT):
            passed.set()

    with turns.turn(WAIT):
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
    with turns.turn(WAIT):
        with pytest.raises(StalledError, match=r"in use for 0\.01 s"), turns.turn(0.01):
            pass
        assert not turns.wanted
    with turns.turn(0):
        pass
