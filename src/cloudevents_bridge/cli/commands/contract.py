"""`ceb contract`: the suite of the distribution cloudevents-bridge-contract."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.params import DURATION
from cloudevents_bridge.cli.shell import Shell
from cloudevents_bridge.cli.suite import load
from cloudevents_bridge.errors import ConfigurationError, NotFoundError

REPORTS = ("json", "md", "junit")


class ReportType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """FORMAT=FILE."""

    name = "report"

    def convert(
        self, value: str | tuple[str, Path], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        if isinstance(value, tuple):
            return value
        format, found, file = value.partition("=")
        if format not in REPORTS or not found or not file:
            self.fail(f"{value!r} is not FORMAT=FILE with one of the formats {', '.join(REPORTS)}", param, ctx)
        return format, Path(file)


@cli_command(
    "Run the contract suite, which every adapter must pass, and print the matrix. The broker is URL, a rig of your "
    "own, or, with neither, the embedded ones. --explain says what it would use, and creates nothing."
)
@click.argument("target", metavar="[URL]", required=False)
@click.option("--rig", metavar="MODULE:RIG", help="A rig: how to open, break and clean a broker.")
@click.option("--explain", is_flag=True, help="Say the rights, resources and requests it needs; create nothing.")
@click.option("--only", metavar="GROUP", multiple=True, help="Only this group of cases.")
@click.option("-k", "expression", metavar="EXPR", help="Only cases that match, as in pytest -k.")
@click.option("--prefix", metavar="P", help="Beginning of the names it creates.")
@click.option("--existing", type=click.Path(path_type=Path), metavar="FILE", help="Topics to use: none is created.")
@click.option("--max-events", type=click.IntRange(min=1), metavar="N", help="Events of one case, at most.")
@click.option("--deadline", type=DURATION, metavar="15m", help="Time in all, at most.")
@click.option("--report", "reports", type=ReportType(), metavar="json|md|junit=FILE", multiple=True, help="Write it.")
@click.option("--fail-on-not-run", is_flag=True, help="Exit 1 if a case was not run.")
@click.option("--sweep", is_flag=True, help="Remove what earlier runs with this prefix left behind.")
@click.pass_obj
def command(
    shell: Shell,
    /,
    target: str | None,
    rig: str | None,
    explain: bool,
    only: tuple[str, ...],
    expression: str | None,
    prefix: str | None,
    existing: Path | None,
    max_events: int | None,
    deadline: float | None,
    reports: tuple[tuple[str, Path], ...],
    fail_on_not_run: bool,
    sweep: bool,
) -> int:
    url = _url(shell, target)
    if rig is not None and (not all(part.strip() for part in rig.split(":")) or rig.count(":") != 1):
        raise click.UsageError(f"--rig {rig!r} is not MODULE:RIG")
    if existing is not None and not existing.is_file():
        raise click.UsageError(f"--existing {str(existing)!r} is no file that can be read")
    run = load("cli", "the contract suite is").run
    if url is not None and rig is None:
        _reach(url, ping=not explain)
    return int(
        run(
            url,
            rig=rig,
            explain=explain,
            only=only,
            k=expression,
            prefix=prefix,
            existing=existing,
            max_events=max_events,
            deadline=deadline,
            reports=reports,
            fail_on_not_run=fail_on_not_run,
            sweep=sweep,
        )
    )


def _url(shell: Shell, target: str | None) -> str | None:
    if target is not None and shell.url is not None:
        raise click.UsageError("URL and --url both name the broker: give one of them")
    if target is None and shell.url is None and shell.profile is None:
        return None
    settings = replace(shell, url=target or shell.url).settings()
    if settings.options:
        # Without its endpoint the suite would run against another broker than the one that is meant.
        raise ConfigurationError(
            f"profile {settings.profile} has options ({', '.join(settings.options)}), and the suite takes a URL only: "
            "write a rig that connects with them, and give --rig MODULE:RIG"
        )
    return settings.url.text


def _reach(url: str, *, ping: bool) -> None:
    """One clear error in place of one for each case.

    Raises:
        BridgeError: if there is no adapter, or the broker cannot be reached.
    """
    from cloudevents_bridge import connect

    with connect(url) as broker, suppress(NotFoundError):  # the suite creates what it needs
        if ping:
            broker.ping()
