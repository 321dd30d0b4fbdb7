"""The adapter that the documentation shows is installed, reachable by its URL, and keeps the contract."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "adapter"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The example with the metadata that installing it would write: building needs a network."""
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, tmp_path)
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


def run(folder: Path, *arguments: str, timeout: float = 60.0) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("CLOUDEVENTS_BRIDGE_", "PYTEST_"))}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_it_is_reached_by_its_url(installed: Path) -> None:
    (installed / "bridge.toml").write_text(
        'topics.orders.subscriptions = ["billing"]\nprofiles.here.url = "folder:///events"\ndefault = "here"\n'
    )
    run(installed, "-m", "cloudevents_bridge", "topology", "apply", "--yes")
    run(installed, "-m", "cloudevents_bridge", "publish", "orders", "--type", "com.example.x", "--data", "7")
    assert [path.name for path in (installed / "events" / "orders").iterdir()]
    shown = run(installed, "-m", "cloudevents_bridge", "receive", "orders/billing", "--ack", "--wait", "5", "--json")
    assert '"data":7' in shown


@pytest.mark.skipif(
    importlib.util.find_spec("cloudevents_bridge_contract") is None, reason="the contract suite is not installed"
)
@pytest.mark.timeout(300)
def test_it_keeps_the_contract(installed: Path) -> None:
    # mostly waiting: side by side it takes a third
    run(installed, "-m", "pytest", "-q", "-n4", "-p", "no:cacheprovider", "test_folder.py", timeout=280)
