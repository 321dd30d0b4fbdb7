"""How long `import cloudevents_bridge` and `ceb --help` take, and the AWS adapter where it is installed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

from common import machine, median, table

IMPORT = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
AWS = "import cloudevents_bridge_aws.connection, botocore.session"
"""The adapter with the SDK, which comes with the first request: all that a client imports, but making none."""
CONNECT = "import cloudevents_bridge as ceb; broker = ceb.connect('aws://eu-west-1')"


# As after an installation: with the bytecode that pip compiles, whatever this machine's environment says.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def import_time(statement: str) -> float:
    """Seconds, without those that the interpreter itself takes."""
    command = [sys.executable, "-c", IMPORT.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout)


def wall_time(*arguments: str) -> float:
    """Seconds for a whole process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    return time.perf_counter() - began


def main() -> int:
    """Print the table; exit 1 where a median is over its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    aws: dict[str, tuple[Callable[[], float], float]] = {
        "connect('aws://…'), without a request": (lambda: import_time(CONNECT), float("inf")),
        "the AWS adapter with its SDK": (lambda: import_time(AWS), 250.0),
        "connect('aws://…'), and a client of SQS": (lambda: import_time(f"{CONNECT}; broker.native.sqs"), float("inf")),
    }
    measured: dict[str, tuple[Callable[[], float], float]] = {
        "import cloudevents_bridge": (lambda: import_time("import cloudevents_bridge"), 60.0),
        "ceb --help": (lambda: wall_time("-m", "cloudevents_bridge", "--help"), 200.0),
        **({} if find_spec("boto3") is None else aws),
        "python -c pass": (lambda: wall_time("-c", "pass"), float("inf")),
    }
    times: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(runs + 1):
        for name, (measure, _) in measured.items():
            taken = measure()
            if number:  # the first run fills the caches
                times[name].append(taken * 1000)
    rows = []
    over = False
    for name, (_, target) in measured.items():
        over |= median(times[name]) > target
        rows.append(
            [
                name,
                f"{median(times[name]):.0f}",
                f"{min(times[name]):.0f}",
                f"under {target:.0f}" if target < 1e9 else "",
            ]
        )
    print(f"{machine()}; {runs} runs, milliseconds\n")
    print(table(["", "median", "best", "target"], rows))
    return int(over)


if __name__ == "__main__":
    raise SystemExit(main())
