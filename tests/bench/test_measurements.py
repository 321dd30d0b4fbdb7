"""The measurements still run; and short forms of the runs that are a proof and no measurement."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"

pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="the measurements are in the repository only")


def run(directory: Path, script: str, *arguments: object) -> str:
    command = [sys.executable, str(BENCH / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(directory.iterdir()) == []
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forks")
def test_nothing_with_a_receipt_is_lost_when_processes_are_killed(tmp_path: Path) -> None:
    told = run(tmp_path, "durability.py", "--kills", 60, "--copies", 2, "--life", 0.1)
    counts = {what: int(count.replace(",", "")) for count, what in re.findall(r"^ *([\d,]+) (\w+)", told, re.M)}
    assert counts["events"] > 100
    assert counts["acknowledged"] > 100
    assert counts["copies"] == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forks")
def test_nothing_is_lost_or_overtaken_when_workers_are_killed(tmp_path: Path) -> None:
    told = run(tmp_path, "worker_kills.py", "--kills", 60, "--life", 0.3)
    counts = {what: int(count.replace(",", "")) for count, what in re.findall(r"^ *([\d,]+) (\w+)", told, re.M)}
    assert counts["kills"] == 60
    assert counts["events"] > 1000
    assert counts["begun"] == counts["acknowledged"] == 0


@pytest.mark.parametrize("broker", ["memory", "awkward"])
def test_nothing_is_lost_or_falsely_reported_when_a_driver_fails(tmp_path: Path, broker: str) -> None:
    told = run(tmp_path, "worker_faults.py", "--events", 2000, "--broker", broker)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("|")]
    troubles = {row[0]: sum(map(int, row[1:-1])) for row in cells if row[0] in ("ack", "receive", "send")}
    assert min(troubles.values()) > 5
    counts = {row[0]: int(row[1].replace(",", "")) for row in cells if len(row) == 3 and row[1][0].isdigit()}
    assert counts["accepted"] + counts["refused"] + counts["unknown"] == 2000
    assert counts["accepted, and lost"] == counts["refused, and arrived"] == 0


def test_growth_is_measured(tmp_path: Path) -> None:
    told = run(
        tmp_path, "growth.py", "--events", 2000, "--subscriptions", 3, "--processes", 2, "--sample", 1000
    ).splitlines()
    rows = [line.split("|")[1].strip() for line in told if line.startswith("| ")]
    assert [re.sub(r" \(.*", "", row) for row in rows] == [
        "",
        "0 events stored",
        "200 events stored",
        "2,000 events stored",
        "1 subscriptions",
        "3 subscriptions",
        "1 processes",
        "2 processes",
    ]


def test_a_router_is_measured(tmp_path: Path) -> None:
    told = run(tmp_path, "router.py", "--rounds", 10, "--calls", 500)
    assert len(re.findall(r"under 3", told)) == 8


def test_a_worker_is_measured(tmp_path: Path) -> None:
    told = run(tmp_path, "worker.py", "--events", 500, "--rounds", 1, "--waiting", 2000, "--seconds", 0.5)
    assert len(re.findall(r"under 25", told)) == 6
    handled, megabytes = re.search(r"([\d,]+) handled in .* ([\d.]+) MB of memory", told).groups()  # type: ignore[union-attr]
    assert int(handled.replace(",", "")) > 0
    assert float(megabytes) < 100


def test_telemetry_that_is_off_is_measured(tmp_path: Path) -> None:
    told = run(tmp_path, "telemetry.py", "--rounds", 1, "--events", 50)
    assert [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("| ")][1:] == [
        "publish",
        "publish_many",
        "receive + ack",
        "run a handler",
        "the question whether it is on",
    ]
