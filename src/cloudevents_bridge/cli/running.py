"""One process of `ceb run`: a program's handlers in a worker."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cloudevents_bridge.cli.failures import INTERRUPTED
from cloudevents_bridge.cli.health import Health
from cloudevents_bridge.cli.params import Address
from cloudevents_bridge.cli.program import load_program
from cloudevents_bridge.cli.shell import Shell

if TYPE_CHECKING:
    from cloudevents_bridge import Broker, Worker
    from cloudevents_bridge.types import Stats


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

    def worker(self, broker: Broker) -> Worker:
        """The worker that does it.

        Raises:
            click.UsageError: if there is no such program, or it cannot handle events.
        """
        handler = load_program(self.program)
        worker = broker.worker(grace=self.grace)
        for address in dict.fromkeys(self.addresses):
            try:
                worker.add(*address, handler, concurrency=self.concurrency, dead_letters=self.dead_letters)
            except TypeError as error:
                raise click.UsageError(f"{self.program} cannot handle events: {error}") from error
        return worker


def run_here(job: Job, health: tuple[str, int] | None) -> int:
    """Work in this process until a signal, or nothing comes any more. Returns the exit code."""
    shell = job.shell
    shell.start_logging(traces=True)
    with shell.connect() as broker:
        worker = job.worker(broker)
        server = None if health is None else Health(health, lambda: worker.stats)
        try:
            told = ", ".join(map(str, job.addresses))
            shell.note(f"running {job.program} for {told} on {broker.url}; Ctrl-C stops it")
            with stopping(worker.stop) as interrupted:
                stats = worker.run(until_idle=job.until_idle, signals=False)
        finally:
            if server is not None:
                server.close()
    summarize(shell, stats)
    return INTERRUPTED if interrupted() else 0


@contextmanager
def stopping(stop: Callable[..., Any]) -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C call `stop()`, the second Ctrl-C `stop(grace=0)`. Gives whether there was a Ctrl-C."""
    interrupts = 0

    def handle(number: int, _: object) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            stop(grace=0.0)
        else:
            stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: interrupts > 0
    finally:
        for number, handler in before.items():  # whoever pressed it twice presses it a third time, and the end is near
            signal.signal(number, signal.SIG_IGN if interrupts > 1 else handler)


def summarize(shell: Shell, stats: Stats) -> None:
    """What was done, in the end."""
    if shell.as_json:
        done = ("handled", "failed", "dead_lettered", "last_event")
        shell.emit({name: getattr(stats, name) for name in done})
    else:
        shell.note(f"{stats.handled} handled, {stats.failed} failed, {stats.dead_lettered} dead-lettered")
