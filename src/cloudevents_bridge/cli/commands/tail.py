"""`ceb tail`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.params import TOPIC, Address
from cloudevents_bridge.cli.shell import Shell

if TYPE_CHECKING:
    from cloudevents_bridge import CloudEvent, Subscriber

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
    from cloudevents_bridge.cli.interrupts import Interrupts

    def wanted(event: CloudEvent) -> bool:
        return fnmatchcase(event.type, type or "*") and fnmatchcase(event.source, source or "*")

    try:
        with Interrupts() as interrupts, shell.connect() as broker, broker._tail(topic.topic) as subscriber:
            shell.note(f"tail of {topic} on {broker.url}; Ctrl-C ends it")
            interrupts.run(lambda: _show(shell, subscriber, wanted, number), subscriber.close)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(shell: Shell, subscriber: Subscriber, wanted: Callable[[CloudEvent], bool], number: int | None) -> None:
    from cloudevents_bridge.cli.show import show_event
    from cloudevents_bridge.errors import ClosedError

    shown = 0
    while True:
        try:
            deliveries = subscriber.receive(_AT_ONCE, wait=_WAIT)
        except ClosedError:
            return
        for delivery in deliveries:
            if wanted(delivery.event):
                show_event(shell, delivery.event)
                shown += 1
                if shown == number:
                    return
        subscriber.ack_many(deliveries)
