"""`ceb contract`: choosing, explaining, reporting, sweeping."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudevents_bridge import Subscription, Topic, connect
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_contract import cli
from cloudevents_bridge_contract.existing import Pool

FEW = "settle.ack_is_final"


def _ceb(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloudevents_bridge", "contract", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "CLOUDEVENTS"))},
    )


def test_run_prints_and_writes_the_matrix(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    reports = [f"--report={kind}=out.{kind}" for kind in ("json", "md", "junit")]
    done = _ceb(tmp_path, url, "--only", "settle", "-k", "double_ack or ack_is_final", "--max-events", "5", *reports)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "settle.ack_is_final" in done.stdout
    form = json.loads((tmp_path / "out.json").read_text())
    assert form["rigs"]["sqlite"]["counts"] == {"passed": 2, "failed": 0, "unsupported": 0, "not run": 0}
    assert "sqlite" in (tmp_path / "out.md").read_text()
    assert "test_ack_is_final" in (tmp_path / "out.junit").read_text()


def test_broken_broker_fails(tmp_path: Path) -> None:
    done = _ceb(tmp_path, "faulty://acks-nothing?over=memory%3A%2F%2Fx", "--only", "settle", "-k", "ack_is_final")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    assert "it was acked" in done.stdout


def test_not_run_can_be_a_failure(tmp_path: Path) -> None:
    chosen = ["memory://x", "--only", "life", "-k", "connections_break"]
    assert _ceb(tmp_path, *chosen).returncode == 0
    assert _ceb(tmp_path, *chosen, "--fail-on-not-run").returncode == 1


def test_a_stray_configuration_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("[topics.stray]\nordered = true\n[topics.stray.subscriptions.other]\n")
    url = f"sqlite:///{tmp_path / 'events.db'}"
    done = _ceb(tmp_path, url, "--only", "topology", "-k", "second_apply")
    assert done.returncode == 0, done.stdout + done.stderr


def test_rig_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(
        "from contextlib import contextmanager\n"
        "from cloudevents_bridge_contract import Rig\n"
        "class OurRig(Rig):\n"
        "    name = 'ours'\n"
        "    kind = 'fake'\n"
        "    @contextmanager\n"
        "    def start(self):\n"
        "        yield 'memory://ours'\n"
    )
    done = _ceb(tmp_path, "--rig", "ours:OurRig", "-k", "one_event")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ours" in done.stdout
    for wrong in ("ours:Nothing", "nothing:Rig", "pathlib:Path"):
        done = _ceb(tmp_path, "--rig", wrong)
        assert done.returncode == 2
        assert wrong.partition(":")[0] in done.stderr
        assert "Traceback" not in done.stderr


def test_explain_creates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "events.db"
    assert cli.run(f"sqlite:///{file}", explain=True, only=["publish", "life"], prefix="mine", max_events=7) == 0
    said = capsys.readouterr().out
    for word in ("capabilities", "rights", "requests", "mine-", "at most 7 events", "publish 2", "life "):
        assert word in said, said
    assert "envelope" not in said
    assert not file.exists()


def test_sweep_removes_what_has_the_prefix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    topics = [Topic("ceb-topic-0001", subscriptions=["alpha"]), Topic("orders"), Topic("cebra")]
    with connect(url, topics=topics) as broker:
        broker.topology.apply()
    assert cli.run(url, sweep=True) == 0
    assert "removed 1" in capsys.readouterr().out
    with connect(url, topics=topics) as broker:
        assert {change.name for change in broker.topology.plan()} >= {"ceb-topic-0001"}
        assert broker.topology.plan(Topic("orders"), Topic("cebra")) == []


def test_existing_topics_are_used_and_left(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    topic = Topic("given", subscriptions=[Subscription("mine", lease=30.0)])
    with connect(url, topics=[topic]) as broker:
        broker.topology.apply()
    pool = tmp_path / "pool.toml"
    pool.write_text("[topics.given]\n[topics.given.subscriptions.mine]\nlease = 30.0\n")
    done = _ceb(tmp_path, url, "--existing", str(pool), "-k", "one_event or two_subscriptions or plan_apply")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no existing topic serves" in done.stdout
    assert "nothing may be created here" in done.stdout
    with connect(url, topics=[topic]) as broker:
        assert broker.topology.plan() == []


def test_session_deadline_ends_the_run(tmp_path: Path) -> None:
    done = _ceb(tmp_path, "memory://x", "--only", "settle", "--deadline", "1s")
    assert done.returncode == cli.TIMED_OUT, done.stdout + done.stderr
    assert "the run ended before it" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"only": ["nothing"]}, "nothing"), ({"prefix": "Not Portable"}, "Not Portable"), ({"k": "no_such_case"}, "case")],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        cli.run("memory://x", **arguments)  # type: ignore[arg-type]


def test_pool_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("", "not toml [", "[topics.orders]\nspeed = 7\n", "topics = 7"):
        file = tmp_path / "pool.toml"
        file.write_text(text)
        with pytest.raises(ConfigurationError):
            Pool.read(file)
    with pytest.raises(ConfigurationError):
        Pool.read(tmp_path / "missing.toml")
