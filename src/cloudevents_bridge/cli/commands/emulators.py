"""`ceb emulators`: emulators of the clouds in the background, of the distribution cloudevents-bridge-contract."""

from __future__ import annotations

import os

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.shell import Shell
from cloudevents_bridge.cli.suite import load


@cli_command(
    "Start, end and find emulators of the clouds on this machine, in the background. `up` prints the environment that "
    'leads programs to them: eval "$(ceb emulators up gcp)". Without a CLOUD: all.'
)
@click.argument("verb", type=click.Choice(["up", "down", "status", "env"]))
@click.argument("clouds", metavar="[CLOUD]...", nargs=-1)
@click.pass_obj
def command(shell: Shell, /, verb: str, clouds: tuple[str, ...]) -> int:
    if os.name != "posix":
        raise click.UsageError("emulators are kept in the background on POSIX systems only")
    emulators = load("emulators.cli", "the emulators are")
    for cloud in clouds:
        if cloud not in emulators.NAMES:
            raise click.UsageError(f"{cloud!r} has no emulators: they are {', '.join(emulators.NAMES)}")
    return int(emulators.run(verb, clouds, as_json=shell.as_json))
