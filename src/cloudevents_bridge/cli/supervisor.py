"""Several processes of `ceb run`: started, started again when they die, told to stop, and counted together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from cloudevents_bridge.cli.failures import DENIED, INTERRUPTED, NOT_FOUND, USAGE, report
from cloudevents_bridge.cli.health import Health
from cloudevents_bridge.cli.running import Job, stopping, summarize
from cloudevents_bridge.types import Stats

if TYPE_CHECKING:
    from cloudevents_bridge import Worker

LOOK = 0.2
"""Seconds between two looks at the processes and at the files."""
TELL = 0.5
"""Seconds between two reports of a process."""
LAST_WORDS = 3.0
"""Seconds that a process has to end in after its grace, before it is killed."""
SOON_DEAD, LONGEST_PAUSE = 10.0, 30.0
"""A process that lives for less is started again later each time, at most so many seconds."""
HOPELESS = (USAGE, NOT_FOUND, DENIED)
NOTHING = Stats(0, 0, 0, 0, 0, connected=False, last_event=None)
SKIPPED = {"__pycache__", "node_modules", "site-packages"}


@dataclass
class Child:
    """One place among the processes.

    Attributes:
        now: what its process said last.
        before: what the processes before it did.
        due: when it is to be started.
        deaths: how often in a row it lived for a moment only.
        over: it ended as it should, or waits for a change of the program.
    """

    number: int
    process: BaseProcess | None = None
    pipe: Connection | None = None
    now: Stats = NOTHING
    before: Stats = NOTHING
    started: float = 0.0
    due: float = 0.0
    deaths: int = 0
    over: bool = False
    told: float | None = field(default=None)  # the grace it was told to stop within


class Supervisor:
    """Runs a job in several processes.

    Args:
        reload: start them anew when a .py file under the working directory changes.
    """

    def __init__(self, job: Job, processes: int, *, reload: bool) -> None:
        self._job = job
        self._shell = job.shell
        self._reload = reload
        self._spawn = multiprocessing.get_context("spawn")  # a fork would take the connection along
        self._children = [Child(number + 1) for number in range(processes)]
        self._grace: float | None = None
        self._deadline = float("inf")
        self._code = 0

    def run(self, health: tuple[str, int] | None) -> int:
        """Until all have ended. Returns the exit code."""
        if not self._reload:
            with self._shell.connect() as broker:
                self._job.worker(broker)  # what is wrong with the program is said once
        server = None if health is None else Health(health, lambda: self.stats)
        try:
            self._shell.note(f"running {self._job.program} in {len(self._children)} processes; Ctrl-C stops them")
            with stopping(self._stop) as interrupted:
                self._supervise()
        finally:
            for child in self._children:
                self._kill(child)
            if server is not None:
                server.close()
        summarize(self._shell, self.stats)
        return INTERRUPTED if interrupted() else self._code

    @property
    def stats(self) -> Stats:
        """What all of them did so far, and do now."""
        now = [child.now for child in self._children]
        counts = [*now, *(child.before for child in self._children)]
        seen = [each.last_event for each in counts if each.last_event is not None]
        return Stats(
            sum(each.handled for each in counts),
            sum(each.failed for each in counts),
            sum(each.dead_lettered for each in counts),
            sum(each.in_flight for each in now),
            sum(each.stalled for each in now),
            connected=all(each.connected for each in now),
            last_event=max(seen, default=None),
        )

    def _stop(self, grace: float | None = None) -> None:
        """From a signal's handler: the loop does it."""
        self._grace = self._job.grace if grace is None else grace

    def _supervise(self) -> None:
        files = dict(_files()) if self._reload else {}
        while True:
            for child in self._children:
                self._look_at(child)
            if self._grace is not None:
                self._tell_to_stop(self._grace)
            if self._all_over():
                return
            if self._reload and self._grace is None and (changed := dict(_files())) != files:
                names = sorted({path.name for path, _ in set(changed.items()) ^ set(files.items())})
                files = changed
                self._shell.note(f"{', '.join(names[:3])} changed: starting anew")
                self._start_anew()
            time.sleep(LOOK)

    def _all_over(self) -> bool:
        if any(child.process is not None for child in self._children):
            return False
        return self._grace is not None or (not self._reload and all(child.over for child in self._children))

    def _look_at(self, child: Child) -> None:
        """Start it, hear it, or bury it."""
        if child.process is None:
            if not child.over and self._grace is None and time.monotonic() >= child.due:
                self._start(child)
            return
        alive = child.process.is_alive()  # asked first: what it said last is heard all the same
        self._hear(child)
        if not alive:
            self._ended(child, child.process.exitcode)

    def _start(self, child: Child) -> None:
        ours, theirs = self._spawn.Pipe()
        child.process = self._spawn.Process(
            target=_work, args=(self._job, theirs), name=f"ceb-run-{child.number}", daemon=True
        )
        child.pipe, child.started, child.told = ours, time.monotonic(), None
        child.process.start()
        theirs.close()

    def _hear(self, child: Child) -> None:
        assert child.pipe is not None
        with suppress(EOFError, OSError):
            while child.pipe.poll():
                child.now = child.pipe.recv()

    def _ended(self, child: Child, code: int | None) -> None:
        assert child.pipe is not None
        child.pipe.close()
        child.before = _added(child.before, child.now)
        child.process, child.pipe, child.now = None, None, NOTHING
        if child.told is not None:
            return
        if code == 0 and self._job.until_idle is not None:
            child.over = True
        elif code in HOPELESS:
            child.over = True
            if not self._reload:
                self._code = code or 0
                self._stop()
            else:
                self._shell.note("waiting for a change")
        else:
            quick = time.monotonic() - child.started < SOON_DEAD
            child.deaths = child.deaths + 1 if quick else 0
            pause = min(0.25 * 2**child.deaths, LONGEST_PAUSE) if child.deaths else 0.0
            child.due = time.monotonic() + pause
            how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
            self._shell.note(f"process {child.number} {how}: it is started again in {pause:g} s", fg="yellow")

    def _tell_to_stop(self, grace: float) -> None:
        for child in self._children:
            if child.pipe is not None and (child.told is None or grace < child.told):
                self._deadline = min(self._deadline, time.monotonic() + grace + LAST_WORDS)
                child.told = grace
                with suppress(OSError):  # it is ending already
                    child.pipe.send(grace)
        if time.monotonic() >= self._deadline:
            for child in self._children:
                self._kill(child)

    def _start_anew(self) -> None:
        """Have each end, within the grace, and be started again with what the files say now."""
        deadline = time.monotonic() + self._job.grace + LAST_WORDS
        for child in self._children:
            if child.pipe is not None:
                child.told = self._job.grace
                with suppress(OSError):
                    child.pipe.send(child.told)
        for child in self._children:
            while child.process is not None and child.process.is_alive() and time.monotonic() < deadline:
                child.process.join(LOOK)
                if self._grace is not None:
                    return
            self._kill(child)
            if child.process is not None:
                self._hear(child)
                self._ended(child, child.process.exitcode)
            child.over, child.due, child.deaths = False, 0.0, 0

    def _kill(self, child: Child) -> None:
        if child.process is not None and child.process.is_alive():
            child.process.kill()
            child.process.join()


def _work(job: Job, pipe: Connection) -> None:
    """One process. It ends when it is told to, and when nobody is there any more to tell it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the supervisor says what to do
    shell = job.shell
    shell.start_logging(traces=True)
    try:
        with shell.connect() as broker:
            worker = job.worker(broker)
            signal.signal(signal.SIGTERM, lambda *_: worker.stop())
            over = Event()
            talking = Thread(target=_talk, args=(pipe, worker, over), name="ceb-talk", daemon=True)
            talking.start()
            try:
                worker.run(until_idle=job.until_idle, signals=False)
            finally:
                over.set()
                talking.join()
    except Exception as error:  # noqa: BLE001 - said as the command itself says it
        os._exit(report(error, debug=shell.debug))


def _talk(pipe: Connection, worker: Worker, over: Event) -> None:
    """Tell the supervisor what was done, and hear when to stop."""
    try:
        while not over.is_set():
            pipe.send(worker.stats)
            if pipe.poll(TELL):
                worker.stop(grace=pipe.recv())
        pipe.send(worker.stats)
    except (EOFError, OSError):
        worker.stop()


def _added(one: Stats, other: Stats) -> Stats:
    seen = [each for each in (one.last_event, other.last_event) if each is not None]
    return NOTHING._replace(
        handled=one.handled + other.handled,
        failed=one.failed + other.failed,
        dead_lettered=one.dead_lettered + other.dead_lettered,
        last_event=max(seen, default=None),
    )


def _files() -> Iterator[tuple[Path, int]]:
    """The .py files under the working directory, with when they were changed."""
    for folder, below, names in os.walk(Path.cwd()):
        below[:] = [each for each in below if not each.startswith(".") and each not in SKIPPED]
        for name in names:
            if name.endswith(".py"):
                path = Path(folder, name)
                try:
                    yield path, path.stat().st_mtime_ns
                except OSError:
                    continue
