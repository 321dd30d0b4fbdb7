"""`ceb receive`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.params import DURATION, SUBSCRIPTION, Address
from cloudevents_bridge.cli.shell import Shell

if TYPE_CHECKING:
    from cloudevents_bridge import Delivery, Subscriber

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
    from cloudevents_bridge.cli.interrupts import Interrupts

    shown = 0

    def show() -> None:
        nonlocal shown
        for deliveries in _batches(subscriber, number, wait):
            _show(shell, deliveries)
            if ack:
                subscriber.ack_many(deliveries)
            shown += len(deliveries)

    with Interrupts() as interrupts, shell.connect() as broker, broker.subscriber(*address) as subscriber:
        if shell.verbose:
            shell.note(f"waiting for {address} on {broker.url}, up to {wait:g} s")
        interrupts.run(show, subscriber.close)
    if not shown:
        shell.note(f"nothing to deliver from {address} within {wait:g} s")
    elif not ack:
        shell.note(
            f"given back: {shown}, which spends an attempt of each where the broker counts that (--ack takes them)"
        )


def _batches(subscriber: Subscriber, number: int, wait: float) -> Iterator[list[Delivery]]:
    """Up to `number` deliveries: what comes first is waited for, then what is there is taken."""
    taken = 0
    while taken < number:
        deliveries = subscriber.receive(min(number - taken, _AT_ONCE), wait=0.0 if taken else wait)
        if not deliveries:
            return
        taken += len(deliveries)
        yield deliveries


def _show(shell: Shell, deliveries: list[Delivery]) -> None:
    from cloudevents_bridge.cli.show import show_event

    for delivery in deliveries:
        show_event(shell, delivery.event, f"attempt={delivery.attempt}")
