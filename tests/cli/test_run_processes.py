"""`ceb run --processes`: what becomes of processes that die, hang, or lose their supervisor."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from shops import PATIENCE, Lines, Process, gone, ids, seen, until, write

from cloudevents_bridge.cli.supervisor import SILENT, Supervisor, how
from cloudevents_bridge.stats import Stats, total

if TYPE_CHECKING:
    from cloudevents_bridge.cli.children import Child

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

RUN = ("run", "shop:handle", "orders/billing", "--processes", "2")


def pids() -> set[int]:
    return {pid for _, pid in seen()}


def both_work(publish: Any) -> set[int]:
    """Publish until both processes have handled something; their ids."""
    for number in range(10_000):
        publish(f"first-{number}")
        until(lambda number=number: f"first-{number}" in ids())  # type: ignore[misc]
        if len(pids()) == 2:
            return pids()
    raise AssertionError("one process takes all")


def test_a_handler_may_start_processes_which_keep_nothing_open(start: Process, publish: Any) -> None:
    write("""
        import multiprocessing, subprocess
        process = multiprocessing.get_context("spawn").Process(target=print, args=("child",))
        process.start()
        process.join()
        wait = "while not os.path.exists('over'): time.sleep(0.1)"
        if event.id == "fork" and os.fork() == 0:
            exec(wait)
            os._exit(0)
        subprocess.Popen([sys.executable, "-c", "import os, time\\n" + wait])
    """)
    publish("1")
    publish("fork")
    with Path("out").open("w") as out, Path("err").open("w") as err:
        done = start(*RUN, "--until-idle", "1", "--json", stdout=out, stderr=err)
        try:
            assert done.wait(PATIENCE) == 0, Path("err").read_text()
        finally:
            Path("over").touch()
    *printed, told = Path("out").read_text().splitlines()
    assert printed == ["child", "child"]
    assert json.loads(told)["handled"] == 2


def test_the_program_is_imported_where_it_works_only(start: Process, publish: Any) -> None:
    write("pass", before="print(f'imported by {os.getpid()}', flush=True)")
    publish("1")
    done = start(*RUN, "--until-idle", "0.5")
    out, _ = done.communicate(timeout=PATIENCE)
    found = {int(pid) for pid in re.findall(r"imported by (\d+)", out)}
    assert len(found) == 2
    assert done.pid not in found
    assert pids() <= found


def test_they_read_no_input(start: Process, publish: Any) -> None:
    write("print(repr(sys.stdin.read()), flush=True)")
    publish("1")
    read, written = os.pipe()
    done = start(*RUN, "--until-idle", "0.3", stdin=read)
    out, _ = done.communicate(timeout=PATIENCE)
    os.close(read)
    os.close(written)
    assert out == "''\n"


def test_no_module_of_the_working_directory_stands_in_for_one_of_the_librarys(project: Path, publish: Any) -> None:
    write("pass")
    Path("click.py").write_text("raise SystemExit('this is not click')")
    Path("queue.py").write_text("raise SystemExit('this is not queue')")
    publish("1")
    ceb = Path(sys.executable).with_name("ceb")
    done = subprocess.run(
        [ceb, *RUN, "--until-idle", "0.3"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ids() == ["1"]


def test_global_options_and_settings_reach_the_processes(
    start: Process, publish: Any, project: Path, tmp_path: Path
) -> None:
    write("pass")
    publish("1")
    config = tmp_path / "elsewhere.toml"
    config.write_text(f'[profiles.other]\nurl = "sqlite:///{tmp_path}/events.db"\n')
    words = ["--config", str(config), "--profile", "other", *RUN, "--until-idle", "0.5", "-v", "--concurrency", "3"]
    done = start(*words, env={**os.environ, "PYTHONWARNINGS": "error"})
    _, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, err
    assert ids() == ["1"]


def test_dead_letters_in_several_processes(start: Process, publish: Any, broker: Any) -> None:
    publish("1")
    with broker.subscriber("orders", "billing") as subscriber:
        subscriber.receive()[0].dead_letter("no good")
    write("pass")
    done = start(*RUN, "--until-idle", "0.5", "--dead-letters")
    _, err = done.communicate(timeout=PATIENCE)
    assert "for the dead letters of orders/billing" in err
    assert "1 handled, 0 failed, 0 dead-lettered" in err
    assert list(broker.dead_letters("orders", "billing").find()) == []


def test_it_ends_when_all_are_idle(start: Process, publish: Any) -> None:
    write("time.sleep(1.5 if event.id == 'long' else 0)")
    publish("long")
    done = start(*RUN, "--until-idle", "0.3", "--json")
    out, err = done.communicate(timeout=PATIENCE)
    assert (done.returncode, json.loads(out)["handled"]) == (0, 1), err


def test_a_configuration_that_is_wrong_is_said_once_and_starts_nothing(start: Process, publish: Any) -> None:
    write("pass", before="open('imported', 'w').close()")
    Path("bridge.toml").write_text("nonsense")
    done = start(*RUN)
    _, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 2
    assert len(err.splitlines()) == 1
    assert not Path("imported").exists()


def test_one_that_is_killed_is_started_again_later_each_time_and_leaves_no_zombie(start: Process, publish: Any) -> None:
    write("pass")
    running = start(*RUN)
    lines = Lines(running.stderr)
    for deaths in (1, 2):
        victim = max(both_work(publish))
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(lines.find("was killed by SIGKILL: it is started again in")) == deaths)  # noqa: B023
        until(lambda: not Path(f"/proc/{victim}").exists())  # noqa: B023
        Path("seen").unlink()
    both_work(publish)
    running.terminate()
    assert running.wait(PATIENCE) == 0
    waits = [float(line.split()[-2]) for line in lines.find("started again")]
    numbers = [re.findall(r"process (\d)", line)[0] for line in lines.find("started again")]
    assert waits == ([0.5, 1.0] if len(set(numbers)) == 1 else [0.5, 0.5])


def test_one_that_is_terminated_comes_again(start: Process, publish: Any) -> None:
    write("pass")
    running = start(*RUN)
    lines = Lines(running.stderr)
    victim = min(both_work(publish))
    os.kill(victim, signal.SIGTERM)
    until(lambda: lines.find("ended with exit code 0: it is started again in"))
    until(lambda: not Path(f"/proc/{victim}").exists())
    Path("seen").unlink()
    assert victim not in both_work(publish)
    running.terminate()
    assert running.wait(PATIENCE) == 0


def test_one_that_cannot_be_stopped_is_killed(start: Process, publish: Any) -> None:
    write("pass")
    running = start(*RUN, "--grace", "0.1")
    stuck, other = both_work(publish)
    os.kill(stuck, signal.SIGSTOP)
    begun = time.monotonic()
    running.terminate()
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, err
    assert time.monotonic() - begun < 20
    assert re.search(r"process \d does not end: it is killed", err)
    assert not Path(f"/proc/{stuck}").exists()
    assert not Path(f"/proc/{other}").exists()


@pytest.mark.parametrize("busy", ["pass", "time.sleep(60)", "while True: pass"])
def test_none_outlives_its_supervisor(start: Process, publish: Any, busy: str) -> None:
    write(f"""
        if event.id == "busy":
            {busy}
    """)
    running = start(*RUN, "--grace", "0.2")
    both = both_work(publish)
    publish("busy")
    until(lambda: "busy" in ids())
    running.kill()
    running.wait(PATIENCE)
    until(lambda: all(gone(pid) for pid in both))


def test_without_a_supervisor_handlers_may_end_what_they_began(start: Process, publish: Any, broker: Any) -> None:
    write("""
        while event.id == "slow" and not os.path.exists("go"):
            time.sleep(0.01)
    """)
    running = start(*RUN, "--grace", "120")
    lines = Lines(running.stderr)
    both = both_work(publish)
    publish("slow")
    until(lambda: "slow" in ids())
    running.kill()
    until(lambda: len(lines.find("the supervisor is gone: the process stops")) == 2)
    Path("go").touch()
    until(lambda: all(gone(pid) for pid in both))
    with broker.subscriber("orders", "billing") as subscriber:
        assert subscriber.receive(wait=0) == []


def test_none_outlives_its_supervisor_while_it_is_starting(start: Process, broker: Any) -> None:
    Path("shop.py").write_text(
        "import os, time\nopen(f'starting-{os.getpid()}', 'w').close()\ntime.sleep(60)\ndef handle(event): ...\n"
    )
    running = start(*RUN, "--grace", "0.1")
    until(lambda: len(list(Path().glob("starting-*"))) == 2)
    running.kill()
    running.wait(PATIENCE)
    until(lambda: all(gone(int(path.name.partition("-")[2])) for path in Path().glob("starting-*")))


def test_how_all_are() -> None:
    class Process:
        started = 0.0
        heard: float | None = 1000.0
        stats = Stats(1, 0, 0, 0, 0, connected=True, last_event=None)

    one, other = Process(), Process()
    supervisor = Supervisor(lambda number: cast("Child", one), 2, 1.0, now=lambda: 1000.0 + SILENT - 1)
    first, second = supervisor._slots
    first.child, second.child = cast("Child", one), cast("Child", other)
    assert supervisor.condition() == (True, True, total([one.stats, other.stats]))
    other.heard = 998.0
    assert not supervisor.condition().live  # it reports no more
    other.heard, other.stats = 1000.0, other.stats._replace(stalled=1)
    assert not supervisor.condition().live
    second.child = None  # it died, and is not yet started again
    assert supervisor.condition()[:2] == (True, False)
    second.done = True  # it was idle
    assert supervisor.condition()[:2] == (True, True)
    supervisor._deadline = 2000.0  # it was told to stop
    assert supervisor.condition()[:2] == (True, False)


def test_what_is_counted_together() -> None:
    one = Stats(1, 2, 3, 4, 5, connected=True, last_event=None)
    assert total([one, one]) == Stats(2, 4, 6, 8, 10, connected=True, last_event=None)
    assert not total([one, one._replace(connected=False)]).connected
    assert not total([]).connected


@pytest.mark.parametrize(
    ("code", "says"), [(3, "ended with exit code 3"), (-9, "was killed by SIGKILL"), (-99, "was killed by signal 99")]
)
def test_how_a_process_ended(code: int, says: str) -> None:
    assert how(code) == says
