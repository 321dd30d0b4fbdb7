from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parent))  # for what the tests of this directory share

from shops import PROGRAM

from cloudevents_bridge import Broker, CloudEvent, connect
from cloudevents_bridge.cli.app import app

PROJECT = """
default = "local"
[topics.orders]
subscriptions = ["billing", "stock"]
[profiles.local]
url = "sqlite:///events.db"
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Ceb = Callable[..., Result]
Process = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("CLOUDEVENTS_BRIDGE_") or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ceb() -> Ceb:
    """Run a command in this process."""

    def run(*args: str, stdin: str | bytes = "") -> Result:
        result = CliRunner().invoke(app, list(args), input=stdin)
        return Result(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a bridge.toml and a broker that has what is declared there."""
    path = tmp_path / "bridge.toml"
    path.write_text(PROJECT)
    with connect() as made:
        made.topology.apply()
    return path


@pytest.fixture
def broker(project: Path) -> Iterator[Broker]:
    with connect() as made:
        yield made


@pytest.fixture
def start() -> Iterator[Process]:
    """Start a command in a process of its own, which ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*args: str, **settings: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, "-m", "cloudevents_bridge", *args], text=True, **{**pipes, **settings}
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def shop(project: Path) -> Path:
    path = project.parent / "shop.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def publish(broker: Broker) -> Callable[..., None]:
    def one(id: str, data: object = None, type: str = "t") -> None:
        broker.publish("orders", CloudEvent(type=type, source="/s", id=id, data=data))

    return one
