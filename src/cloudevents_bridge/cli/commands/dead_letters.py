"""`ceb dead-letters`, also `ceb dl`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cloudevents_bridge.cli.app import Group
from cloudevents_bridge.cli.params import SINCE, SUBSCRIPTION, TOPIC, Address
from cloudevents_bridge.cli.shell import Shell, event_line, one_line, visible

if TYPE_CHECKING:
    from cloudevents_bridge import DeadLetter, DeadLetters


@click.group(cls=Group, help="List, show, replay and purge dead letters.")
def command() -> None:
    pass


@dataclass(frozen=True)
class Choice:
    """Which letters are meant: ids, all, or those that the filters find."""

    ids: tuple[str, ...]
    all: bool
    type: str | None
    reason: str | None
    since: datetime | None

    def check(self) -> None:
        filters = self.type is not None or self.reason is not None or self.since is not None
        if self.ids and (self.all or filters):
            raise click.UsageError("an ID names its letter: leave out --all and the filters")
        if not (self.ids or self.all or filters):
            raise click.UsageError("which letters: give IDs, --all, or a filter (--type, --reason, --since)")

    def find(self, letters: DeadLetters, number: int | None = None) -> list[str]:
        """The ids of the letters meant. Those that were given are taken as they are."""
        if self.ids:
            return list(dict.fromkeys(self.ids))
        return [each.id for each in letters.find(type=self.type, reason=self.reason, since=self.since, limit=number)]


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--since", type=SINCE, metavar="T", help="Only those that died since: 30m, 2h, 2026-01-31."),
        click.option("--reason", metavar="TEXT", help="Only those whose reason holds this text."),
        click.option("--type", metavar="T", help="Only this event type, or a beginning of it with *."),
    ):
        function = option(function)
    return function


def _chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--all", is_flag=True, help="All letters.")(_filters(function))
    function = click.argument("ids", nargs=-1, metavar="[ID]...")(function)
    return click.argument("address", type=SUBSCRIPTION, metavar="TOPIC/SUB")(function)


@command.command("list", help="List the dead letters of a subscription.")
@click.argument("address", type=SUBSCRIPTION, metavar="TOPIC/SUB")
@_filters
@click.option("-n", "number", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@click.pass_obj
def list_(shell: Shell, /, address: Address, number: int, **filters: Any) -> None:
    with shell.connect() as broker:
        found = broker.dead_letters(*address).find(limit=number, **filters)
        if shell.as_json:
            for letter in found:
                click.echo(_as_json(letter))
            return
        rows = [
            (each.id, f"{each.died:%Y-%m-%d %H:%M:%S}", each.attempts, _type(each), _short(each.reason))
            for each in found
        ]
    if rows:
        shell.table(["ID", "DIED (UTC)", "ATTEMPTS", "TYPE", "REASON"], rows)
    if len(rows) == number:
        shell.note(f"the first {number}; -n shows more")
    elif not rows:
        shell.note(f"no dead letters of {address}")


@command.command("show", help="Show dead letters in full; --raw writes the body as it came.")
@click.argument("address", type=SUBSCRIPTION, metavar="TOPIC/SUB")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--raw", is_flag=True, help="The bytes of the native message's body, and nothing else.")
@click.pass_obj
def show(shell: Shell, /, address: Address, ids: tuple[str, ...], raw: bool) -> None:
    from cloudevents_bridge.cli.show import show_event

    with shell.connect() as broker:
        for letter in _by_id(broker.dead_letters(*address), ids, address):
            if raw:
                click.echo(letter.raw.body, nl=False)
            elif shell.as_json:
                click.echo(_as_json(letter))
            else:
                for name, value in _details(letter).items():
                    click.echo(f"{click.style(f'{name}:', bold=True)} {one_line(str(value))}")
                if letter.event is None:
                    click.echo(visible(letter.raw.body.decode("utf-8", "backslashreplace")))
                else:
                    show_event(shell, letter.event)


@command.command("replay", help="Deliver dead letters again, to their subscription only.")
@_chosen
@click.option("-n", "number", type=click.IntRange(min=1), help="How many at most.")
@click.option("--to", type=TOPIC, metavar="TOPIC", help="Publish to all subscriptions of this topic instead.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Letters per second, at most.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@click.pass_obj
def replay(
    shell: Shell,
    /,
    address: Address,
    number: int | None,
    to: Address | None,
    rate: float | None,
    dry_run: bool,
    **choice: Any,
) -> None:
    chosen = Choice(**choice)
    chosen.check()
    with shell.connect() as broker:
        letters = broker.dead_letters(*address)
        ids = chosen.find(letters, number)[:number]
        if dry_run:
            ids = [letter.id for letter in _by_id(letters, ids, address)] if chosen.ids else ids
            _report(shell, "would replay", ids)
            return
        receipts = letters.replay(ids, topic=to.topic if to else None, rate=rate)
    if shell.as_json:
        for receipt in receipts:
            shell.emit(receipt._asdict())
    else:
        shell.say(f"replayed {len(receipts)} of {address}" + (f" to topic {to}" if to else ""))


@command.command("purge", help="Delete dead letters for good.")
@_chosen
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(shell: Shell, /, address: Address, yes: bool, **choice: Any) -> None:
    chosen = Choice(**choice)
    chosen.check()
    with shell.connect() as broker:
        letters = broker.dead_letters(*address)
        ids = chosen.find(letters)
        if ids and not yes:
            shell.confirm(f"Delete {len(ids)} dead letters of {address} for good?")
        purged = letters.purge(ids)
    if shell.as_json:
        shell.emit({"purged": purged})
    else:
        shell.say(f"purged {purged} of {address}")


def _by_id(letters: DeadLetters, ids: Iterable[str], address: Address) -> Iterator[DeadLetter]:
    """The letters of these ids.

    Raises:
        NotFoundError: at the end, for those that are not there.
    """
    from cloudevents_bridge.errors import NotFoundError

    wanted = set(ids)
    for letter in letters.find():
        if letter.id in wanted:
            wanted.remove(letter.id)
            yield letter
        if not wanted:
            return
    raise NotFoundError(
        f"no dead letter {', '.join(sorted(wanted))} of {address}: see `ceb dead-letters list {address}`"
    )


def _report(shell: Shell, word: str, ids: list[str]) -> None:
    if shell.as_json:
        for id in ids:
            shell.emit({"id": id})
    else:
        for id in ids:
            shell.say(f"{word} {id}")
        shell.note(f"{word} {len(ids)}")


def _type(letter: DeadLetter) -> str:
    return letter.event.type if letter.event is not None else "(cannot be decoded)"


def _short(reason: str) -> str:
    return reason if len(reason) <= 100 else reason[:99] + "…"


def _details(letter: DeadLetter) -> dict[str, object]:
    details = {
        "id": letter.id,
        "topic": letter.topic,
        "subscription": letter.subscription,
        "died": letter.died.isoformat(),
        "attempts": letter.attempts,
        "reason": letter.reason,
        "error": letter.error,
    }
    return {name: value for name, value in details.items() if value is not None}


def _as_json(letter: DeadLetter) -> bytes:
    """One line: what is known of the letter, with its event in JSON format or, where it is none, the body in Base64."""
    import msgspec

    head = msgspec.json.encode(_details(letter))
    if letter.event is None:
        tail = b'"body_base64":' + msgspec.json.encode(letter.raw.body)
    else:
        tail = b'"event":' + event_line(letter.event)
    return head[:-1] + b"," + tail + b"}"
