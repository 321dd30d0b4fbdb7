"""`ceb receive`."""

from __future__ import annotations

import sys
import time

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.params import DURATION, SUBSCRIPTION, Address
from cloudevents_bridge.cli.shell import Shell

_AT_ONCE = 500

_HELP = """Show the next deliveries of a subscription.

Without --ack they are shown and given back at once, which spends an attempt on brokers that count it. With --ack each
is acknowledged after it was written."""


@cli_command(_HELP)
@click.argument("address", type=SUBSCRIPTION, metavar="TOPIC/SUB")
@click.option("-n", "number", type=click.IntRange(min=1), default=10, show_default=True, help="How many at most.")
@click.option("--wait", type=DURATION, default=20.0, metavar="S", help="Seconds to wait for the first.  [default: 20]")
@click.option("--ack", is_flag=True, help="Acknowledge them: they are not delivered again.")
@click.pass_obj
def command(shell: Shell, /, address: Address, number: int, wait: float, ack: bool) -> None:
    from cloudevents_bridge.cli.show import show_event

    shown = 0
    deadline = time.monotonic() + wait
    with shell.connect() as broker, broker.subscriber(*address) as subscriber:
        while shown < number:
            left = 0.0 if shown else max(deadline - time.monotonic(), 0.0)
            deliveries = subscriber.receive(min(number - shown, _AT_ONCE), wait=left)
            if not deliveries:
                break
            for delivery in deliveries:
                show_event(shell, delivery.event, f"attempt={delivery.attempt}")
            sys.stdout.flush()
            if ack:
                subscriber.ack_many(deliveries)
            shown += len(deliveries)
    if not shown:
        shell.note(f"nothing to deliver from {address} within {wait:g} s")
    elif not ack:
        shell.note(
            f"given back: {shown}, which spends an attempt of each where the broker counts it (--ack keeps them)"
        )
