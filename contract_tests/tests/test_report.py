"""The matrix: what it counts, what it never hides, and its three forms."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from cloudevents_bridge_contract.report import FAILED, NOT_RUN, OUTCOMES, PASSED, UNSUPPORTED, Matrix


def _matrix() -> Matrix:
    matrix = Matrix()
    matrix.add(rig="memory", kind="embedded", case="settle.ack_is_final", outcome=PASSED, reason="", seconds=0.5)
    matrix.add(rig="memory", kind="embedded", case="publish.delay", outcome=FAILED, reason="it came | early")
    matrix.add(rig="aws", kind="emulator X 1.2", case="publish.delay", outcome=NOT_RUN, reason="emulator: no delay")
    matrix.add(rig="aws", kind="emulator X 1.2", case="consume.filter", outcome=UNSUPPORTED, reason="not declared")
    matrix.add(rig="aws", kind="emulator X 1.2", case="settle.ack_is_final", outcome=PASSED, reason="", duplicates=2)
    return matrix


def test_each_outcome_is_counted() -> None:
    matrix = _matrix()
    assert matrix.counts("memory") == {PASSED: 1, FAILED: 1, UNSUPPORTED: 0, NOT_RUN: 0}
    assert matrix.counts("aws") == {PASSED: 1, FAILED: 0, UNSUPPORTED: 1, NOT_RUN: 1}


@pytest.mark.parametrize("phases", list(permutations([PASSED, NOT_RUN, FAILED])))
def test_worst_phase_of_a_case_counts(phases: tuple[str, ...]) -> None:
    matrix = Matrix()
    for outcome in phases:
        matrix.add(rig="one", kind="fake", case="life.ping", outcome=outcome, reason=f"because {outcome}")
    assert (matrix.cells["life.ping"]["one"].outcome, matrix.cells["life.ping"]["one"].reason) == (
        FAILED,
        "because failed",
    )


def test_cases_are_in_the_order_of_their_groups() -> None:
    assert _matrix().rows() == ["publish.delay", "consume.filter", "settle.ack_is_final"]


def test_text_shows_every_cell_with_its_reason() -> None:
    lines = _matrix().text().splitlines()
    assert lines[0].split() == ["aws", "memory"]
    assert lines[1].split() == ["emulator", "X", "1.2", "embedded"]
    row = next(line for line in lines if line.startswith("publish.delay"))
    assert row.split() == ["publish.delay", "not", "run", "[1]", "FAILED", "[2]"]
    assert "[1] emulator: no delay" in lines
    assert "[2] it came | early" in lines
    assert any("2 legal duplicates" in line for line in lines)
    for outcome in OUTCOMES:
        assert any(line.startswith(outcome) for line in lines)


def test_markdown_is_one_table() -> None:
    lines = _matrix().markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {4}
    assert "| `publish.delay` | not run [1] | FAILED [2] |" in table
    assert "- [2] it came \\| early" in lines


def test_json_has_it_all() -> None:
    form = json.loads(_matrix().json())
    assert form["rigs"]["aws"] == {"kind": "emulator X 1.2", "counts": _matrix().counts("aws")}
    assert form["cases"]["publish.delay"]["memory"]["outcome"] == FAILED
    assert form["cases"]["settle.ack_is_final"]["aws"]["duplicates"] == 2
    assert "memory" not in form["cases"]["consume.filter"], "a case that did not run has a cell"
