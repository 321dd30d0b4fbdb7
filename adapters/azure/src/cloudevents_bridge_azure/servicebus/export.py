"""The same topology for other tools: commands of `az`, and Bicep."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from cloudevents_bridge.driver import Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure.servicebus import settings
from cloudevents_bridge_azure.servicebus.administration import RULE
from cloudevents_bridge_azure.servicebus.names import subscription_name, topic_name
from cloudevents_bridge_azure.servicebus.options import Options

API = "2021-11-01"
_FLAGS = {
    "support_ordering": "enable-ordering",
    "requires_duplicate_detection": "duplicate-detection",
    "duplicate_detection_history_time_window": "duplicate-detection-history-time-window",
    "enable_partitioning": "enable-partitioning",
    "max_size_in_megabytes": "max-size",
    "lock_duration": "lock-duration",
    "requires_session": "enable-session",
    "default_message_time_to_live": "default-message-time-to-live",
    "max_delivery_count": "max-delivery-count",
    "dead_lettering_on_message_expiration": "enable-dead-lettering-on-message-expiration",
    "dead_lettering_on_filter_evaluation_exceptions": "dead-letter-on-filter-exceptions",
    "auto_delete_on_idle": "auto-delete-on-idle",
}
_PROPERTIES = {
    "support_ordering": "supportOrdering",
    "requires_duplicate_detection": "requiresDuplicateDetection",
    "duplicate_detection_history_time_window": "duplicateDetectionHistoryTimeWindow",
    "enable_partitioning": "enablePartitioning",
    "max_size_in_megabytes": "maxSizeInMegabytes",
    "lock_duration": "lockDuration",
    "requires_session": "requiresSession",
    "default_message_time_to_live": "defaultMessageTimeToLive",
    "max_delivery_count": "maxDeliveryCount",
    "dead_lettering_on_message_expiration": "deadLetteringOnMessageExpiration",
    "dead_lettering_on_filter_evaluation_exceptions": "deadLetteringOnFilterEvaluationExceptions",
    "auto_delete_on_idle": "autoDeleteOnIdle",
}
Places = Sequence[Topic | Subscription]


def export(format: str, options: Options, wanted: Places) -> str:
    """Raises:
    UnsupportedError: for a format that is not of Azure.
    """
    if format == "commands":
        return "\n".join(["# set GROUP to the namespace's resource group", *_commands(options, wanted), ""])
    if format == "bicep":
        return "\n\n".join([*_bicep(options, wanted), ""])
    raise UnsupportedError(
        f"the topology of {options.url} cannot be exported as {format!r}, which is not for Azure: use 'bicep' or "
        "'commands'"
    )


def _namespace(options: Options) -> str:
    return options.host.partition(".")[0]


def _commands(options: Options, wanted: Places) -> Iterator[str]:
    common = f'--resource-group "$GROUP" --namespace-name {_namespace(options)}'
    for place in wanted:
        if isinstance(place, Topic):
            flags = _flags(settings.topic(place))
            yield f"az servicebus topic create {common} --name {topic_name(place)}{flags}"
            continue
        topic, name = topic_name(place.topic), subscription_name(place)
        flags = _flags(settings.subscription(place))
        yield f"az servicebus topic subscription create {common} --topic-name {topic} --name {name}{flags}"
        if (rule := settings.rule(place, options.mode)) is not None:
            where = f"--topic-name {topic} --subscription-name {name} --name '{RULE}'"
            yield (
                f"az servicebus topic subscription rule update {common} {where} --filter-type SqlFilter "
                f"--filter-sql-expression {shlex.quote(rule)}"
            )


def _flags(wanted: settings.Settings) -> str:
    return "".join(f" --{_FLAGS[name]} {_said(value)}" for name, value in wanted.items())


def _bicep(options: Options, wanted: Places) -> Iterator[str]:
    yield _resource("bus", "namespaces", f"existing = {{\n  name: {_quoted(_namespace(options))}\n}}")
    for place in wanted:
        if isinstance(place, Topic):
            symbol = _symbol(topic_name(place))
            yield _resource(symbol, "namespaces/topics", _body("bus", topic_name(place), settings.topic(place)))
            continue
        topic, name = topic_name(place.topic), subscription_name(place)
        symbol = _symbol(topic, name)
        body = _body(_symbol(topic), name, settings.subscription(place))
        yield _resource(symbol, "namespaces/topics/subscriptions", body)
        if (rule := settings.rule(place, options.mode)) is not None:
            sql = f"{{\n    filterType: 'SqlFilter'\n    sqlFilter: {{ sqlExpression: {_quoted(rule)} }}\n  }}"
            body = f"= {{\n  parent: {symbol}\n  name: {_quoted(RULE)}\n  properties: {sql}\n}}"
            yield _resource(f"{symbol}_rule", "namespaces/topics/subscriptions/rules", body)


def _resource(symbol: str, kind: str, body: str) -> str:
    return f"resource {symbol} 'Microsoft.ServiceBus/{kind}@{API}' {body}"


def _body(parent: str, name: str, wanted: settings.Settings) -> str:
    lines = [f"    {_PROPERTIES[key]}: {_literal(value)}" for key, value in wanted.items()]
    inside = "\n".join(lines)
    return f"= {{\n  parent: {parent}\n  name: {_quoted(name)}\n  properties: {{\n{inside}\n  }}\n}}"


def _literal(value: Any) -> str:
    return _said(value) if not isinstance(value, timedelta) else _quoted(_said(value))


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"PT{value.total_seconds():.10g}S" if isinstance(value, timedelta) else str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def _symbol(*names: str) -> str:
    return "_".join(("topic", *("".join(c if c.isalnum() else "_" for c in name) for name in names)))
