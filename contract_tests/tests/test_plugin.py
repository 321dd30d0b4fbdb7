"""A third party's rig: about thirty lines, and the matrix, also when the run is spread over processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

RIG = """
from contextlib import contextmanager

from cloudevents_bridge import Capability
from cloudevents_bridge_contract import ContractSuite, NotRun, Rig


class OurRig(Rig):
    name = "ours"
    kind = "fake"
    lease = 0.4
    patience = 5.0
    crosses_processes = False
    topic_native = {Capability.DEDUPLICATION: {"deduplication": 300}}
    quirks = {"publish.delay": "our clock stands still", "envelope.json_data": "no JSON"}

    @contextmanager
    def start(self):
        yield "memory://third-party"


class TestOurs(ContractSuite):
    rig = OurRig()

    def test_of_our_own(self, bench):
        bench.publish(bench.topic(), bench.event())

    def test_that_fails(self, bench):
        assert not bench.topic(), "on purpose"
"""

CHOSEN = "delay or json_data or filter or ack_is_final or one_event or ping or break or that_fails or of_our_own"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_third_party_gets_the_matrix(pytester: pytest.Pytester, workers: str) -> None:
    pytester.makepyfile(test_ours=RIG)
    pytester.makeini("[pytest]\n")
    result = pytester.runpytest_subprocess(
        "-n", workers, "-k", CHOSEN, "--contract-report", "json=out/matrix.json", "--contract-report", "md=matrix.md"
    )
    result.stdout.fnmatch_lines(["*= contract =*", "*ours*", "*fake*"])
    form = json.loads((pytester.path / "out" / "matrix.json").read_text())
    cells = {case: (row["ours"]["outcome"], row["ours"]["reason"]) for case, row in form["cases"].items()}
    assert cells["settle.ack_is_final"] == ("passed", "")
    assert cells["test_ours.of_our_own"] == ("passed", "")
    assert cells["publish.delay"] == ("not run", "our clock stands still")
    assert cells["envelope.json_data[null]"] == ("not run", "no JSON")
    assert cells["consume.filter"] == ("unsupported", "filter is not declared, and was refused")
    assert cells["life.connections_break"] == ("not run", "the rig has no way to break connections")
    assert cells["test_ours.that_fails"][0] == "failed"
    assert "on purpose" in cells["test_ours.that_fails"][1]
    assert form["rigs"]["ours"]["counts"]["failed"] == 1
    assert (pytester.path / "matrix.md").read_text().startswith("# Contract matrix")


def test_rig_that_does_not_start_fails_its_cases(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_ours=RIG.replace('yield "memory://third-party"', 'raise OSError("no broker here")'))
    pytester.makeini("[pytest]\n")
    pytester.runpytest_subprocess("-n0", "-k", "ping", "--contract-report", "json=matrix.json")
    form = json.loads((pytester.path / "matrix.json").read_text())
    assert form["cases"]["life.ping"]["ours"]["outcome"] == "failed"
    assert "no broker here" in form["cases"]["life.ping"]["ours"]["reason"]


TWINS = (
    RIG.replace('quirks = {"publish.delay": "our clock stands still", "envelope.json_data": "no JSON"}', "")
    + """

class TwinRig(OurRig):
    name = "twin"
    twin = "ours"
    quirks = {"settle.ack_is_final": "it is different"}


class TestTwin(ContractSuite):
    rig = TwinRig()
"""
)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_twins_must_have_the_same_outcomes(pytester: pytest.Pytester, workers: str) -> None:
    pytester.makepyfile(test_ours=TWINS)
    pytester.makeini("[pytest]\n")
    result = pytester.runpytest_subprocess("-n", workers, "-k", "life and ping or filter")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*DIFFERENT*")
    result = pytester.runpytest_subprocess("-n", workers, "-k", "ping or ack_is_final")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*DIFFERENT: settle.ack_is_final is not run on twin, and passed on ours"])


def test_report_of_an_unknown_kind_is_refused(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeini("[pytest]\n")
    result = pytester.runpytest_subprocess("--contract-report", f"xml={tmp_path / 'x'}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*json=FILE or md=FILE*"])


def test_pytest_without_contract_cases_says_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.makeini("[pytest]\n")
    result = pytester.runpytest_subprocess("-n0")
    result.stdout.no_fnmatch_line("*contract =*")
