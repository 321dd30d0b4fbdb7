"""`ceb emulators`: emulators of the clouds in the background, of the distribution cloudevents-bridge-contract."""

from __future__ import annotations

import os
import sys

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.shell import Shell
from cloudevents_bridge.errors import ConfigurationError


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
    try:
        from cloudevents_bridge_contract.emulators.cli import NAMES, run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cloudevents_bridge_contract":
            raise
        raise ConfigurationError(
            f"the emulators are not installed here ({sys.executable}): pip install cloudevents-bridge-contract"
        ) from error
    for cloud in clouds:
        if cloud not in NAMES:
            raise click.UsageError(f"{cloud!r} has no emulators: they are {', '.join(NAMES)}")
    return int(run(verb, clouds, as_json=shell.as_json))
