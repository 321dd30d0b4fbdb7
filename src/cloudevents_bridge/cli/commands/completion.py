"""`ceb completion`."""

from __future__ import annotations

import click

from cloudevents_bridge.cli.app import app
from cloudevents_bridge.cli.app import command as cli_command

_LINES = {
    "bash": 'eval "$(ceb completion bash)"  in ~/.bashrc',
    "zsh": 'eval "$(ceb completion zsh)"  in ~/.zshrc, after compinit',
    "fish": "ceb completion fish > ~/.config/fish/completions/ceb.fish",
}


@cli_command(
    "Print the completion script of a shell.", epilog="To use it: " + "; ".join(f"{k}: {v}" for k, v in _LINES.items())
)
@click.argument("shell", type=click.Choice(list(_LINES)))
def command(shell: str) -> None:
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(app, {}, "ceb", "_CEB_COMPLETE").source())
