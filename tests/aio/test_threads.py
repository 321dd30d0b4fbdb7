"""The pools: no more threads than said, none for what waits, none left."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator

import pytest
from scripted import until
from tasks import LONG, threads

from cloudevents_bridge import clock
from cloudevents_bridge.aio.threads import Pool, Serial


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool("ceb-test", 3)
    yield pool
    pool.close()


class Jobs:
    """Jobs that wait until they may end."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running: list[int] = []
        self.done: list[int] = []

    def job(self, number: int) -> None:
        self.running.append(number)
        assert self.go.wait(LONG)
        self.done.append(number)


def test_no_thread_before_a_job_and_none_after_idling(pool: Pool) -> None:
    assert threads() == []
    done: list[int] = []
    pool.submit(lambda: done.append(1))
    until(lambda: done)
    assert threads() == ["ceb-test"]
    until(lambda: threads() == [])
    pool.submit(lambda: done.append(2))
    until(lambda: done == [1, 2])


def test_no_more_threads_than_said(pool: Pool) -> None:
    jobs = Jobs()
    for n in range(10):
        pool.submit(lambda n=n: jobs.job(n))  # type: ignore[misc]
    until(lambda: len(jobs.running) == 3)
    time.sleep(0.02)
    assert len(jobs.running) == 3
    assert threads() == ["ceb-test"] * 3
    jobs.go.set()
    until(lambda: sorted(jobs.done) == list(range(10)))
    assert len(threads()) <= 3


def test_jobs_begin_in_their_order(pool: Pool) -> None:
    jobs = Jobs()
    for n in range(10):
        pool.submit(lambda n=n: jobs.job(n))  # type: ignore[misc]
    until(lambda: len(jobs.running) == 3)
    assert sorted(jobs.running) == [0, 1, 2]
    jobs.go.set()
    until(lambda: len(jobs.done) == 10)


def test_what_waits_can_be_withdrawn(pool: Pool) -> None:
    jobs = Jobs()
    made = [lambda n=n: jobs.job(n) for n in range(5)]
    for each in made:
        pool.submit(each)
    until(lambda: len(jobs.running) == 3)
    assert pool.withdraw(made[4])
    assert not pool.withdraw(made[4])
    assert not pool.withdraw(made[0])
    jobs.go.set()
    until(lambda: sorted(jobs.done) == [0, 1, 2, 3])
    assert not pool.withdraw(made[3])


def test_an_idle_thread_keeps_no_job_alive(pool: Pool) -> None:
    class Big:
        pass

    import weakref

    big = Big()
    dropped = weakref.ref(big)
    done = threading.Event()
    pool.submit(lambda big=big: done.set())  # type: ignore[misc]
    del big
    assert done.wait(LONG)
    until(lambda: dropped() is None)


def test_drain_waits_for_what_runs_and_waits_and_no_longer_than_said(pool: Pool) -> None:
    jobs = Jobs()
    for n in range(5):
        pool.submit(lambda n=n: jobs.job(n))  # type: ignore[misc]
    begun = clock.now()
    pool.drain(begun + 0.05)
    assert clock.now() >= begun + 0.05
    threading.Timer(0.05, jobs.go.set).start()
    pool.drain(clock.now() + LONG)
    assert len(jobs.done) == 5


def test_after_close_nothing_idles_and_jobs_still_run(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudevents_bridge.aio.threads.IDLE", LONG)
    done: list[int] = []
    pool.submit(lambda: done.append(1))
    until(lambda: done)
    assert threads() == ["ceb-test"]
    pool.close()
    until(lambda: threads() == [])
    pool.submit(lambda: done.append(2))
    until(lambda: done == [1, 2] and threads() == [])


def test_a_serial_runs_one_at_a_time_and_takes_one_thread(pool: Pool) -> None:
    serial = Serial(pool)
    jobs = Jobs()
    made = [lambda n=n: jobs.job(n) for n in range(5)]
    for each in made:
        serial.submit(each)
    until(lambda: jobs.running == [0])
    assert len(threads()) == 1
    assert serial.withdraw(made[3])
    assert not serial.withdraw(made[0])
    jobs.go.set()
    until(lambda: jobs.done == [0, 1, 2, 4])
    serial.submit(made[3])
    until(lambda: jobs.done[-1] == 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_starts_anew(pool: Pool) -> None:
    jobs = Jobs()
    serial = Serial(pool)
    serial.submit(lambda: jobs.job(1))
    until(lambda: jobs.running == [1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if not child:
        ended = threading.Event()
        serial.submit(ended.set)
        os._exit(0 if ended.wait(10.0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    jobs.go.set()
    until(lambda: jobs.done == [1])
