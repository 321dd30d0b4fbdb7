"""`ceb run`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.health import AddressType
from cloudevents_bridge.cli.params import DURATION, SUBSCRIPTION, Address
from cloudevents_bridge.cli.shell import Shell, complain

if TYPE_CHECKING:
    from cloudevents_bridge.cli.running import Job

_HELP = """Run a program's handlers for the events of subscriptions.

MODULE:ROUTER names a Router, or a function of an event, in a module of the working directory or an installed one.
SIGTERM and Ctrl-C let handlers end within --grace and give the rest back; the second Ctrl-C does not wait."""


@cli_command(_HELP, epilog="Example: ceb run shop:router orders/billing --concurrency 10")
@click.argument("program", metavar="MODULE:ROUTER")
@click.argument("addresses", type=SUBSCRIPTION, metavar="TOPIC/SUB...", nargs=-1, required=True)
@click.option("--concurrency", type=click.IntRange(min=1), default=1, show_default=True,
              help="Handlers at once, for each subscription in each process.")  # fmt: skip
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--grace", type=DURATION, default=25.0, metavar="S", help="Seconds to end in.  [default: 25]")
@click.option("--until-idle", type=DURATION, metavar="S", help="End when nothing has come for so long.")
@click.option("--dead-letters", is_flag=True, help="Handle the dead letters of the subscriptions instead.")
@click.option("--health", type=AddressType(), metavar="[HOST:]PORT", help="Serve /live and /ready there.")
@click.option("--reload", is_flag=True, help="Start anew when a .py file here changes; for development.")
@click.option("--supervised", type=int, nargs=2, hidden=True)
@click.pass_obj
def command(
    shell: Shell,
    /,
    program: str,
    addresses: tuple[Address, ...],
    concurrency: int,
    processes: int,
    grace: float,
    until_idle: float | None,
    dead_letters: bool,
    health: tuple[str, int] | None,
    reload: bool,
    supervised: tuple[int, int] | None,
) -> int:
    from cloudevents_bridge.cli.program import split_program
    from cloudevents_bridge.cli.running import Job, run_here, run_supervised

    split_program(program)
    job = Job(shell, program, addresses, concurrency, grace, until_idle, dead_letters)
    if supervised is not None:
        descriptor, number = supervised
        shell.start_logging(running=True, process=number)
        return run_supervised(job, descriptor)
    shell.start_logging(running=True)
    if processes == 1 and not reload:
        return run_here(job, health)
    if reload and processes > 1:
        raise click.UsageError("--reload is for one process: leave out --processes")
    if os.name != "posix":
        raise click.UsageError("--processes and --reload need a POSIX system: start `ceb run` once for each process")
    return _supervise(job, processes, health, reload=reload)


def _supervise(job: Job, processes: int, health: tuple[str, int] | None, *, reload: bool) -> int:
    from cloudevents_bridge.cli.children import Child
    from cloudevents_bridge.cli.health import Health
    from cloudevents_bridge.cli.reloader import Files, Reloader
    from cloudevents_bridge.cli.running import summarize
    from cloudevents_bridge.cli.supervisor import Supervisor

    shell, words = job.shell, job.words()
    url = shell.settings().url.text  # what is wrong with the configuration is said once, here

    def start(number: int) -> Child:
        return Child(words, number, interactive=reload)

    supervisor = (
        Reloader(start, job.grace, Files(Path.cwd()), shell.note) if reload else Supervisor(start, processes, job.grace)
    )
    with nullcontext() if health is None else Health(health, supervisor.condition, shell.note):
        job.announce(url, processes)
        verdict = supervisor.run()
    if verdict.error:
        complain(f"error: {verdict.error}", fg="red")
    if not verdict.error or verdict.stats.handled or verdict.stats.failed:
        summarize(shell, verdict.stats)
    return verdict.code
