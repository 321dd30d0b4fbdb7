"""The same topology for other tools: commands of `az`, and Bicep."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from cloudevents_bridge.driver import Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure import bicep
from cloudevents_bridge_azure.bicep import Expression
from cloudevents_bridge_azure.servicebus import settings
from cloudevents_bridge_azure.servicebus.administration import RULE
from cloudevents_bridge_azure.servicebus.names import subscription_name, topic_name
from cloudevents_bridge_azure.servicebus.options import Options

API = "2021-11-01"
NAMESPACES = "Microsoft.ServiceBus/namespaces"
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
            yield f"az servicebus topic create {common} --name {topic_name(place)}{flags(settings.topic(place))}"
            continue
        topic, name = topic_name(place.topic), subscription_name(place)
        created = f"az servicebus topic subscription create {common} --topic-name {topic} --name {name}"
        yield created + flags(settings.subscription(place))
        if (rule := settings.rule(place, options.mode)) is not None:
            where = f"--topic-name {topic} --subscription-name {name} --name '{RULE}'"
            yield (
                f"az servicebus topic subscription rule update {common} {where} --filter-type SqlFilter "
                f"--filter-sql-expression {shlex.quote(rule)}"
            )


def flags(wanted: settings.Settings) -> str:
    """Settings as options of `az`."""
    return "".join(f" --{_FLAGS[name]} {_said(value)}" for name, value in wanted.items())


def properties(wanted: settings.Settings) -> Mapping[str, Any]:
    """Settings in the words of their ARM resource."""
    return {
        _PROPERTIES[name]: _said(value) if isinstance(value, timedelta) else value for name, value in wanted.items()
    }


def _bicep(options: Options, wanted: Places) -> Iterator[str]:
    yield bicep.existing("bus", f"{NAMESPACES}@{API}", {"name": _namespace(options)})
    topics = {of.name: of for of in (place if isinstance(place, Topic) else place.topic for place in wanted)}
    symbols = {name: Expression(f"topic{number}") for number, name in enumerate(topics)}
    for name, topic in topics.items():
        body = {"parent": Expression("bus"), "name": topic_name(topic), "properties": properties(settings.topic(topic))}
        yield bicep.resource(symbols[name], f"{NAMESPACES}/topics@{API}", body)
    for number, place in enumerate(each for each in wanted if isinstance(each, Subscription)):
        symbol, kind = Expression(f"subscription{number}"), f"{NAMESPACES}/topics/subscriptions"
        body = {
            "parent": symbols[place.topic.name],
            "name": subscription_name(place),
            "properties": properties(settings.subscription(place)),
        }
        yield bicep.resource(symbol, f"{kind}@{API}", body)
        if (rule := settings.rule(place, options.mode)) is not None:
            filters = {"filterType": "SqlFilter", "sqlFilter": {"sqlExpression": rule}}
            body = {"parent": symbol, "name": RULE, "properties": filters}
            yield bicep.resource(f"rule{number}", f"{kind}/rules@{API}", body)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"PT{value.total_seconds():.10g}S" if isinstance(value, timedelta) else str(value)
