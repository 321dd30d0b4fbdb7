"""Topics as `bridge.toml` declares them: layers of tables, each checked by itself, merged key by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cloudevents_bridge.config.section import Section
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge.topics import DEFAULT_REDELIVERY, RetryPolicy, Subscription, Topic

Layer = dict[str, dict[str, Any]]


def declared_layer(topics: Iterable[Topic]) -> Layer:
    """The layer that a program's own declarations make."""
    return {
        topic.name: {
            "ordered": topic.ordered,
            "native": dict(topic.native),
            "subscriptions": {
                each.name: {
                    "max_attempts": each.max_attempts,
                    "lease": each.lease,
                    "redelivery": each.redelivery,
                    "filter": each.filter,
                    "native": dict(each.native),
                }
                for each in topic.subscriptions
            },
        }
        for topic in topics
    }


def file_layer(section: Section) -> Layer:
    """The layer in one table `topics`.

    Raises:
        ConfigurationError: if a key is unknown or a value wrong; it names the file and the dotted key.
    """
    return {name: _topic(section, name) for name in section}


def build(*layers: Layer) -> tuple[Topic, ...]:
    """The topics of all layers; where two speak of one key, the later one counts."""
    merged: Layer = {}
    for layer in layers:
        _merge(merged, layer)
    return tuple(_make(name, table) for name, table in merged.items())


def retry_policy(section: Section, base: RetryPolicy, keys: Iterable[str]) -> RetryPolicy:
    """The policy in a table, on top of `base`.

    Raises:
        ConfigurationError: as `file_layer`.
    """
    section.only(keys)
    values: dict[str, Any] = {key: section.duration(key) for key in ("initial", "maximum") if key in section}
    if "factor" in section:
        values["factor"] = section.number("factor")
    if "attempts" in section:
        values["attempts"] = section.whole("attempts")
    try:
        return replace(base, **values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{section.file}: {section.path}: {error}") from error


def _topic(section: Section, name: str) -> dict[str, Any]:
    table = section.table(name)
    table.only({"ordered", "subscriptions", "native"})
    made: dict[str, Any] = {"subscriptions": _subscriptions(table)}
    if "ordered" in table:
        made["ordered"] = table.flag("ordered")
    if "native" in table:
        made["native"] = table.table("native").plain()
    try:
        _make(name, made)
    except ConfigurationError as error:
        raise ConfigurationError(f"{section.file}: {section.key(name)}: {error}") from error
    return made


def _subscriptions(topic: Section) -> dict[str, dict[str, Any]]:
    if "subscriptions" not in topic:
        return {}
    if topic.is_list("subscriptions"):
        names = topic.names("subscriptions")
        for name in names:
            if names.count(name) > 1:
                topic.fail("subscriptions", f"names {name!r} twice: name it once")
        return {name: {} for name in names}
    section = topic.table("subscriptions")
    return {name: _subscription(section.table(name)) for name in section}


def _subscription(table: Section) -> dict[str, Any]:
    table.only({"max_attempts", "lease", "redelivery", "filter", "native"})
    made: dict[str, Any] = {}
    if "max_attempts" in table:
        made["max_attempts"] = table.whole("max_attempts")
    if "lease" in table:
        made["lease"] = table.duration("lease")
    if "redelivery" in table:
        keys = ("initial", "maximum", "factor")
        made["redelivery"] = retry_policy(table.table("redelivery"), DEFAULT_REDELIVERY, keys)
    if "filter" in table:
        made["filter"] = table.text("filter")
    if "native" in table:
        made["native"] = table.table("native").plain()
    return made


def _make(name: str, table: Mapping[str, Any]) -> Topic:
    subscriptions = [Subscription(each, **settings) for each, settings in table["subscriptions"].items()]
    return Topic(name, **{**table, "subscriptions": subscriptions})


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        have = into.get(key)
        if isinstance(have, dict) and isinstance(value, dict):
            _merge(have, value)
        elif isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value
