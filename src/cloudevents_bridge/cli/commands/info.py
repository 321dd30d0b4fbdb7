"""`ceb info`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.shell import Shell

if TYPE_CHECKING:
    from cloudevents_bridge.config import Settings


@cli_command("Show each setting and where it came from, and the adapters that are installed. No broker is asked.")
@click.pass_obj
def command(shell: Shell, /) -> None:
    from cloudevents_bridge._version import __version__
    from cloudevents_bridge.adapters import installed
    from cloudevents_bridge.errors import BridgeError

    problem = ""
    rows: list[tuple[str, str, str]] = []
    try:
        rows = list(_rows(shell.settings()))
    except BridgeError as error:
        problem = str(error)
    adapters = dict(installed())
    if shell.as_json:
        settings = [{"key": key, "value": value, "origin": origin} for key, value, origin in rows]
        shell.emit({"version": __version__, "settings": settings, "problem": problem or None, "adapters": adapters})
        return
    shell.say(f"cloudevents-bridge {__version__}")
    if problem:
        shell.say(f"configuration: {problem}")
    else:
        shell.table(["SETTING", "VALUE", "FROM"], rows)
    shell.table(["SCHEME", "ADAPTER"], adapters.items())


def _rows(settings: Settings) -> Iterator[tuple[str, str, str]]:
    def row(key: str, value: object, origin: str = "") -> tuple[str, str, str]:
        return key, str(value), settings.origins.get(origin or key, "the default")

    if settings.profile is not None:
        yield row("profile", settings.profile)
    yield row("url", settings.url.text)
    if settings.file is not None:
        yield "file", str(settings.file), settings.origins["file"]
    for key in settings.options:
        # An option may be anything, a secret in a variable included: only where it came from is shown.
        yield row(key, settings.options[key] if key == "endpoint" else "(set)")
    yield row("create_missing", str(settings.create_missing).lower())
    yield row("requires", ", ".join(settings.requires) or "nothing")
    if settings.retry is not None:
        retry = settings.retry
        yield row("retry", f"attempts={retry.attempts} initial={retry.initial:g}s maximum={retry.maximum:g}s")
    if settings.timeout is not None:
        yield row("timeout", f"{settings.timeout:g}s")
    if settings.telemetry is not None:
        yield row("telemetry", str(settings.telemetry).lower())
    for topic in settings.topics:
        names = ", ".join(each.name for each in topic.subscriptions) or "no subscription"
        yield row(f"topic {topic.name}", names + (" (ordered)" if topic.ordered else ""), f"topics.{topic.name}")
