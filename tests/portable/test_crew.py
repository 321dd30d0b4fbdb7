"""Threads that wait for work."""

from __future__ import annotations

import threading
from functools import partial
from operator import eq

from scripted import until

from cloudevents_bridge import clock
from cloudevents_bridge.crew import Crew


def test_who_came_to_wait_last_is_woken_first() -> None:
    lock = threading.Lock()
    came: list[threading.Thread] = []
    woken: list[threading.Thread] = []

    def work() -> None:
        with lock:
            came.append(threading.current_thread())
            crew.wait(None)
            woken.append(threading.current_thread())

    crew = Crew(lock, "crew", 2, work)
    with lock:
        crew.wake()
        crew.wake()
    until(lambda: len(came) == 2)
    for count in (1, 2):
        with lock:
            assert crew.available
            crew.wake()
        until(partial(eq, woken, came[::-1][:count]))
    crew.join(clock.now() + 10)
    assert not any(thread.is_alive() for thread in came)


def test_who_has_waited_long_enough_is_not_there_to_be_woken() -> None:
    lock = threading.Lock()
    back, over = threading.Event(), threading.Event()

    def work() -> None:
        with lock:
            crew.wait(clock.now())
        back.set()
        over.wait(10)

    crew = Crew(lock, "crew", 1, work)
    with lock:
        crew.wake()
    assert back.wait(10)
    with lock:
        assert not crew.available
        crew.wake()
        crew.wake_all()
    over.set()
    crew.join(clock.now() + 10)
