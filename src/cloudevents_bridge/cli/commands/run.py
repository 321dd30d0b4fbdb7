"""`ceb run`."""

from __future__ import annotations

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.health import AddressType
from cloudevents_bridge.cli.params import DURATION, SUBSCRIPTION, Address
from cloudevents_bridge.cli.shell import Shell

_HELP = """Run a program's handlers for the events of subscriptions.

MODULE:ROUTER names a Router, or a function of an event, in a module of the working directory or an installed one.
SIGTERM and Ctrl-C let handlers end within --grace and give the rest back; the second Ctrl-C does not wait."""


@cli_command(_HELP)
@click.argument("program", metavar="MODULE:ROUTER")
@click.argument("addresses", type=SUBSCRIPTION, metavar="TOPIC/SUB...", nargs=-1, required=True)
@click.option("--concurrency", type=click.IntRange(min=1), default=1, show_default=True, help="Handlers at once.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--grace", type=DURATION, default=25.0, metavar="S", help="Seconds to end in.  [default: 25]")
@click.option("--until-idle", type=DURATION, metavar="S", help="End when nothing has come for so long.")
@click.option("--dead-letters", is_flag=True, help="Handle the dead letters of the subscriptions instead.")
@click.option("--health", type=AddressType(), metavar="[HOST:]PORT", help="Serve /live and /ready there.")
@click.option("--reload", is_flag=True, help="Start anew when a .py file here changes; for development.")
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
) -> int:
    from cloudevents_bridge.cli.running import Job, run_here

    job = Job(shell, program, addresses, concurrency, grace, until_idle, dead_letters)
    if processes == 1 and not reload:
        return run_here(job, health)
    from cloudevents_bridge.cli.supervisor import Supervisor

    return Supervisor(job, processes, reload=reload).run(health)
