"""One process of `ceb run`: a program's handlers in a worker."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from cloudevents_bridge.cli.failures import INTERRUPTED, describe, exit_code
from cloudevents_bridge.cli.health import Condition, Health
from cloudevents_bridge.cli.link import Link
from cloudevents_bridge.cli.params import Address
from cloudevents_bridge.cli.program import load_program
from cloudevents_bridge.cli.shell import Shell
from cloudevents_bridge.cli.stopper import LEFT_BEHIND, Ending, Stopper, let_interrupts_in
from cloudevents_bridge.stats import NOTHING, Stats

if TYPE_CHECKING:
    from cloudevents_bridge import Broker, Router, Worker


@dataclass(frozen=True)
class Job:
    """What one call of `ceb run` asks for."""

    shell: Shell
    program: str
    addresses: tuple[Address, ...]
    concurrency: int
    grace: float
    until_idle: float | None
    dead_letters: bool

    def worker(self, broker: Broker, handler: Router | Callable[..., object]) -> Worker:
        """The worker that does it.

        Raises:
            click.UsageError: if the program cannot handle events.
        """
        worker = broker.worker(grace=self.grace)
        for address in dict.fromkeys(self.addresses):
            try:
                worker.add(*address, handler, concurrency=self.concurrency, dead_letters=self.dead_letters)
            except TypeError as error:
                raise click.UsageError(f"{self.program} cannot handle events: {error}") from error
        return worker

    def words(self) -> list[str]:
        """The command line after `ceb` that does it in one process."""
        words = [*self.shell.options(), "run", self.program, *map(str, self.addresses)]
        words += [f"--concurrency={self.concurrency}", f"--grace={self.grace:f}"]
        if self.until_idle is not None:
            words.append(f"--until-idle={self.until_idle:f}")
        return words + ["--dead-letters"] * self.dead_letters

    def announce(self, url: str, processes: int = 1) -> None:
        """Say what begins."""
        letters = "the dead letters of " if self.dead_letters else ""
        several = f", in {processes} processes" if processes > 1 else ""
        told = ", ".join(map(str, self.addresses))
        self.shell.note(f"running {self.program} for {letters}{told} on {url}{several}; Ctrl-C stops it")


class Running:
    """A job under way in this process.

    Args:
        stopper: what may end it.
    """

    def __init__(self, job: Job, stopper: Stopper) -> None:
        self._job = job
        self._stopper = stopper
        self._worker: Worker | None = None

    @property
    def begun(self) -> bool:
        """Whether the program was imported and has a worker."""
        return self._worker is not None

    @property
    def stats(self) -> Stats:
        """What was done so far."""
        return NOTHING if self._worker is None else self._worker.stats

    @property
    def condition(self) -> Condition:
        stats = self.stats
        return Condition(stats.stalled == 0, stats.connected and not self._stopper.asked, stats)

    def work(self, begin: Callable[[ExitStack, Broker], None]) -> int:
        """Work until a signal, or nothing comes any more. Returns the exit code.

        Args:
            begin: called before the worker runs; what it puts on the stack ends after it.

        Raises:
            BridgeError: why it cannot begin or go on.
            click.UsageError: what is wrong with the program.
        """
        handler = load_program(self._job.program)
        ending = Ending()
        with self._stopper.signals(), ExitStack() as stack:
            broker = stack.enter_context(self._job.shell.connect())
            worker = self._worker = self._job.worker(broker, handler)
            self._stopper.take(worker)
            begin(stack, broker)
            try:
                worker.run(until_idle=self._job.until_idle, signals=False)
            finally:
                if self._stopper.used_up:
                    ending.patience = LEFT_BEHIND
        return INTERRUPTED if self._stopper.interrupts else 0


def run_here(job: Job, health: tuple[str, int] | None) -> int:
    """Work in this process alone, and say what was done. Returns the exit code.

    Raises:
        BridgeError, click.UsageError: as `Running.work`.
    """
    running = Running(job, Stopper(job.grace))

    def begin(stack: ExitStack, broker: Broker) -> None:
        if health is not None:
            stack.enter_context(Health(health, lambda: running.condition, job.shell.note))
        job.announce(broker.url)

    try:
        code = running.work(begin)
    except BaseException:
        if running.stats.handled or running.stats.failed:
            summarize(job.shell, running.stats)
        raise
    summarize(job.shell, running.stats)
    return code


def run_supervised(job: Job, descriptor: int) -> int:
    """Work in one of several processes, and leave to the supervisor what there is to say. Returns the exit code.

    Args:
        descriptor: of the socket to the supervisor.
    """
    stopper = Stopper(job.grace)
    running = Running(job, stopper)
    link = Link(descriptor, stopper, job.grace, lambda: running.stats)
    try:
        let_interrupts_in()
        code = running.work(lambda stack, broker: None)
    except BaseException as error:  # noqa: BLE001 - the supervisor says it
        if job.shell.debug:
            traceback.print_exception(error)
        code = code_of(error)
        interrupted = isinstance(error, KeyboardInterrupt) and not running.begun
        link.end("stopped" if interrupted else "failed", code, _words(error))
    else:
        link.end("stopped" if stopper.asked else "idle", code)
    return code


def summarize(shell: Shell, stats: Stats) -> None:
    """What was done, in the end."""
    if shell.as_json:
        done = ("handled", "failed", "dead_lettered", "last_event")
        shell.emit({name: getattr(stats, name) for name in done})
    else:
        shell.note(f"{stats.handled} handled, {stats.failed} failed, {stats.dead_lettered} dead-lettered")


def code_of(error: BaseException) -> int:
    """The exit code: that of `SystemExit`, which a handler may raise, or as `ceb --help` lists them."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return exit_code(error)


def _words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, str) else ""
    return "" if isinstance(error, KeyboardInterrupt) else describe(error)
