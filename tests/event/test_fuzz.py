"""The fuzz target runs, finds nothing in a few thousand inputs, and would say so if it did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"

pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="the fuzz target is in the repository only")


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(BENCH)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)


def test_thousands_of_inputs_give_events_or_decode_errors() -> None:
    done = run("import sys, fuzz_decode; sys.exit(fuzz_decode.main())", "--inputs", 6000, "--seed", 2)
    assert done.returncode == 0, done.stderr
    total = done.stdout.splitlines()[-1].replace(",", "").replace("|", " ").split()
    assert total[0] == "all"
    events, refused, neither = map(int, total[1:])
    assert events + refused == 6000
    assert events > 1000
    assert refused > 1000
    assert neither == 0


@pytest.mark.parametrize(
    "broken",
    [
        "_mapped._unescape = lambda name, text: bytes.fromhex(text)",
        "CloudEvent.to_json = lambda event: b'{}'",
        "CloudEvent.data = property(lambda event: {}['x'])",
    ],
    ids=["decoder", "encoder", "data"],
)
def test_what_is_neither_is_shown_and_fails(broken: str) -> None:
    code = (
        "import sys, fuzz_decode\n"
        "from cloudevents_bridge import CloudEvent\n"
        "from cloudevents_bridge.bindings import _mapped\n"
        f"{broken}\n"
        "sys.exit(fuzz_decode.main())"
    )
    done = run(code, "--inputs", 600)
    assert done.returncode == 1, done.stderr
    number = int(done.stderr.partition("input ")[2].split()[0])
    assert run(code, "--only", number).returncode == 1
    assert done.stderr.count("Traceback") <= 10
