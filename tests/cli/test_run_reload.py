"""`ceb run --reload`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shops import PATIENCE, Lines, Process, ids, until, write

from cloudevents_bridge.cli.reloader import Files

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

RELOAD = ("run", "shop:handle", "orders/billing", "--reload", "--grace", "20")


def test_a_change_lets_the_handler_end_and_starts_anew(start: Process, publish: Any) -> None:
    write("while not os.path.exists('go'): time.sleep(0.01)\nseen(event, 'old')")
    running = start(*RELOAD)
    lines = Lines(running.stderr)
    publish("1")
    until(lambda: ids() == ["1"])
    Path("parts").mkdir()
    Path("parts/more.py").touch()
    until(lambda: lines.find("parts/more.py changed: starting anew"))
    write("seen(event, 'new')")
    Path("go").touch()
    publish("2")
    until(lambda: "new" in ids())
    assert ids() == ["1", "old", "2", "new"]
    running.terminate()
    assert running.wait(PATIENCE) == 0
    until(lambda: lines.find("2 handled, 0 failed"))


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("def\n", "error: importing shop failed at shop.py:1: SyntaxError"),
        ("import os\nos._exit(4)\n", "the process ended with exit code 4"),
        ("import os\nos.kill(os.getpid(), 9)\n", "the process was killed by SIGKILL"),
        ("router = 3\n", "error: shop has no 'handle'"),
    ],
)
def test_a_mistake_is_said_and_waits_for_the_next_change(start: Process, publish: Any, mistake: str, says: str) -> None:
    Path("shop.py").write_text(mistake)
    publish("1")
    running = start(*RELOAD)
    lines = Lines(running.stderr)
    until(lambda: lines.find("waiting for a change"))
    assert lines.find(says)
    write("pass")
    until(lambda: ids() == ["1"])
    assert len(lines.find("waiting for a change")) == 1
    running.send_signal(signal.SIGINT)
    assert running.wait(PATIENCE) == 130


def test_a_handler_that_hangs_is_left_behind_when_the_grace_is_over(start: Process, publish: Any) -> None:
    write("time.sleep(60)")
    running = start("run", "shop:handle", "orders/billing", "--reload", "--grace", "0.1")
    publish("1")
    until(lambda: ids() == ["1"])
    write("seen(event, 'new')")
    until(lambda: ids() == ["1", "1", "new"])
    running.terminate()
    assert running.wait(PATIENCE) == 0


def test_it_ends_when_it_is_idle(start: Process, publish: Any) -> None:
    write("pass")
    publish("1")
    done = start(*RELOAD, "--until-idle", "0.2")
    _, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0
    assert "1 handled" in err


def test_it_is_for_one_process(ceb: Callable[..., Any]) -> None:
    result = ceb(*RELOAD, "--processes", "2")
    assert result.code == 2
    assert "--reload is for one process" in result.err


class TestFiles:
    def test_what_is_changed_added_and_removed(self, tmp_path: Path) -> None:
        (tmp_path / "a.py").write_text("1")
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "b.py").write_text("1")
        files = Files(tmp_path)
        assert files.changed() == []
        (tmp_path / "a.py").write_text("22")
        (tmp_path / "package" / "c.py").touch()
        assert files.changed() == ["a.py", "package/c.py"]
        assert files.changed() == []
        os.utime(tmp_path / "a.py", (1, 1))
        (tmp_path / "package" / "b.py").unlink()
        assert files.changed() == ["a.py", "package/b.py"]

    @pytest.mark.parametrize(
        "path", ["notes.txt", ".git/a.py", "__pycache__/a.py", "node_modules/a.py", "venv/lib/a.py", "a.pyc"]
    )
    def test_what_is_left_out(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "venv").mkdir()
        (tmp_path / "venv" / "pyvenv.cfg").touch()
        files = Files(tmp_path)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
        assert files.changed() == []
