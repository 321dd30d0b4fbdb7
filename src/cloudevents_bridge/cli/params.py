"""Addresses, durations and attributes on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import click
from click.shell_completion import CompletionItem

from cloudevents_bridge.cli.shell import Shell
from cloudevents_bridge.errors import InvalidArgumentError


class Address(NamedTuple):
    """TOPIC, or TOPIC/SUBSCRIPTION."""

    topic: str
    subscription: str = ""

    def __str__(self) -> str:
        return f"{self.topic}/{self.subscription}" if self.subscription else self.topic


class AddressType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """TOPIC, TOPIC/SUB or either. Names complete from `bridge.toml`."""

    def __init__(self, form: Literal["TOPIC", "TOPIC/SUB", "TOPIC[/SUB]"]) -> None:
        self.name = form

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        from cloudevents_bridge.topics import check_name

        if isinstance(value, Address):
            return value
        topic, slash, subscription = str(value).partition("/")
        if slash and self.name == "TOPIC":
            self.fail(f"{value!r} is a topic and a subscription: give the topic only", param, ctx)
        if not slash and self.name == "TOPIC/SUB":
            self.fail(f"{value!r} names no subscription: write TOPIC/SUBSCRIPTION", param, ctx)
        try:
            check_name("topic", topic)
            if slash:
                check_name("subscription", subscription)
        except InvalidArgumentError as error:
            self.fail(str(error), param, ctx)
        return Address(topic, subscription)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            topics = ctx.ensure_object(Shell).settings().topics
        except Exception:  # noqa: BLE001 - a completion that fails must not write into the command line
            return []
        names = []
        for topic in topics:
            if self.name != "TOPIC/SUB":
                names.append(topic.name)
            if self.name != "TOPIC":
                names += [f"{topic.name}/{each.name}" for each in topic.subscriptions]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """Seconds, or 500ms, 60s, 5m, 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from cloudevents_bridge.config import parse_duration

        try:
            return parse_duration(value)
        except InvalidArgumentError as error:
            self.fail(str(error), param, ctx)


class SinceType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """How long ago (2h), or a moment (2026-01-31T12:00:00Z; without an offset in local time)."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from cloudevents_bridge.config import parse_duration

        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(str(value)).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_duration(value))
        except (InvalidArgumentError, OverflowError):
            self.fail(f"{value!r} is no time: write 30m, 2h or 2026-01-31T12:00:00Z", param, ctx)


class AttributeType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """NAME=VALUE."""

    name = "attribute"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, found, text = str(value).partition("=")
        if not found or not name:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


TOPIC = AddressType("TOPIC")
SUBSCRIPTION = AddressType("TOPIC/SUB")
EITHER = AddressType("TOPIC[/SUB]")
DURATION = DurationType()
SINCE = SinceType()
ATTRIBUTE = AttributeType()
