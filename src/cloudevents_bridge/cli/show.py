"""Events as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudevents_bridge.cli.shell import Shell, event_line, one_line, visible

if TYPE_CHECKING:
    from cloudevents_bridge import CloudEvent

_SHORT = 2000
"""Characters of data that are shown without -v."""


def show_event(shell: Shell, event: CloudEvent, *notes: str) -> None:
    """The event on stdout: one JSON line for programs, a head line and the data for people."""
    if shell.as_json:
        click.echo(event_line(event))
        return
    when = event.time.isoformat(sep=" ", timespec="seconds") if event.time else "-"
    head = click.style(one_line(event.type), bold=True)
    details = [f"id={event.id}", *(f"{k}={v}" for k, v in _attributes(event).items()), *notes]
    click.echo(f"{when}  {head}  {one_line(event.source)}  {click.style(one_line('  '.join(details)), dim=True)}")
    text = data_text(event)
    if text:
        if not shell.verbose and len(text) > _SHORT:
            text = f"{text[:_SHORT]}… ({len(text)} characters; -v shows all)"
        click.echo("    " + visible(text).replace("\n", "\n    "))


def data_text(event: CloudEvent) -> str:
    """The data as text, or what it is where it is not text."""
    raw = event.data_bytes
    if not raw:
        return ""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"({event.datacontenttype or 'bytes'}, {len(raw)} bytes)"
    return text.strip("\r\n")


def _attributes(event: CloudEvent) -> dict[str, object]:
    named = {"subject": event.subject, "key": event.partitionkey, "dataschema": event.dataschema}
    return {**{k: v for k, v in named.items() if v is not None}, **event.extensions}
