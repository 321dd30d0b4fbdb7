"""What the processes of the demo counted, and how it is shown."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from cloudevents_bridge.demo.orders import Refused


class Published(msgspec.Struct, frozen=True):
    """What the publisher says at its end. `accepted`: events that the broker gave a receipt for."""

    accepted: int
    refused: list[Refused]


class Consumed(msgspec.Struct, frozen=True):
    """What a consumer says at its end.

    Attributes:
        consumed: orders that its handler has finished.
        failed: runs of the handler that raised.
        done: what the handler did, in a few words.
    """

    consumed: int
    failed: int
    done: str


class Feed(msgspec.Struct, frozen=True):
    """One subscription in the end. `retried`: failed runs after which the order was delivered again."""

    consumed: int
    retried: int
    dead_lettered: int
    done: str


class Summary(msgspec.Struct, frozen=True):
    """The whole run. `next`: commands that go on from here."""

    url: str
    lines: int
    published: int
    refused: list[Refused]
    subscriptions: dict[str, Feed]
    seconds: float
    next: list[str]

    @property
    def complete(self) -> bool:
        """Whether each line was published or refused, and each order consumed or kept as a dead letter, everywhere."""
        return self.published + len(self.refused) == self.lines and all(
            feed.consumed + feed.dead_lettered == self.published for feed in self.subscriptions.values()
        )


def to_json(summary: Summary) -> str:
    """One line, for programs."""
    fields = msgspec.to_builtins(summary)
    fields["refused"] = [refused._asdict() for refused in summary.refused]
    return msgspec.json.encode(fields | {"complete": summary.complete}).decode()


def show(summary: Summary) -> None:
    """Print the summary for people: in colour on a terminal, in plain columns elsewhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True, **_width())
    console.print(f"\n[bold]{summary.published}[/] of {summary.lines} lines published, {len(summary.refused)} refused:")
    for line, why in summary.refused:
        console.print(f"  line {line:>3}  [yellow]{_plain(why)}[/]")

    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    table.add_column("subscription", style="bold")
    for heading in ("consumed", "retried", "dead-lettered"):
        table.add_column(heading, justify="right")
    table.add_column("what it did", style="dim")
    for name, feed in summary.subscriptions.items():
        dead = f"[red]{feed.dead_lettered}[/]" if feed.dead_lettered else "0"
        table.add_row(name, str(feed.consumed), str(feed.retried), dead, _plain(feed.done))
    console.print()
    console.print(table)

    console.print(
        f"\n{summary.seconds:.1f} s. The broker is {_plain(summary.url)}; the next demo empties it. Go on with:"
    )
    for command in summary.next:
        console.print(f"  [cyan]{_plain(command)}[/]")
    if not summary.complete:
        console.print(
            "[red]The numbers do not add up: an order was lost or delivered to a place it should not reach.[/]"
        )


def _width() -> dict[str, Any]:
    """Where nobody looks there is no width to fit in."""
    return {} if sys.stdout.isatty() else {"width": 200}


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
