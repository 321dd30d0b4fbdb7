"""`ceb check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from cloudevents_bridge.cli.app import command as cli_command
from cloudevents_bridge.cli.commands.topology import ROLES
from cloudevents_bridge.cli.params import EITHER, Address
from cloudevents_bridge.cli.shell import Shell, one_line

if TYPE_CHECKING:
    from cloudevents_bridge import Broker, Topic
    from cloudevents_bridge.config import Settings

_COLOURS = {"ok": "green", "failed": "red", "not checked": "yellow"}


class Finding(NamedTuple):
    """The answer to one question."""

    profile: str
    what: str
    result: Literal["ok", "failed", "not checked"]
    detail: str


@cli_command(
    "Check the file, the capabilities, the identity, and that topics and subscriptions exist as declared. Nothing is "
    "changed, published or received. Exit 1 if anything failed."
)
@click.argument("addresses", type=EITHER, nargs=-1, metavar="[TOPIC[/SUB]]...")
@click.option("--as", "role", type=click.Choice(ROLES), help="Only what this role needs.")
@click.option("--offline", is_flag=True, help="Only what needs no broker: file, adapter, capabilities.")
@click.option("--all-profiles", is_flag=True, help="Each profile of bridge.toml.")
@click.pass_obj
def command(
    shell: Shell, /, addresses: tuple[Address, ...], role: str | None, offline: bool, all_profiles: bool
) -> int:
    failed = False
    for each in _shells(shell, all_profiles=all_profiles):
        for finding in _check(each, addresses, role, offline=offline):
            failed = failed or finding.result == "failed"
            if shell.as_json:
                shell.emit(finding._asdict())
            elif finding.result != "ok" or not shell.quiet:
                result = click.style(finding.result.ljust(11), fg=_COLOURS[finding.result])
                click.echo(f"{result} {finding.profile}: {finding.what}  {one_line(finding.detail)}".rstrip())
    return 1 if failed else 0


def _shells(shell: Shell, *, all_profiles: bool) -> list[Shell]:
    from cloudevents_bridge.config import profiles

    if not all_profiles:
        return [shell]
    if shell.profile or shell.url:
        raise click.UsageError("--all-profiles checks each profile: leave out --profile and --url")
    names = profiles(config=shell.config)
    if not names:
        raise click.UsageError("--all-profiles needs a bridge.toml with profiles: there is none")
    return [replace(shell, profile=name) for name in names]


def _check(shell: Shell, addresses: tuple[Address, ...], role: str | None, *, offline: bool) -> Iterator[Finding]:
    from cloudevents_bridge.errors import BridgeError

    name = shell.profile or "broker"
    try:
        settings = shell.settings()
        name = settings.profile or settings.url.scheme
        yield Finding(name, "configuration", "ok", str(settings.file or settings.url.text))
        broker = shell.connect()
    except BridgeError as error:
        yield Finding(name, "configuration", "failed", str(error))
        return
    with broker:
        capabilities = ", ".join(sorted(broker.capabilities)) or "none"
        yield Finding(name, "capabilities", "ok", capabilities)
        if offline:
            return
        try:
            broker.ping()
        except BridgeError as error:
            yield Finding(name, "reach and authenticate", "failed", str(error))
            return
        yield Finding(name, "reach and authenticate", "ok", broker.url)
        yield from _existence(name, broker, _wanted(settings, addresses), required=role in (None, "provisioner"))
        if role is not None and role != "provisioner":
            detail = "this version has no probe for it that is without effect"
            yield Finding(name, f"rights of a {role}", "not checked", detail)


def _wanted(settings: Settings, addresses: tuple[Address, ...]) -> list[Topic]:
    """The declared topics, or those that were named: as declared, with the named subscriptions only."""
    from cloudevents_bridge import Subscription, Topic

    if not addresses:
        return list(settings.topics)
    declared = {topic.name: topic for topic in settings.topics}
    named: dict[str, dict[str, Subscription]] = {}
    for address in addresses:
        topic = declared.get(address.topic)
        known = {each.name: each for each in topic.subscriptions} if topic else {}
        chosen = named.setdefault(address.topic, {})
        if address.subscription:
            chosen[address.subscription] = known.get(address.subscription) or Subscription(address.subscription)
        else:
            chosen.update(known)
    return [
        Topic(name, subscriptions=chosen.values(), ordered=declared[name].ordered, native=declared[name].native)
        if name in declared
        else Topic(name, subscriptions=chosen.values())
        for name, chosen in named.items()
    ]


def _existence(name: str, broker: Broker, topics: list[Topic], *, required: bool) -> Iterator[Finding]:
    from cloudevents_bridge.errors import BridgeError, ErrorCode

    creates = "creates it" if "topology" in broker.capabilities else "says what creates it"
    for topic in topics:
        try:
            changes = broker.topology.plan(topic)
        except BridgeError as error:
            soft = error.code is ErrorCode.UNSUPPORTED or (error.code is ErrorCode.PERMISSION_DENIED and not required)
            yield Finding(name, f"topic {topic.name}", "not checked" if soft else "failed", str(error))
            continue
        differing = {change.name: change for change in reversed(changes)}
        for place in (topic.name, *(f"{topic.name}/{each.name}" for each in topic.subscriptions)):
            kind = "subscription" if "/" in place else "topic"
            change = differing.pop(place, None)
            if change is None:
                yield Finding(name, f"{kind} {place}", "ok", "")
            elif change.action == "create":
                detail = f"does not exist: declare it in bridge.toml, and `ceb topology apply` {creates}"
                yield Finding(name, f"{kind} {place}", "failed", detail)
            else:
                yield Finding(name, f"{kind} {place}", "failed", f"{change.detail}: `ceb topology plan` shows all")
    if topics and (unseen := broker.topology.unseen):
        yield Finding(name, "the rest of the topology", "not checked", unseen)
