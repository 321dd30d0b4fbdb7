"""The topology for other tools: commands of `az`, and Bicep. The resource group is the caller's to name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure import bicep
from cloudevents_bridge_azure.bicep import Expression
from cloudevents_bridge_azure.eventgrid import settings
from cloudevents_bridge_azure.eventgrid.names import source, topic_name
from cloudevents_bridge_azure.eventgrid.options import Options

Places = Sequence[Topic | Subscription]
API = "2025-02-15"
_NAMESPACES = "Microsoft.EventGrid/namespaces"
GROUP = '"$GROUP"'
_RETENTION = 7
"""Days that a topic keeps events: as long as there is."""


class Feed(NamedTuple):
    """An event subscription that is to be, in the words of its ARM resource."""

    topic: str
    name: str
    properties: Mapping[str, Any]


def export(format: str, options: Options, wanted: Places) -> str:
    """Raises:
    UnsupportedError: for a format that is not of Azure.
    """
    topics, feeds = places(wanted, local=options.local)
    if format == "commands":
        return "\n".join([*_commands(options, topics, feeds), ""])
    if format == "bicep":
        return "\n\n".join([*_bicep(options, topics, feeds), ""])
    raise UnsupportedError(
        f"the topology of {options.url} cannot be exported as {format!r}: use 'bicep' or 'commands'", broker=options.url
    )


def places(wanted: Places, *, local: bool = False) -> tuple[list[str], list[Feed]]:
    """The topics and event subscriptions that are to be, those of the dead letters among them, each once."""
    topics: dict[str, None] = {}
    feeds: dict[tuple[str, str], Feed] = {}
    for place in wanted:
        topics[topic_name(place)] = None
        if not isinstance(place, Subscription):
            continue
        dead = DeadLetters(place)
        topics[topic_name(dead)] = None
        for each in (place, dead):
            feed = _feed(each, local=local)
            feeds[feed.topic, feed.name] = feed
    return list(topics), list(feeds.values())


def namespace(options: Options) -> str:
    """The name of the namespace: the first part of its host name."""
    return options.host.partition(".")[0]


def _feed(place: Subscription | DeadLetters, *, local: bool) -> Feed:
    of = place.of if isinstance(place, DeadLetters) else place
    properties: dict[str, Any] = {
        "deliveryConfiguration": {"deliveryMode": "Queue", "queue": settings.queue(of, local=local)},
        "eventDeliverySchema": "CloudEventSchemaV1_0",
    }
    if isinstance(place, Subscription) and "filters" in of.native:
        properties["filtersConfiguration"] = of.native["filters"]
    return Feed(*source(place), properties)


def _commands(options: Options, topics: Sequence[str], feeds: Sequence[Feed]) -> Iterator[str]:
    yield "# set GROUP to the resource group of the namespace"
    where = f"--resource-group {GROUP} --namespace-name {namespace(options)}"
    for name in topics:
        yield (
            f"az eventgrid namespace topic create {where} --name {name} --event-retention-in-days {_RETENTION} "
            "--publisher-type Custom --input-schema CloudEventSchemaV1_0"
        )
    for feed in feeds:
        line = (
            f"az eventgrid namespace topic event-subscription create {where} --topic-name {feed.topic} "
            f"--name {feed.name} --event-delivery-schema {feed.properties['eventDeliverySchema']} "
            f"--delivery-configuration {_argument(feed.properties['deliveryConfiguration'])}"
        )
        if "filtersConfiguration" in feed.properties:
            line += f" --filters-configuration {_argument(feed.properties['filtersConfiguration'])}"
        yield line


def _argument(value: Any) -> str:
    return shlex.quote(json.dumps(value, separators=(",", ":")))


def _bicep(options: Options, topics: Sequence[str], feeds: Sequence[Feed]) -> Iterator[str]:
    yield bicep.existing("namespace", f"{_NAMESPACES}@{API}", {"name": namespace(options)})
    symbols = {name: Expression(f"topic{number}") for number, name in enumerate(topics)}
    for name, symbol in symbols.items():
        properties = {
            "publisherType": "Custom",
            "inputSchema": "CloudEventSchemaV1_0",
            "eventRetentionInDays": _RETENTION,
        }
        body = {"parent": Expression("namespace"), "name": name, "properties": properties}
        yield bicep.resource(symbol, f"{_NAMESPACES}/topics@{API}", body)
    for number, feed in enumerate(feeds):
        kind = f"{_NAMESPACES}/topics/eventSubscriptions@{API}"
        body = {"parent": symbols[feed.topic], "name": feed.name, "properties": feed.properties}
        yield bicep.resource(f"subscription{number}", kind, body)
