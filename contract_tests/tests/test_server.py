"""A server process: ready when it says so, ended with its owner, and clear about why it did not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from cloudevents_bridge_contract.emulators.process import Server, ServerError, free_port, wait_until

LISTENER = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
open("child", "w").write(str(child.pid))
open("pid", "w").write(str(os.getpid()))
print("hello", os.environ.get("COLOUR"), flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def _listener(**options: float) -> Server:
    return Server(
        "listener",
        lambda server: [sys.executable, "-c", LISTENER, str(server.port)],
        _answers,
        environment=lambda server: {"COLOUR": "green"},
        **options,
    )


def _answers(server: Server) -> bool:
    with urllib.request.urlopen(f"http://{server.address}/", timeout=5) as answer:
        return bool(answer.status == 200)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:  # it has ended meanwhile, or there is no /proc to tell zombies by
        return not Path("/proc/self").exists()


@pytest.mark.parametrize("grace", [0.0, 5.0])
def test_runs_while_it_is_open(grace: float) -> None:
    with _listener(grace=grace) as server:
        assert _answers(server)
        assert "hello green" in server.log.read_text()
        folder = server.folder
        pids = [int((folder / name).read_text()) for name in ("pid", "child")]
        assert all(map(_alive, pids))
    assert not server.running
    assert not folder.exists()
    assert wait_until(lambda: not any(map(_alive, pids)), 10.0)
    server.stop()


def test_restarts_on_its_port_with_nothing_kept() -> None:
    with _listener() as server:
        port = server.port
        (server.folder / "kept").touch()
        server.restart()
        assert server.port == port
        assert _answers(server)
        assert not (server.folder / "kept").exists()


def test_one_that_ends_first_says_why() -> None:
    server = Server("broken", lambda server: [sys.executable, "-c", "raise SystemExit('no licence')"], _answers)
    with pytest.raises(ServerError, match=r"broken ended with status 1 on 127.0.0.1:\d+; it said: no licence"):
        server.start()
    assert not server.running


def test_one_that_is_never_ready_is_ended() -> None:
    server = _listener(patience=0.5)
    server._ready = lambda server: False
    with pytest.raises(ServerError, match=r"not ready within 0.5 s"):
        server.start()
    assert not server.running
    with pytest.raises(OSError, match="refused"):
        _answers(server)


def test_program_that_is_not_there_is_said() -> None:
    with pytest.raises(ServerError, match="no-such-program"):
        Server("missing", lambda server: ["no-such-program"], _answers).start()


OWNER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_server import _listener
server = _listener().start()
print(server.folder, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_is_killed(number: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        pids = [int((folder / name).read_text()) for name in ("pid", "child")]
        assert all(map(_alive, pids))
        owner.send_signal(number)
    assert wait_until(lambda: not any(map(_alive, pids)) and not folder.exists(), 20.0)


def test_free_port_is_free() -> None:
    assert free_port() > 1024
