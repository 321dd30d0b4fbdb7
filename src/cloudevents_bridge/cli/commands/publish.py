"""`ceb publish`."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.params import ATTRIBUTE, DURATION, TOPIC, Address
from cloudevents_bridge.cli.shell import Shell, event_line

if TYPE_CHECKING:
    from cloudevents_bridge.cli.making import Template

_HELP = """Publish one event, or a stream of them.

The data is --data, --text or --file; what is piped in counts as --file -. Without any, the event has no data. --lines
publishes a payload per line, --events a CloudEvent per line, as tail --json prints them: a line that fails is reported
with its number and does not stop the rest.

Data is JSON unless --content-type says otherwise."""


@cli_command(_HELP, epilog="Example: echo '{\"id\":7}' | ceb publish orders --type com.example.order.created")
@click.argument("topic", type=TOPIC)
@click.option("--data", metavar="JSON", help="Data: a JSON value.")
@click.option("--text", metavar="S", help="Data: text (text/plain).")
@click.option("--file", metavar="F|-", help="Data: the bytes of a file.")
@click.option("--lines", metavar="F|-", help="A payload per line.")
@click.option("--events", metavar="F|-", help="A CloudEvent per line.")
@click.option("--type", metavar="T", help="What happened, such as com.example.order.created.")
@click.option("--source", metavar="S", help="Where, a URI-reference.  [default: /ceb]")
@click.option("--id", metavar="I", help="Unique within the source.  [default: random]")
@click.option("--subject", metavar="S", help="What it is about.")
@click.option("--key", "partitionkey", metavar="KEY", help="The ordering key (partitionkey).")
@click.option("-a", "extensions", type=ATTRIBUTE, metavar="NAME=VALUE", multiple=True, help="Another attribute.")
@click.option("--content-type", metavar="M", help="Media type of the data (datacontenttype).")
@click.option("--delay", type=DURATION, default=0.0, metavar="S", help="Deliver after this time at the earliest.")
@click.option("--dry-run", is_flag=True, help="Check and print the events; send nothing.")
@click.pass_obj
def command(
    shell: Shell,
    /,
    topic: Address,
    data: str | None,
    text: str | None,
    file: str | None,
    lines: str | None,
    events: str | None,
    extensions: tuple[tuple[str, str], ...],
    content_type: str | None,
    delay: float,
    dry_run: bool,
    **named: str | None,
) -> int:
    given = [
        name
        for name, value in {
            "--data": data,
            "--text": text,
            "--file": file,
            "--lines": lines,
            "--events": events,
        }.items()
        if value is not None
    ]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} both say what to publish: give one of them")
    if events is not None:
        _refuse_attributes(named, extensions, content_type)
        return _stream(shell, topic, events, None, delay, dry_run)
    template = _template(named, extensions, content_type or ("text/plain" if text is not None else None))
    if lines is not None:
        if named["id"] is not None:
            raise click.UsageError("--id would be the same for every line: leave it out with --lines")
        return _stream(shell, topic, lines, template, delay, dry_run)
    if data is not None and not template.is_json:
        raise click.UsageError(f"--data is JSON and --content-type {content_type} is not: use --text or --file")
    payload = _payload(data, text, file)
    _one(shell, topic, template, payload, delay, dry_run)
    return 0


def _one(shell: Shell, topic: Address, template: Template, payload: bytes | None, delay: float, dry_run: bool) -> None:
    event = template.make(payload)
    if dry_run:
        click.echo(event_line(event))
        shell.note(f"would publish to {topic} on {shell.settings().url.text}")
        return
    with shell.connect() as broker:
        receipt = broker.publish(topic.topic, event, delay=delay)
        if shell.as_json:
            shell.emit(receipt._asdict())
        elif not shell.quiet:
            shell.say(f"published {receipt.event_id} to {topic} on {broker.url}")


def _stream(shell: Shell, topic: Address, name: str, template: Template | None, delay: float, dry_run: bool) -> int:
    from cloudevents_bridge.cli.bulk import publish_stream
    from cloudevents_bridge.cli.making import read_event

    make = read_event if template is None else template.make
    with ExitStack() as stack:
        stream, size = _open(name, stack)
        publisher = None
        if dry_run:
            shell.settings()
        else:
            broker = stack.enter_context(shell.connect())
            publisher = broker.publisher(topic.topic)
        return publish_stream(shell, stream, size, make, publisher, delay)


def _template(
    named: dict[str, str | None], extensions: tuple[tuple[str, str], ...], content_type: str | None
) -> Template:
    from cloudevents_bridge.cli.making import template

    if named["type"] is None:
        raise click.UsageError("no type of event: give --type, such as --type com.example.order.created")
    return template(
        content_type, extensions, **{**named, "source": "/ceb" if named["source"] is None else named["source"]}
    )


def _refuse_attributes(
    named: dict[str, str | None], extensions: tuple[tuple[str, str], ...], content_type: str | None
) -> None:
    options = {"partitionkey": "--key"}
    given = [options.get(name, f"--{name}") for name, value in named.items() if value is not None]
    given += ["-a"] * bool(extensions) + ["--content-type"] * (content_type is not None)
    if given:
        raise click.UsageError(f"{given[0]} does not go with --events: each line is a whole event")


def _payload(data: str | None, text: str | None, file: str | None) -> bytes | None:
    if data is not None or text is not None:
        return str(data if data is not None else text).encode("utf-8", "surrogateescape")
    if file is None and sys.stdin.isatty():
        return None
    with ExitStack() as stack:
        payload = _open(file or "-", stack)[0].read()
    # Nothing piped in, as in a cron job, is no data; an empty file that was named is empty data.
    return payload if payload or file is not None else None


def _open(name: str, stack: ExitStack) -> tuple[IO[bytes], int | None]:
    """The stream of a file or of stdin, and its size where that is known."""
    if name == "-":
        return sys.stdin.buffer, None
    try:
        stream = stack.enter_context(Path(name).open("rb"))  # noqa: SIM115 - the stack is one
        status = os.fstat(stream.fileno())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise click.UsageError(f"cannot read {name!r}: {reason}") from error
    return stream, status.st_size if stat.S_ISREG(status.st_mode) else None
