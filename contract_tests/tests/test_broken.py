"""The suite's own test: each broken driver or shell fails the case named for it, which passes without the fault."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.bench import Bench, Running
from cloudevents_bridge_contract.broken import BROKEN, SHELLS
from cloudevents_bridge_contract.faulty import Shim, register, through
from cloudevents_bridge_contract.report import GROUPS
from cloudevents_bridge_contract.rigs import EmbeddedRig

register("honest", Shim)
PATIENT = 10.0
"""Seconds of patience where a case is to pass, on a busy machine too. One that is to fail need not be waited for."""


class BrokenRig(EmbeddedRig):
    """A driver behind a shim, over the broker in memory or another."""

    crosses_processes = False

    def __init__(self, driver: str, *, patience: float = 1.5, over: str = "memory://{name}") -> None:
        self.name = driver
        self.patience = patience
        self.over = over

    @contextmanager
    def start(self) -> Iterator[str]:
        yield through(self.name, self.over.format(name=f"broken-{uuid.uuid4().hex[:12]}"))


def _run(case: str, rig: BrokenRig, request: pytest.FixtureRequest) -> int:
    """Run one case, without its class; gives the legal duplicates that it counted."""
    name, _, parameters = case.partition(".")[2].partition("[")
    function = getattr(ContractSuite, f"test_{name}")
    values: dict[str, Any] = {}
    marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.name == "parametrize"]
    chosen = parameters.rstrip("]").split("-") if len(marks) > 1 else [parameters.rstrip("]")]
    for mark, each in zip(marks, chosen, strict=bool(marks)):
        values[mark.args[0]] = _value(mark, each)
    for fixture in ("tmp_path", "monkeypatch"):
        if fixture in function.__code__.co_varnames[: function.__code__.co_argcount]:
            values[fixture] = request.getfixturevalue(fixture)
    with Running.started(rig) as running, Bench(running) as bench:
        function(ContractSuite(), bench, **values)
        return bench.duplicates


def _value(mark: pytest.Mark, chosen: str) -> object:
    listed = list(mark.args[1])
    ids = list(map(str, mark.kwargs.get("ids", listed)))
    return listed[ids.index(chosen)]


@pytest.mark.parametrize("driver", BROKEN)
def test_broken_driver_is_caught(driver: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        _run(BROKEN[driver].caught_by, BrokenRig(driver), request)


@pytest.mark.parametrize("shell", SHELLS)
def test_broken_shell_is_caught(shell: str, request: pytest.FixtureRequest) -> None:
    broken = SHELLS[shell]
    with broken.at_work(), pytest.raises((AssertionError, pytest.fail.Exception)):
        _run(broken.caught_by, BrokenRig("honest", patience=2.5, over=broken.over), request)


@pytest.mark.parametrize(
    "case", sorted({kind.caught_by for kind in BROKEN.values()} - {"consume.filter"})
)  # memory has none
def test_case_passes_without_the_fault(case: str, request: pytest.FixtureRequest) -> None:
    _run(case, BrokenRig("honest", patience=PATIENT), request)


@pytest.mark.parametrize(("case", "over"), sorted({(kind.caught_by, kind.over) for kind in SHELLS.values()}))
def test_case_passes_without_the_fault_of_a_shell(case: str, over: str, request: pytest.FixtureRequest) -> None:
    _run(case, BrokenRig("honest", patience=PATIENT, over=over), request)


@pytest.mark.parametrize(
    "case",
    [
        "consume.consumers_of_one_subscription_share",
        "publish.thousand_events_all_arrive",
        "life.one_broker_in_many_threads",
    ],
)
def test_legal_duplicates_are_counted(case: str, request: pytest.FixtureRequest) -> None:
    rig = BrokenRig("delivers-twice", patience=PATIENT)
    with pytest.raises(AssertionError):
        _run(case, rig, request)
    rig.duplicates = "count"
    assert _run(case, rig, request) > 0


def test_there_are_enough() -> None:
    assert len(BROKEN) >= 15
    assert len(SHELLS) >= 12
    cases = [kind.caught_by for kind in BROKEN.values()] + [kind.caught_by for kind in SHELLS.values()]
    groups = {case.partition(".")[0] for case in cases}
    assert groups == set(GROUPS)
