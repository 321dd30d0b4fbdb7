"""`ceb run --health`."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import click
import pytest
from shops import PATIENCE, Process, ids, until, write

from cloudevents_bridge.cli.health import AT_ONCE, Condition, Health
from cloudevents_bridge.types import Stats

STATS = Stats(5, 1, 0, 2, 0, connected=True, last_event=datetime(2026, 1, 31, 12, tzinfo=UTC))


class Rig:
    """A server, and what it is to say."""

    def __init__(self) -> None:
        self.condition = Condition(live=True, ready=True, stats=STATS)
        self.notes: list[str] = []
        self.port = 0

    def ask(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        return ask(self.port, path, method)


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, bytes]:
    connection = HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def stats(port: int, path: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ask(port, path)[1] or b"{}")
    return told


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    with Health(("127.0.0.1", 0), lambda: made.condition, made.notes.append) as health:
        made.port = health.port
        yield made
    assert ask(made.port, "/live") == (0, b"")
    until(lambda: not [thread for thread in threading.enumerate() if "process_request" in thread.name])


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("ready", [True, False])
def test_what_is_answered(rig: Rig, live: bool, ready: bool) -> None:
    rig.condition = Condition(live, ready, STATS)
    for path, well in (("/live", live), ("/ready?now", ready)):
        status, body = rig.ask(path)
        assert status == (200 if well else 503)
        assert json.loads(body) == {
            "handled": 5,
            "failed": 1,
            "dead_lettered": 0,
            "in_flight": 2,
            "stalled": 0,
            "connected": True,
            "last_event": "2026-01-31T12:00:00Z",
        }
    assert rig.notes == [f"health on http://127.0.0.1:{rig.port}/live and /ready"]


def test_what_is_not_there(rig: Rig) -> None:
    assert rig.ask("/")[0] == 404
    assert rig.ask("/live", "POST")[0] == 501
    assert rig.ask("/live", "HEAD") == (200, b"")


def test_a_client_that_says_nothing_holds_nobody_up(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.port)), socket.create_connection(("127.0.0.1", rig.port)) as half:
        half.sendall(b"GET /li")
        assert rig.ask("/live")[0] == 200


def test_the_number_of_threads_is_bounded(rig: Rig) -> None:
    clients = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(20)]
    try:
        clients[-1].settimeout(PATIENCE)
        assert clients[-1].recv(1) == b""  # turned away
        answering = [thread for thread in threading.enumerate() if "process_request" in thread.name]
        assert len(answering) <= AT_ONCE
    finally:
        for client in clients:
            client.close()
    until(lambda: rig.ask("/live")[0] == 200)


def test_another_address(rig: Rig) -> None:
    try:
        with socket.socket(socket.AF_INET6) as six:
            six.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    with Health(("::1", 0), lambda: rig.condition, rig.notes.append) as health:
        assert ask(health.port, "/live", host="::1")[0] == 200
        assert rig.notes[-1] == f"health on http://[::1]:{health.port}/live and /ready"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.1"])
def test_an_address_that_is_not_ours(rig: Rig, host: str) -> None:
    with pytest.raises(click.UsageError, match=f"--health {host}:0 cannot be served"):
        Health((host, 0), lambda: rig.condition, rig.notes.append)


def health_port(running: Any) -> int:
    for line in running.stderr:
        if line.startswith("health on "):
            return int(line.rpartition(":")[2].partition("/")[0])
    pytest.fail("it does not say where")


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_stalled_handler_is_not_live(start: Process, project: Path, publish: Any, processes: str) -> None:
    declared = '[topics.orders.subscriptions.billing]\nlease = "1s"\n'
    project.write_text(project.read_text().replace('subscriptions = ["billing", "stock"]\n', declared))
    write("while not os.path.exists('go'): time.sleep(0.01)")
    running = start("run", "shop:handle", "orders/billing", "--health", "0", "--processes", processes)
    port = health_port(running)
    until(lambda: ask(port, "/ready")[0] == 200)
    assert ask(port, "/live")[0] == 200
    publish("1")
    until(lambda: ask(port, "/live")[0] == 503)
    assert stats(port, "/live")["stalled"] == 1
    assert ask(port, "/ready")[0] == 200
    Path("go").touch()
    until(lambda: ask(port, "/live")[0] == 200)
    until(lambda: stats(port, "/live")["handled"] == 1)
    running.terminate()
    _, err = running.communicate(timeout=PATIENCE)
    assert "has been running for" in err
    assert 'shop.py", line' in err


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_it_is_not_ready_before_and_after(start: Process, publish: Any) -> None:
    write("while not os.path.exists('go'): time.sleep(0.01)", before="while not os.path.exists('up'): time.sleep(0.01)")
    running = start("run", "shop:handle", "orders/billing", "--health", "0", "--processes", "2", "--grace", "60")
    port = health_port(running)
    assert ask(port, "/ready")[0] == 503
    assert ask(port, "/live")[0] == 200
    Path("up").touch()
    until(lambda: ask(port, "/ready")[0] == 200)
    publish("1")
    until(lambda: ids() == ["1"])
    running.send_signal(signal.SIGTERM)
    until(lambda: ask(port, "/ready")[0] == 503)
    assert ask(port, "/live")[0] == 200
    Path("go").touch()
    _, err = running.communicate(timeout=PATIENCE)
    assert "1 handled" in err
    assert ask(port, "/live")[0] == 0


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_one_that_was_stopped_is_not_ready(start: Process, publish: Any) -> None:
    write("while not os.path.exists('go'): time.sleep(0.01)")
    running = start("run", "shop:handle", "orders/billing", "--health", "0", "--grace", "60")
    port = health_port(running)
    publish("1")
    until(lambda: ids() == ["1"])
    assert ask(port, "/ready")[0] == 200
    running.terminate()
    until(lambda: ask(port, "/ready")[0] == 503)
    assert ask(port, "/live")[0] == 200
    Path("go").touch()
    assert running.wait(PATIENCE) == 0
