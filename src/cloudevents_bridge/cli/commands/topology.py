"""`ceb topology`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from cloudevents_bridge.cli.app import Group
from cloudevents_bridge.cli.shell import Shell

if TYPE_CHECKING:
    from cloudevents_bridge import Broker
    from cloudevents_bridge.config import Settings
    from cloudevents_bridge.topics import Change, Topic

FORMATS = ("terraform", "bicep", "commands")
ROLES = ("publisher", "consumer", "operator", "provisioner")


@click.group(cls=Group, help="The topics and subscriptions that bridge.toml declares, and what the broker has.")
def command() -> None:
    pass


@command.command("show", help="Show what is declared; with --live also whether the broker has it.")
@click.option("--live", is_flag=True, help="Ask the broker.")
@click.pass_obj
def show(shell: Shell, /, live: bool) -> None:
    settings = shell.settings()
    declared = _declared(settings)
    states: dict[str, str] = {}
    if live:
        with shell.connect() as broker:
            for change in broker.topology.plan():
                states[change.name] = "missing" if change.action == "create" else f"differs: {change.detail}"
            _tell_unseen(shell, broker)
    if shell.as_json:
        for topic in declared:
            shell.emit(_as_dict(topic, states, live=live))
        return
    rows = [row for topic in declared for row in _rows(topic, states)]
    headers = ["NAME", "SETTINGS", "LIVE"]
    shell.table(headers if live else headers[:2], rows if live else [row[:2] for row in rows])


@command.command("plan", help="Show what apply would do. Exit 1 if anything differs.")
@click.pass_obj
def plan(shell: Shell, /) -> int:
    _declared(shell.settings())
    with shell.connect() as broker:
        changes = broker.topology.plan()
        _show(shell, changes)
        if not changes:
            shell.note(f"nothing differs on {broker.url}")
        _tell_unseen(shell, broker)
    return 1 if changes else 0


@command.command(
    "apply", help="Create what is missing and change what differs; where only other tools can, say what to run."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def apply(shell: Shell, /, yes: bool) -> None:
    _declared(shell.settings())
    with shell.connect() as broker:
        if not yes and "topology" in broker.capabilities:
            changes = broker.topology.plan()
            if changes:
                _show(shell, changes, err=True)
                shell.confirm(f"Apply {len(changes)} changes to {broker.url}?")
        changes = broker.topology.apply()
        if shell.as_json or yes:
            _show(shell, changes)
        shell.note(f"applied {len(changes)} changes to {broker.url}")


@command.command("delete", help="Delete the declared topics with their subscriptions, events and dead letters.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(shell: Shell, /, yes: bool) -> None:
    names = ", ".join(topic.name for topic in _declared(shell.settings()))
    with shell.connect() as broker:
        if not yes:
            shell.confirm(f"Delete {names} with all subscriptions, events and dead letters on {broker.url}?")
        changes = broker.topology.delete()
        _show(shell, changes)
        shell.note(f"deleted {len(changes)} topics on {broker.url}")


@command.command("export", help="Print the declared topology for another tool.")
@click.argument("format", type=click.Choice(FORMATS))
@click.pass_obj
def export(shell: Shell, /, format: Any) -> None:
    _declared(shell.settings())
    with shell.connect() as broker:
        click.echo(broker.topology.export(format).rstrip("\n"))


@command.command("policy", help="Print the least rights of a role, in the broker's own words.")
@click.argument("role", type=click.Choice(ROLES))
@click.pass_obj
def policy(shell: Shell, /, role: Any) -> None:
    _declared(shell.settings())
    with shell.connect() as broker:
        click.echo(broker.topology.policy(role).rstrip("\n"))


def _declared(settings: Settings) -> tuple[Topic, ...]:
    from cloudevents_bridge.errors import ConfigurationError

    if not settings.topics:
        where = settings.file or "bridge.toml"
        raise ConfigurationError(
            f'no topics are declared: write [topics.NAME] with subscriptions = ["NAME"] in {where}'
        )
    return settings.topics


def _tell_unseen(shell: Shell, broker: Broker) -> None:
    if unseen := broker.topology.unseen:
        shell.note(f"what can be seen was compared: {unseen}")


def _show(shell: Shell, changes: Iterable[Change], *, err: bool = False) -> None:
    colours = {"create": "green", "update": "yellow", "delete": "red"}
    for change in changes:
        if shell.as_json and not err:
            shell.emit(change._asdict())
        else:
            action = click.style(change.action, fg=colours[change.action])
            detail = "" if change.name.endswith(change.detail) else f"  {change.detail}"
            click.echo(f"{action} {change.kind} {change.name}{detail}", err=err)


def _rows(topic: Topic, states: dict[str, str]) -> list[tuple[str, str, str]]:
    def row(name: str, settings: dict[str, object]) -> tuple[str, str, str]:
        return name, ", ".join(f"{key}={value}" for key, value in settings.items()), states.get(name, "ok")

    rows = [row(topic.name, {**({"ordered": "true"} if topic.ordered else {}), **_native(topic.native)})]
    for each in topic.subscriptions:
        settings: dict[str, object] = {"max_attempts": each.max_attempts, "lease": f"{each.lease:g}s"}
        if each.filter is not None:
            settings["filter"] = each.filter
        rows.append(row(f"{topic.name}/{each.name}", {**settings, **_native(each.native)}))
    return rows


def _native(native: Any) -> dict[str, object]:
    return {f"native.{key}": value for key, value in native.items()}


def _as_dict(topic: Topic, states: dict[str, str], *, live: bool) -> dict[str, object]:
    def state(name: str) -> dict[str, str]:
        return {"live": states.get(name, "ok")} if live else {}

    return {
        "topic": topic.name,
        "ordered": topic.ordered,
        "native": dict(topic.native),
        **state(topic.name),
        "subscriptions": [
            {
                "name": each.name,
                "max_attempts": each.max_attempts,
                "lease": each.lease,
                "redelivery": {
                    "initial": each.redelivery.initial,
                    "maximum": each.redelivery.maximum,
                    "factor": each.redelivery.factor,
                },
                "filter": each.filter,
                "native": dict(each.native),
                **state(f"{topic.name}/{each.name}"),
            }
            for each in topic.subscriptions
        ],
    }
