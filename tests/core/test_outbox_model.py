"""The outbox under thousands of schedules in simulated time: see `simulated_outbox` for the rules."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_outbox import Simulation

SCHEDULES = 500
KEYS = (None, None, "a", "a", "b", "c")


@pytest.mark.parametrize("sweep", range(24))
def test_schedules_by_the_thousand(sweep: int) -> None:
    for seed in range(sweep * SCHEDULES, (sweep + 1) * SCHEDULES):
        try:
            run(random.Random(seed), steps=40)
        except AssertionError as error:
            error.add_note(f"schedule {seed}")
            raise


@given(st.randoms(use_true_random=False), st.integers(1, 25))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_schedules_that_can_be_shrunk(choose: random.Random, steps: int) -> None:
    run(choose, steps)


def run(choose: random.Random, steps: int) -> None:
    simulation = Simulation(choose)
    flawed = choose.random() < 0.4
    for _ in range(steps):
        what = choose.random()
        if what < 0.4:
            for _ in range(choose.randint(1, 6)):
                simulation.add(
                    choose.choice(KEYS),
                    choose.randint(1, 9),
                    refused=flawed and choose.random() < 0.05,
                    culprit=flawed and choose.random() < 0.05,
                )
        elif what < 0.7:
            simulation.send()
        elif what < 0.88:
            if simulation.in_flight:
                simulation.answer(choose.randrange(8))
        elif what < 0.995:
            simulation.pass_time(choose.choice((0.0, 0.25, 1.0, 5.0)))
        else:
            simulation.abandon()
    simulation.finish()
