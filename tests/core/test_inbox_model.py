"""The inbox under thousands of schedules in simulated time: see `simulated_inbox` for the rules."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_inbox import Simulation

SCHEDULES = 250
KEYS = (None, None, "a", "a", "b", "c")


@pytest.mark.parametrize("sweep", range(24))
def test_schedules_by_the_thousand(sweep: int) -> None:
    for seed in range(sweep * SCHEDULES, (sweep + 1) * SCHEDULES):
        try:
            run(random.Random(seed), steps=60)
        except AssertionError as error:
            error.add_note(f"schedule {seed}")
            raise


@given(st.randoms(use_true_random=False), st.integers(1, 40))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_schedules_that_can_be_shrunk(choose: random.Random, steps: int) -> None:
    run(choose, steps)


def run(choose: random.Random, steps: int) -> None:
    simulation = Simulation(choose)
    crashed = choose.random() < 0.2
    stops = choose.random() < 0.3
    for _ in range(steps):
        what = choose.random()
        if what < 0.2:
            for _ in range(choose.randint(1, 6)):
                attempts = choose.choice((0, 0, 0, 8, 12)) if crashed else 0
                simulation.publish(choose.choice(KEYS), choose.choice((1, 5, 60)), attempts)
        elif what < 0.93:
            work(simulation, choose, what)
        elif what < 0.98:
            simulation.pass_time(choose.choice((0.0, 0.005, 0.3, 1.0, 4.0, 12.0)))
        elif what < 0.99:
            take = choose.choice((simulation.take_stream, simulation.take_one))
            take()
        elif stops:
            end = simulation.abandon if simulation.inbox.stopping else simulation.stop
            end()
    simulation.finish()


def work(simulation: Simulation, choose: random.Random, what: float) -> None:
    fails = choose.random() < simulation.mood
    if what < 0.4:
        simulation.receive()
    elif what < 0.55 and simulation.receives:
        simulation.answer(choose.randrange(8), fails=fails)
    elif what < 0.7:
        simulation.run()
    elif what < 0.82 and simulation.runs:
        simulation.end_run(choose.randrange(8))
    elif what < 0.88:
        simulation.settle()
    elif simulation.settlements:
        simulation.settled(choose.randrange(8), fails=fails)
