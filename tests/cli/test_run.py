"""`ceb run`: a program's handlers in one process and in several."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from shops import PATIENCE, PROGRAM, Process, gone, ids, put, seen, until

from cloudevents_bridge import Broker

Ceb = Callable[..., Any]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


def test_it_handles_what_is_there_and_says_what_it_did(start: Process, shop: Path, publish: Any) -> None:
    for n in range(3):
        publish(str(n))
    publish("no", type="bad")
    done = start("run", "shop:router", "orders/billing", "--until-idle", "0.3", "--json")
    out, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, err
    told = json.loads(out)
    assert (told["handled"], told["failed"], told["dead_lettered"]) == (3, 1, 1)
    assert sorted(ids()) == ["0", "1", "2"]


def test_a_failure_is_shown_with_the_programs_own_stack(start: Process, shop: Path, publish: Any) -> None:
    publish("1", "fails")
    done = start("run", "shop:router", "orders/billing", "--until-idle", "0.1")
    _, err = done.communicate(timeout=PATIENCE)
    assert "the run of event 1 (t) of orders/billing, attempt 1, failed" in err
    assert "shop.py" in err
    assert "ValueError: no stock" in err
    assert "cloudevents_bridge" not in err.partition("Traceback")[2].partition("ValueError")[0]
    assert "0 handled, " in err


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("shop", "'shop' names no router: write MODULE:ROUTER"),
        ("shp:router", "there is no module 'shp'"),
        ("shop:rooter", "shop has no 'rooter'; did you mean router?"),
        ("shop:number", "shop:number is of type int"),
        ("shop:twice", "cannot handle events: twice asks for the data twice"),
        ("broken:router", "importing broken failed at broken.py:2: ZeroDivisionError"),
        ("typo:router", "importing typo failed at typo.py:1: SyntaxError"),
        ("needs:router", "importing needs failed at needs.py:1: it needs 'not_there', which is not installed"),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_program_that_cannot_run_is_one_line(
    start: Process, shop: Path, program: str, says: str, processes: str
) -> None:
    Path("broken.py").write_text("x = 1\n1 / 0\n")
    Path("typo.py").write_text("def\n")
    Path("needs.py").write_text("import not_there\n")
    done = start("run", program, "orders/billing", "--processes", processes, "-q")
    out, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 2, err
    assert says in err
    assert len(err.splitlines()) == 1
    assert out == ""


def test_a_missing_subscription_is_not_found(start: Process, shop: Path) -> None:
    for processes in ("1", "2"):
        done = start("run", "shop:router", "orders/nobody", "--processes", processes)
        _, err = done.communicate(timeout=PATIENCE)
        assert done.returncode == 3, err
        assert "subscription nobody of topic orders does not exist" in err
        assert "Traceback" not in err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_stops_it_and_gives_back_what_runs(
    start: Process, shop: Path, publish: Any, broker: Broker, signum: signal.Signals, code: int, processes: str
) -> None:
    publish("1", "hangs")
    run = start("run", "shop:router", "orders/billing", "--grace", "0.2", "--processes", processes)
    until(lambda: ids() == ["1"])
    begun = time.monotonic()
    run.send_signal(signum)
    _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == code, err
    assert time.monotonic() - begun < 10
    with broker.subscriber("orders", "billing") as subscriber:
        [delivery] = subscriber.receive(wait=5)
        assert (delivery.event.id, delivery.attempt) == ("1", 1)


def test_the_second_interrupt_does_not_wait(start: Process, shop: Path, publish: Any) -> None:
    publish("1", "hangs")
    run = start("run", "shop:router", "orders/billing", "--grace", "60")
    until(lambda: ids() == ["1"])
    begun = time.monotonic()
    while run.poll() is None and time.monotonic() - begun < PATIENCE:
        run.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert run.wait(PATIENCE) == 130
    assert time.monotonic() - begun < 20


def test_dead_letters_are_handled_instead(start: Process, shop: Path, publish: Any, broker: Broker) -> None:
    publish("no", type="bad")
    start("run", "shop:router", "orders/billing", "--until-idle", "0.2").communicate(timeout=PATIENCE)
    assert [each.event.id for each in broker.dead_letters("orders", "billing").find() if each.event] == ["no"]
    shop.write_text(PROGRAM.replace('raise ceb.Reject("never")', "pass"))
    done = start("run", "shop:router", "orders/billing", "--dead-letters", "--until-idle", "0.2")
    _, err = done.communicate(timeout=PATIENCE)
    assert "1 handled, 0 failed, 0 dead-lettered" in err
    assert list(broker.dead_letters("orders", "billing").find()) == []


class Probe:
    """What asks for the health."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except OSError:
            return 0, {}
        finally:
            connection.close()


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_health_says_how_it_is(start: Process, shop: Path, publish: Any, probe: Probe, processes: str) -> None:
    run = start("run", "shop:router", "orders/billing", "--health", str(probe.port), "--processes", processes)
    until(lambda: probe.get("/ready")[0] == 200)
    publish("1")
    until(lambda: probe.get("/live")[1].get("handled") == 1)
    assert probe.get("/live")[0] == 200
    assert probe.get("/elsewhere")[0] == 404
    run.terminate()
    run.communicate(timeout=PATIENCE)
    assert probe.get("/live")[0] == 0


def test_a_port_that_is_taken_is_one_line(start: Process, shop: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = start("run", "shop:router", "orders/billing", "--health", str(port))
        _, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 2
    assert f"--health 127.0.0.1:{port} cannot be served" in err


@pytest.mark.parametrize("value", ["web", "1:2:3:x", "70000"])
def test_what_is_no_port_is_refused(ceb: Ceb, value: str) -> None:
    result = ceb("run", "shop:router", "orders/billing", "--health", value)
    assert result.code == 2
    assert "is no port" in result.err


def test_several_processes_share_the_work_and_are_counted_together(start: Process, shop: Path, publish: Any) -> None:
    for n in range(40):
        publish(str(n))
    done = start("run", "shop:router", "orders/billing", "--processes", "2", "--until-idle", "1", "--json")
    out, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, err
    assert json.loads(out)["handled"] == 40
    assert sorted(map(int, ids())) == list(range(40))


def test_a_process_that_dies_is_started_again(start: Process, shop: Path, publish: Any) -> None:
    publish("1", "kills")
    run = start("run", "shop:router", "orders/billing", "--processes", "2")
    until(lambda: ids() == ["1"])
    publish("2")
    publish("3")
    until(lambda: set(ids()) >= {"1", "2", "3"})
    run.terminate()
    _, err = run.communicate(timeout=PATIENCE)
    assert "ended with exit code 9: it is started again in" in err
    assert run.returncode == 0


def test_no_process_outlives_a_supervisor_that_is_killed(start: Process, shop: Path, publish: Any) -> None:
    run = start("run", "shop:router", "orders/billing", "--processes", "2", "--grace", "1")
    for n in range(40):
        publish(str(n))
    until(lambda: len(set(ids())) == 40)
    processes = {process for _, process in seen()}
    run.kill()
    run.wait(PATIENCE)
    until(lambda: all(gone(process) for process in processes))


def test_reload_starts_anew_when_a_file_changes_and_survives_a_mistake(
    start: Process, shop: Path, publish: Any
) -> None:
    run = start("run", "shop:router", "orders/billing", "--reload")
    publish("1")
    until(lambda: ids() == ["1"])
    put(shop, "def\n")
    assert run.stderr is not None
    for line in run.stderr:
        if "waiting for a change" in line:
            break
    put(shop, PROGRAM.replace("{event.id}", "new-{event.id}"))
    publish("2")
    until(lambda: ids() == ["1", "new-2"])
    run.terminate()
    assert run.wait(PATIENCE) == 0
