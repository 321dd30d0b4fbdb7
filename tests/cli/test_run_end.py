"""How `ceb run` ends, in one process and in several."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from shops import PATIENCE, Process, ids, until, write

from cloudevents_bridge import Broker

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

BOTH = pytest.mark.parametrize("processes", ["1", "2"])


def run(start: Process, *words: str, **settings: Any) -> subprocess.Popen[str]:
    return start("run", "shop:handle", "orders/billing", *words, **settings)


@BOTH
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_handler_may_end_what_it_began(
    start: Process, publish: Any, broker: Broker, processes: str, signum: signal.Signals
) -> None:
    write("""
        while not os.path.exists("go"):
            time.sleep(0.01)
        seen(event, "done")
    """)
    publish("1")
    publish("2")
    running = run(start, "--grace", "60", "--processes", processes, "--json", "-v")
    until(lambda: "1" in ids())
    running.send_signal(signum)
    Path("go").touch()
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, err
    told = json.loads(out)
    assert told["handled"] == ids().count("done") > 0
    assert told["failed"] == 0
    with broker.subscriber("orders", "billing") as subscriber:
        assert len(subscriber.receive(wait=1)) == 2 - told["handled"]


@BOTH
def test_the_second_interrupt_does_not_wait_and_gives_back(
    start: Process, publish: Any, broker: Broker, processes: str
) -> None:
    write("time.sleep(60)")
    publish("1")
    running = run(start, "--grace", "60", "--processes", processes)
    until(lambda: ids() == ["1"])
    begun = time.monotonic()
    while running.poll() is None and time.monotonic() - begun < PATIENCE:
        running.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert time.monotonic() - begun < 20
    with broker.subscriber("orders", "billing") as subscriber:
        [delivery] = subscriber.receive(wait=5)
        assert (delivery.event.id, delivery.attempt) == ("1", 1)


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        "await asyncio.to_thread(time.sleep, 60)",
        "threading.Thread(target=time.sleep, args=(60,), daemon=False).start(); await asyncio.sleep(60)",
    ],
)
def test_threads_of_the_program_cannot_keep_it(start: Process, publish: Any, processes: str, body: str) -> None:
    write(body, how="async def")
    publish("1")
    running = run(start, "--grace", "0.2", "--processes", processes)
    until(lambda: ids() == ["1"])
    begun = time.monotonic()
    running.terminate()
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, err
    assert time.monotonic() - begun < 15
    assert "a thread of the program does not end" in err


@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [
        ("sys.exit(7)", 7, ""),
        ("sys.exit(0)", 0, ""),
        ("sys.exit('enough')", 1, "enough"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
@BOTH
def test_a_handler_may_end_the_program(
    start: Process, publish: Any, broker: Broker, processes: str, ending: str, code: int, says: str
) -> None:
    write(ending)
    publish("1")
    running = run(start, "--processes", processes)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == code, err
    assert says in err
    assert "started again" not in err
    assert re.search("0 handled, [12] failed, 0 dead-lettered", err)  # the other one may have had it, too
    assert set(ids()) == {"1"}


@BOTH
def test_ctrl_c_while_the_program_is_imported_is_prompt_and_quiet(
    start: Process, broker: Broker, processes: str
) -> None:
    Path("shop.py").write_text("import time\nopen('importing', 'w').close()\ntime.sleep(60)\n")
    running = run(start, "--processes", processes, start_new_session=True)
    until(Path("importing").exists)
    begun = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, err
    assert time.monotonic() - begun < 15
    assert "Traceback" not in err


@pytest.mark.parametrize("after", [0.3, 0.7, 1.1])
def test_ctrl_c_at_any_moment_leaves_no_traces_of_children(start: Process, broker: Broker, after: float) -> None:
    write("pass")
    running = run(start, "--processes", "2", start_new_session=True)
    assert running.stderr is not None
    assert "running shop:handle" in running.stderr.readline()
    time.sleep(after)  # whatever they do then
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "started again" not in err


def test_a_log_that_nobody_reads_stops_nothing(start: Process, publish: Any) -> None:
    write("raise ValueError('no stock')")
    read, written = os.pipe()
    os.close(read)
    publish("1")
    running = run(start, "--until-idle", "1", "--json", "-q", "-v", stderr=written)
    os.close(written)
    out, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert json.loads(out)["failed"] >= 1


def test_what_was_done_is_told_also_when_it_fails(start: Process, publish: Any) -> None:
    write("""
        if event.id == "2":
            sys.exit(3)
    """)
    publish("1")
    publish("2")
    running = run(start, "--json")
    out, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 3
    assert json.loads(out)["handled"] == 1


def test_the_log_says_when_and_which_process(start: Process, publish: Any) -> None:
    write("raise ValueError('no stock')")
    for processes, who in (("1", r"the run of"), ("2", r"process \d: the run of")):
        publish("1")  # anew: the one that failed comes again when its delay is over
        running = run(start, "--until-idle", "0.3", "--processes", processes)
        _, err = running.communicate(timeout=PATIENCE)
        assert re.search(rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d warning: {who} event 1 ", err, re.M), err
        assert "    ValueError: no stock" in err
