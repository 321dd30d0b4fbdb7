"""`ceb tail`."""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatchcase

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.params import TOPIC, Address
from cloudevents_bridge.cli.shell import Shell

_AT_ONCE = 500
_WAIT = 20.0

_HELP = """Show events as they are published, until Ctrl-C.

It makes a temporary subscription ceb-tail-* and removes it at the end; other subscriptions are not touched."""


@cli_command(_HELP)
@click.argument("topic", type=TOPIC)
@click.option("--type", metavar="GLOB", help="Only events whose type matches, such as 'com.example.*'.")
@click.option("--source", metavar="GLOB", help="Only events whose source matches.")
@click.option("-n", "number", type=click.IntRange(min=1), help="End after so many events.")
@click.pass_obj
def command(shell: Shell, /, topic: Address, type: str | None, source: str | None, number: int | None) -> None:
    try:
        _tail(shell, topic.topic, type or "*", source or "*", number)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tail(shell: Shell, topic: str, type: str, source: str, number: int | None) -> None:
    from cloudevents_bridge.cli.show import show_event

    shown = 0
    with shell.connect() as broker, broker._tail(topic) as subscriber:
        shell.note(f"tail of {topic} on {broker.url}; Ctrl-C ends it")
        while True:
            deliveries = subscriber.receive(_AT_ONCE, wait=_WAIT)
            for delivery in deliveries:
                event = delivery.event
                if not fnmatchcase(event.type, type) or not fnmatchcase(event.source, source):
                    continue
                show_event(shell, event)
                shown += 1
                if shown == number:
                    return
            subscriber.ack_many(deliveries)
