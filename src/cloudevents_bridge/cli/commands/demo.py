"""`ceb demo`."""

from __future__ import annotations

from pathlib import Path

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.shell import Shell


@cli_command(
    "Run the order system of the tutorials in several processes: on the embedded SQLite broker, or on that of --url."
)
@click.option(
    "--workdir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the broker's file is kept.  [default: ceb-demo]",
)
@click.pass_obj
def command(shell: Shell, /, workdir: Path | None) -> int:
    from cloudevents_bridge.demo import run

    if workdir is not None and shell.url is not None:
        raise click.UsageError("--workdir is for the embedded broker, and --url names another one: give one of them")
    return run(workdir, shell.as_json, shell.url)
