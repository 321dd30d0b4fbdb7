"""The matrix, broker x case: four outcomes, each with its reason, in text, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from cloudevents_bridge_contract.outcomes import Unsupported

GROUPS = ("publish", "envelope", "consume", "settle", "order", "worker", "topology", "life", "traps")
PASSED, FAILED, UNSUPPORTED, NOT_RUN = "passed", "failed", "unsupported", "not run"
OUTCOMES = (PASSED, FAILED, UNSUPPORTED, NOT_RUN)
_RANK = {PASSED: 0, UNSUPPORTED: 1, NOT_RUN: 2, FAILED: 3}


def outcome(report: pytest.TestReport, error: pytest.ExceptionInfo[BaseException] | None) -> tuple[str, str]:
    """The outcome of one phase of a case, and its reason."""
    if report.skipped:
        reason = str(error.value) if error is not None else "skipped"
        return (UNSUPPORTED if error is not None and isinstance(error.value, Unsupported) else NOT_RUN), reason
    if report.failed:
        first = (str(error.value) if error is not None else "").strip().partition("\n")[0]
        kind = error.typename if error is not None else "error"
        return FAILED, first if kind == "AssertionError" and first else f"{kind}: {first}"
    return PASSED, ""


@dataclass
class Cell:
    """What one broker did with one case."""

    outcome: str
    reason: str = ""
    seconds: float = 0.0
    duplicates: int = 0


@dataclass
class Matrix:
    """The cells of a run.

    Attributes:
        kinds: rig to what the broker was.
        twins: rig to the rig whose outcomes must be the same.
        cells: case to rig to cell.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def add(
        self,
        *,
        rig: str,
        kind: str,
        case: str,
        outcome: str,
        reason: str,
        twin: str = "",
        seconds: float = 0.0,
        duplicates: int = 0,
    ) -> None:
        """Note one phase (setup, call, teardown) of a case: the worst of its phases counts."""
        self.kinds[rig] = kind
        if twin:
            self.twins[rig] = twin
        cell = self.cells.setdefault(case, {}).setdefault(rig, Cell(PASSED))
        cell.seconds += seconds
        cell.duplicates = max(cell.duplicates, duplicates)
        if _RANK[outcome] > _RANK[cell.outcome]:
            cell.outcome, cell.reason = outcome, reason

    def counts(self, rig: str) -> dict[str, int]:
        """How many cases of a rig ended how."""
        found = [row[rig].outcome for row in self.cells.values() if rig in row]
        return {name: found.count(name) for name in OUTCOMES}

    def differences(self) -> list[str]:
        """The cases that a rig and its twin, which must have the same outcomes, both ran, and ended differently."""
        return [
            f"{case} is {row[rig].outcome} on {rig}, and {row[twin].outcome} on {twin}"
            for case in self.rows()
            for rig, twin in sorted(self.twins.items())
            if rig in (row := self.cells[case]) and twin in row and row[rig].outcome != row[twin].outcome
        ]

    def rigs(self) -> list[str]:
        return sorted(self.kinds)

    def rows(self) -> list[str]:
        """The cases, by group, in alphabetical order."""
        place = {group: number for number, group in enumerate(GROUPS)}
        return sorted(self.cells, key=lambda case: (place.get(case.partition(".")[0], len(place)), case))

    def text(self) -> str:
        """For a terminal."""
        notes = _Notes()
        table = [["", *self.rigs()], ["", *(self.kinds[rig] for rig in self.rigs())]]
        table += [[case, *(notes.cell(self.cells[case].get(rig)) for rig in self.rigs())] for case in self.rows()]
        table += [[name, *(str(self.counts(rig)[name]) for rig in self.rigs())] for name in OUTCOMES]
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        rule = "-" * (sum(widths) + 2 * len(widths) - 2)
        lines = [*lines[:2], rule, *lines[2 : -len(OUTCOMES)], rule, *lines[-len(OUTCOMES) :]]
        return "\n".join([*lines, *notes.lines(), *(f"DIFFERENT: {each}" for each in self.differences())])

    def markdown(self) -> str:
        """For a page."""
        notes = _Notes()
        head = ["case", *(f"{_escaped(rig)} ({_escaped(self.kinds[rig])})" for rig in self.rigs())]
        rows = [
            [f"`{_escaped(case)}`", *(notes.cell(self.cells[case].get(rig)) for rig in self.rigs())]
            for case in self.rows()
        ]
        rows += [[f"**{name}**", *(str(self.counts(rig)[name]) for rig in self.rigs())] for name in OUTCOMES]
        table = [head, ["---"] * len(head), *rows]
        lines = ["| " + " | ".join(row) + " |" for row in table]
        return "\n".join(["# Contract matrix", "", *lines, "", *(f"- {_escaped(line)}" for line in notes.lines()), ""])

    def json(self) -> str:
        """For programs."""
        form: dict[str, Any] = {
            "rigs": {rig: {"kind": self.kinds[rig], "counts": self.counts(rig)} for rig in self.rigs()},
            "cases": {
                case: {
                    rig: {**asdict(cell), "seconds": round(cell.seconds, 3)} for rig, cell in self.cells[case].items()
                }
                for case in self.rows()
            },
        }
        return json.dumps(form, indent=1, ensure_ascii=False) + "\n"

    def worst(self, rigs: Iterable[str] = ()) -> str:
        """The worst outcome of all."""
        chosen = set(rigs) or set(self.kinds)
        cells = [cell for row in self.cells.values() for rig, cell in row.items() if rig in chosen]
        return max((cell.outcome for cell in cells), key=_RANK.__getitem__, default=NOT_RUN)


class _Notes:
    """Reasons, numbered, each said once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, cell: Cell | None) -> str:
        if cell is None:
            return ""
        word = cell.outcome.upper() if cell.outcome == FAILED else cell.outcome
        said = [cell.reason] if cell.reason else []
        if cell.duplicates:
            said.append(f"{cell.duplicates} legal duplicates")
        numbers = [self._numbers.setdefault(text, len(self._numbers) + 1) for text in said]
        return word + "".join(f" [{number}]" for number in numbers)

    def lines(self) -> list[str]:
        return [f"[{number}] {text}" for text, number in self._numbers.items()]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
