"""What all commands share: the global options, and the ways to speak to people and to programs."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cloudevents_bridge import Broker, CloudEvent
    from cloudevents_bridge.config import Settings

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with what could steer a terminal made visible."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def event_line(event: CloudEvent) -> bytes:
    """The event in JSON format on one line. Line breaks in it can only be white space between JSON's tokens."""
    return event.to_json().replace(b"\n", b" ").replace(b"\r", b" ")


@dataclass
class Shell:
    """The global options of one run.

    Attributes:
        verbose: how often -v was given.
    """

    profile: str | None = None
    url: str | None = None
    config: str | None = None
    as_json: bool = False
    debug: bool = False
    quiet: bool = False
    verbose: int = 0

    def settings(self) -> Settings:
        """The configuration of the broker that is meant.

        Raises:
            ConfigurationError: as `config.load`.
        """
        from cloudevents_bridge.config import load

        self._check()
        return load(self.url, profile=self.profile, config=self.config)

    def connect(self) -> Broker:
        from cloudevents_bridge import connect

        self._check()
        return connect(self.url, profile=self.profile, config=self.config)

    def _check(self) -> None:
        if self.profile is not None and self.url is not None:
            raise click.UsageError("--profile and --url each name a broker: give one of them")

    def options(self) -> list[str]:
        """The global options as words of a command line."""
        named = {"--profile": self.profile, "--url": self.url, "--config": self.config}
        words = [f"{name}={value}" for name, value in named.items() if value is not None]
        flags = {"--json": self.as_json, "--debug": self.debug, "--quiet": self.quiet}
        return words + [name for name, given in flags.items() if given] + ["--verbose"] * self.verbose

    def start_logging(self, *, running: bool = False, process: int = 0) -> None:
        """Let the library's log reach stderr: warnings, or what -v and -q say.

        Args:
            running: the command goes on for long: with the time, and the stack traces of handlers.
            process: which of several processes this is.
        """
        log = logging.getLogger("cloudevents_bridge")
        for handler in [each for each in log.handlers if isinstance(each, _ToStderr)]:
            log.removeHandler(handler)
        log.addHandler(_ToStderr(running, process, traces=running or self.debug))
        if self.debug or self.verbose > 1:
            log.setLevel(logging.DEBUG)
        else:
            log.setLevel(logging.INFO if self.verbose else logging.ERROR if self.quiet else logging.WARNING)
        log.propagate = False

    def emit(self, value: object) -> None:
        """One JSON value on one line of stdout, for programs."""
        import msgspec

        click.echo(msgspec.json.encode(value))

    def say(self, text: str) -> None:
        """Text on stdout, for people."""
        click.echo(visible(text))

    def note(self, text: str, **style: Any) -> None:
        """A remark on stderr; not with -q."""
        if not self.quiet:
            complain(text, **style)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Rows in columns: with rules and colours on a terminal, plain and uncut elsewhere."""
        cells = [[one_line(str(cell)) for cell in row] for row in rows]
        if sys.stdout.isatty():
            _rich_table(headers, cells)
            return
        widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
        for row in (headers, *cells):
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def confirm(self, question: str) -> None:
        """Ask a person.

        Raises:
            click.UsageError: if nobody is there to ask.
            click.exceptions.Exit: with 1, if the answer is no.
        """
        if not sys.stdin.isatty():
            raise click.UsageError(f"{question} Nobody is there to answer: give --yes")
        if not click.confirm(question, err=True):
            complain("nothing was done")
            raise click.exceptions.Exit(1)


def complain(text: str, **style: Any) -> None:
    """One line on stderr."""
    click.secho(one_line(text), err=True, **style)


def _rich_table(headers: Sequence[str], cells: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


class _ToStderr(logging.Handler):
    def __init__(self, running: bool, process: int, *, traces: bool) -> None:
        super().__init__()
        self._running = running
        self._process = f"process {process}: " if process else ""
        self._traces = traces

    def emit(self, record: logging.LogRecord) -> None:
        message, *more = record.getMessage().splitlines() or [""]
        if self._traces and record.exc_info and record.exc_info[1] is not None:
            more += "".join(traceback.format_exception(*record.exc_info)).splitlines()
        when = f"{datetime.fromtimestamp(record.created).astimezone():%Y-%m-%d %H:%M:%S} " if self._running else ""
        lines = [f"{when}{record.levelname.lower()}: {self._process}{one_line(message)}"]
        lines += [f"    {visible(line)}" for line in more]
        with suppress(OSError):  # where nobody reads it: whoever logs must not fail for that
            # in one piece, since other processes may write too
            click.secho("\n".join(lines), err=True, fg="yellow" if record.levelno >= 30 else None)
