"""The group `ceb`: commands are loaded when they are run, global options may stand before or after the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

import click

from cloudevents_bridge.cli.shell import Shell

COMMANDS = {
    "publish": ("publish", "Publish one event, or a stream of them."),
    "receive": ("receive", "Show the next deliveries of a subscription."),
    "tail": ("tail", "Show events as they are published."),
    "run": ("run", "Run a program's handlers for the events of subscriptions."),
    "dead-letters": ("dead_letters", "List, show, replay and purge dead letters."),
    "topology": ("topology", "Plan, create, export and delete topics and subscriptions."),
    "check": ("check", "Check configuration, identity, existence and rights."),
    "info": ("info", "Show each setting and where it came from."),
    "contract": ("contract", "Run the contract suite against a broker."),
    "emulators": ("emulators", "Start and end emulators of the clouds on this machine."),
    "demo": ("demo", "Run the order system of the tutorials on SQLite."),
    "completion": ("completion", "Print the completion script of a shell."),
}
"""Name → module and one line of help: what `ceb --help` needs, without loading a command."""

ALIASES = {"dl": "dead-letters"}


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and param.name:
        setattr(ctx.ensure_object(Shell), param.name, value)


def _global_options(*, hidden: bool) -> list[click.Parameter]:
    def option(*names: str, **settings: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_remember, hidden=hidden, **settings)

    return [
        option("--profile", metavar="P", help="Profile of bridge.toml.", shell_complete=_profiles),
        option("--url", metavar="URL", help="Broker, such as sqlite:///events.db; never with credentials."),
        option("--config", metavar="FILE", help="The file to use in place of the nearest bridge.toml."),
        option("--json", "as_json", is_flag=True, help="Output for programs: JSON, one value per line."),
        option("--debug", is_flag=True, help="Stack traces and all that the library logs."),
        option("--quiet", "-q", is_flag=True, help="No remarks on stderr, errors only."),
        option("--verbose", "-v", count=True, help="More remarks, longer output."),
    ]


def _profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from cloudevents_bridge.config import profiles

    try:
        names = profiles(config=ctx.ensure_object(Shell).config)
    except Exception:  # noqa: BLE001 - a completion that fails must not write into the command line
        return []
    return [name for name in names if name.startswith(incomplete)]


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.extend(_global_options(hidden=True))

    def invoke(self, ctx: click.Context) -> Any:
        ctx.ensure_object(Shell).start_logging()
        return super().invoke(ctx)


class Group(click.Group):
    """A group whose commands take the global options too."""

    command_class = Command

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.extend(_global_options(hidden=True))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            from cloudevents_bridge.config.section import suggest

            ctx.fail(f"no command {name!r}; {suggest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class App(Group):
    """The whole program."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params = [each for each in self.params if not getattr(each, "hidden", False)] + _global_options(
            hidden=False
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        command: click.Command = import_module(f"cloudevents_bridge.cli.commands.{entry[0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error

    def main(self, *args: Any, **settings: Any) -> NoReturn:
        """Run, and exit with the code that says how it went."""
        shell = Shell()
        if os.environ.get("NO_COLOR"):
            settings["color"] = False
        try:
            result = super().main(*args, **{**settings, "standalone_mode": False, "obj": shell})
            code = result if isinstance(result, int) else 0
        except Exception as error:  # noqa: BLE001 - the last stop: everything becomes one line
            from cloudevents_bridge.cli.failures import report

            code = report(error, debug=shell.debug)
        sys.exit(code)


def command(help: str, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """A command that the app's table names."""

    def decorate(function: Callable[..., Any]) -> Command:
        made: Command = click.command(cls=Command, help=help, **settings)(function)
        return made

    return decorate


@click.group(
    cls=App,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="These options may also stand after the command. Exit: 0 done, 1 an event or case failed or something "
    "differs, 2 usage or configuration, 3 not found, 4 denied, 5 unavailable or timed out, 130 interrupted.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, help="Show the version.",
              callback=lambda ctx, param, value: _version(ctx) if value else None)  # fmt: skip
def app() -> None:
    """Publish and consume CloudEvents on any broker, chosen by one URL."""


def _version(ctx: click.Context) -> None:
    from cloudevents_bridge._version import __version__

    click.echo(f"ceb {__version__}")
    ctx.exit(0)
