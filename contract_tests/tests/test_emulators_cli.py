"""Emulators in the background, as `ceb emulators` keeps them. What they keep here is a web server of Python's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudevents_bridge_contract.emulators import keeper
from cloudevents_bridge_contract.emulators.catalog import CannotStartError
from cloudevents_bridge_contract.emulators.process import wait_until

SITE = """
    import sys
    from contextlib import contextmanager
    from urllib.request import urlopen

    from cloudevents_bridge_contract.emulators import catalog
    from cloudevents_bridge_contract.emulators.process import HOST, Server

    def command(server):
        return [sys.executable, "-m", "http.server", str(server.port), "--bind", HOST]

    def ready(server):
        return urlopen(f"http://{server.address}/", timeout=5).status == 200

    @contextmanager
    def web():
        with Server("web", command, ready) as server:
            yield {"WEB_AT": f"http://{server.address}/", "WEB_WORDS": "two words"}

    @contextmanager
    def missing():
        raise catalog.CannotStartError("it is not here; to get it: fetch it")
        yield {}

    catalog.CLOUDS = {"web": web, "missing": missing}
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ceb(tmp_path: Path) -> Iterator[Run]:
    """`ceb` on a machine of our own, with a cloud of our own."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(SITE))
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cloudevents_bridge", "emulators", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    yield run
    assert run("down", "web").returncode == 0


def told(ceb: Run, *words: str) -> dict[str, object]:
    done = ceb(*words, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def serves(url: object) -> bool:
    try:
        with urllib.request.urlopen(str(url), timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_up_prints_the_environment_and_down_ends_it(ceb: Run) -> None:
    done = ceb("up", "web")
    assert done.returncode == 0, done.stderr
    said = subprocess.run(
        ["sh", "-c", 'eval "$1"; echo "$WEB_AT $WEB_WORDS"', "sh", done.stdout],
        capture_output=True,
        text=True,
        check=True,
    )
    url, _, words = said.stdout.strip().partition(" ")
    assert words == "two words"
    assert serves(url)
    assert told(ceb, "up", "web")["environment"] == {"WEB_AT": url, "WEB_WORDS": "two words"}, "there is a second one"
    assert ceb("env", "web").stdout == done.stdout
    assert ceb("status", "web").stdout == done.stdout.splitlines(keepends=True)[0]
    assert ceb("down", "web").stdout == "web: ended\n"
    assert not serves(url)
    assert ceb("down", "web").stdout == "web: not running\n"
    assert ceb("status", "web").stdout == "# web: not running\n"
    assert ceb("env", "web").returncode == 1


def test_one_whose_keeper_was_killed_is_gone_and_can_be_started_again(ceb: Run) -> None:
    first = told(ceb, "up", "web")
    os.kill(int(str(first["pid"])), signal.SIGKILL)
    environment = first["environment"]
    assert isinstance(environment, dict)
    assert wait_until(lambda: not serves(environment["WEB_AT"]), 20.0), "the server outlives who keeps it"
    assert told(ceb, "status", "web")["running"] is False
    second = told(ceb, "up", "web")
    assert second["pid"] != first["pid"]


def test_many_who_start_one_at_once_have_the_same(ceb: Run) -> None:
    """Also while others ask whether it runs, which takes the lock for a moment."""
    with ThreadPoolExecutor(6) as pool:
        status = [pool.submit(ceb, "status", "web") for _ in range(3)]
        started = [pool.submit(told, ceb, "up", "web") for _ in range(3)]
        assert all(each.result().returncode == 0 for each in status)
        assert len({each.result()["pid"] for each in started}) == 1


def test_a_keeper_waits_for_a_lock_that_is_only_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    asked, over = threading.Event(), threading.Event()

    def ask() -> None:
        with keeper._held("web"):
            asked.set()
            over.wait(20)

    asking = threading.Thread(target=ask)
    asking.start()
    asked.wait(20)
    with keeper._held("web") as at_once:
        assert not at_once
    threading.Timer(0.2, over.set).start()
    with keeper._held("web", patience=20.0) as in_time:
        assert in_time, "it took a look for a keeper"
    asking.join()


def test_a_place_that_is_another_ones_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"ceb-emulators-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotStartError, match=r"remove it, or set XDG_RUNTIME_DIR"):
        keeper.find("web")


def test_what_cannot_be_started_says_what_to_do(ceb: Run) -> None:
    done = ceb("up", "missing")
    assert done.returncode != 0
    assert "emulators of missing: it is not here; to get it: fetch it" in done.stderr
    assert "Traceback" not in done.stderr
    done = ceb("up", "nowhere")
    assert done.returncode == 2
    assert "'nowhere' has no emulators: they are web, missing" in done.stderr
