"""The pytest plugin: outcomes of contract cases, from every worker, become one matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from cloudevents_bridge_contract.bench import Running
    from cloudevents_bridge_contract.report import Matrix
    from cloudevents_bridge_contract.rig import Rig

PROPERTY = "cloudevents_bridge_contract"
SUITE = "cloudevents_bridge_contract.suite"
COLLECTOR = "cloudevents_bridge_contract_collector"

pytest.register_assert_rewrite(SUITE, "cloudevents_bridge_contract.bench")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cloudevents-bridge-contract")
    group.addoption(
        "--contract-report",
        action="append",
        default=[],
        metavar="KIND=FILE",
        help="write the contract matrix: json=FILE or md=FILE; may be given several times",
    )


def pytest_configure(config: pytest.Config) -> None:
    for report in config.getoption("--contract-report"):
        kind, _, path = report.partition("=")
        if kind not in ("json", "md") or not path:
            raise pytest.UsageError(f"--contract-report {report!r}: write json=FILE or md=FILE")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(), COLLECTOR)


@pytest.fixture(scope="class")
def ceb_contract_running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """The rig of a suite's class, started."""
    from cloudevents_bridge_contract.bench import Running

    with Running.started(request.cls.rig) as running:
        yield running


def pytest_runtest_setup(item: pytest.Item) -> None:
    rig = _rig(item)
    if rig is None:
        return
    from cloudevents_bridge_contract.outcomes import NotRun

    full = case_of(item)
    reason = rig.quirks.get(full) or rig.quirks.get(full.partition("[")[0])
    if reason:
        raise NotRun(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    rig = _rig(item)
    if rig is not None:
        from cloudevents_bridge_contract.report import outcome

        name, reason = outcome(report, call.excinfo)
        cell = {"rig": rig.name, "kind": rig.kind, "twin": rig.twin, "case": case_of(item)}
        report.user_properties.append((PROPERTY, {**cell, "outcome": name, "reason": reason}))
    return report


def case_of(item: pytest.Item) -> str:
    """`group.case[parameters]`, as quirks and the matrix name it."""
    function = cast("pytest.Function", item).function
    group = function.__module__.rpartition(".")[2]
    if function.__module__.startswith(SUITE):
        group = group.partition("_")[0]
    return f"{group}.{item.name.removeprefix('test_')}"


def _rig(item: pytest.Item) -> Rig | None:
    return getattr(getattr(item, "cls", None), "rig", None) if "ceb_contract_running" in _fixtures(item) else None


def _fixtures(item: pytest.Item) -> list[str]:
    return cast("list[str]", getattr(item, "fixturenames", []))


class Collector:
    """Collects in the process that reports; the workers of xdist send theirs there with their reports.

    Attributes:
        matrix: None until a contract case was seen.
        unfinished: cases that were chosen and that the run never came to.
    """

    def __init__(self) -> None:
        self.matrix: Matrix | None = None
        self.unfinished: list[tuple[Rig, str]] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        found = [(_rig(item), case_of(item)) for item in session.items if _rig(item) is not None]
        self.unfinished = [] if session.config.option.collectonly else cast("list[tuple[Rig, str]]", found)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(cast("list[tuple[str, Any]]", report.user_properties))
        cell = properties.get(PROPERTY)
        if cell is not None:
            self._matrix().add(**cell, seconds=report.duration, duplicates=properties.get("duplicates", 0))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Rigs that must have the same outcomes and have not fail the run."""
        if self.matrix is not None and self.matrix.differences() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unfinished or self.matrix is not None:
            self._note_unfinished()
            self._write(terminalreporter)

    def _note_unfinished(self) -> None:
        matrix = self._matrix()
        self.unfinished = [(rig, case) for rig, case in self.unfinished if rig.name not in matrix.cells.get(case, {})]
        for rig, case in self.unfinished:
            matrix.add(rig=rig.name, kind=rig.kind, case=case, outcome="not run", reason="the run ended before it")

    def _write(self, terminalreporter: pytest.TerminalReporter) -> None:
        matrix = self._matrix()
        for report in terminalreporter.config.getoption("--contract-report"):
            kind, _, path = report.partition("=")
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(matrix.json() if kind == "json" else matrix.markdown(), encoding="utf-8")
        terminalreporter.section("contract")
        terminalreporter.write_line(matrix.text())

    def _matrix(self) -> Matrix:
        if self.matrix is None:
            from cloudevents_bridge_contract.report import Matrix

            self.matrix = Matrix()
        return self.matrix
