"""The topology for other tools: commands of `az`, and Bicep. The resource group is the caller's to name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudevents_bridge.driver import Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure import bicep
from cloudevents_bridge_azure.bicep import Expression
from cloudevents_bridge_azure.eventgrid.custom import settings
from cloudevents_bridge_azure.eventgrid.custom.names import queue_name, topic_name
from cloudevents_bridge_azure.eventgrid.custom.options import TopicOptions
from cloudevents_bridge_azure.eventgrid.export import API, GROUP
from cloudevents_bridge_azure.servicebus import export as servicebus

Places = Sequence[Topic | Subscription]
STORAGE_API = "2023-05-01"
_IN_GROUP = f"--resource-group {GROUP}"
_TOPICS, _ACCOUNTS = "Microsoft.EventGrid/topics", "Microsoft.Storage/storageAccounts"
_FLAGS = {
    "subjectBeginsWith": "subject-begins-with",
    "subjectEndsWith": "subject-ends-with",
    "isSubjectCaseSensitive": "subject-case-sensitive",
    "enableAdvancedFilteringOnArrays": "enable-advanced-filtering-on-arrays",
}


def export(format: str, options: TopicOptions, wanted: Places) -> str:
    """Raises:
    UnsupportedError: for a format that is not of Azure.
    """
    if format == "commands":
        head = "# set GROUP to the resource group of the topics and of the Service Bus namespace"
        return "\n".join([head, *dict.fromkeys(_commands(options, wanted)), ""])
    if format == "bicep":
        return "\n\n".join([*_bicep(options, wanted), ""])
    url = options.grid.url
    raise UnsupportedError(
        f"the topology of {url} cannot be exported as {format!r}: use 'bicep' or 'commands'", broker=url
    )


def show_topic(topic: Topic) -> str:
    """A command that says the id of a topic."""
    return f"az eventgrid topic show {_IN_GROUP} --name {topic_name(topic)} --query id --output tsv"


def show_queue(options: TopicOptions, of: Subscription) -> str:
    """A command that says the id of a queue."""
    where = f"{_IN_GROUP} --namespace-name {_namespace(options)} --name {queue_name(of)}"
    return f"az servicebus queue show {where} --query id --output tsv"


def _namespace(options: TopicOptions) -> str:
    return options.bus.host.partition(".")[0]


def _region(options: TopicOptions) -> str:
    return options.grid.host.partition(".")[0].rpartition("-")[0] or "westeurope"


# -- commands


def _commands(options: TopicOptions, wanted: Places) -> Iterator[str]:
    for place in wanted:
        topic = place if isinstance(place, Topic) else place.topic
        yield (
            f"az eventgrid topic create {_IN_GROUP} --name {topic_name(topic)} --location {_region(options)} "
            "--input-schema cloudeventschemav1_0"
        )
        if isinstance(place, Subscription):
            flags = servicebus.flags(settings.queue(place))
            where = f"{_IN_GROUP} --namespace-name {_namespace(options)}"
            yield f"az servicebus queue create {where} --name {queue_name(place)}{flags}"
            if container := settings.container(place):
                yield (
                    f"az storage container-rm create {_IN_GROUP} --storage-account {container.account} "
                    f"--name {container.name}"
                )
            yield _feed(options, place)


def _feed(options: TopicOptions, of: Subscription) -> str:
    line = (
        f"az eventgrid event-subscription create --name {of.name} "
        f'--source-resource-id "$({show_topic(of.topic)})" '
        f'--endpoint-type servicebusqueue --endpoint "$({show_queue(options, of)})" '
        "--event-delivery-schema cloudeventschemav1_0"
    )
    if container := settings.container(of):
        account = f"az storage account show {_IN_GROUP} --name {container.account} --query id --output tsv"
        line += f' --deadletter-endpoint "$({account})/blobServices/default/containers/{container.name}"'
    return line + "".join(_filters(of.native.get("filter", {})))


def _filters(wanted: Mapping[str, Any]) -> Iterator[str]:
    """Source: https://learn.microsoft.com/cli/azure/eventgrid/event-subscription."""
    if types := wanted.get("includedEventTypes"):
        yield f" --included-event-types {shlex.join(types)}"
    for name, flag in _FLAGS.items():
        if name in wanted:
            yield f" --{flag} {shlex.quote(_argument(wanted[name]))}"
    for each in wanted.get("advancedFilters", ()):
        values = each.get("values", [each["value"]] if "value" in each else [])
        yield f" --advanced-filter {shlex.join([each['key'], each['operatorType'], *map(_argument, values)])}"


def _argument(value: Any) -> str:
    if isinstance(value, (list, tuple)):  # a range
        return ",".join(map(_argument, value))
    return value if isinstance(value, str) else json.dumps(value)


# -- Bicep


def _bicep(options: TopicOptions, wanted: Places) -> Iterator[str]:
    topics = {of.name: of for of in (place if isinstance(place, Topic) else place.topic for place in wanted)}
    feeds = [place for place in wanted if isinstance(place, Subscription)]
    symbols = {name: Expression(f"topic{number}") for number, name in enumerate(topics)}
    for name, topic in topics.items():
        properties = {"inputSchema": "CloudEventSchemaV1_0"}
        body = {"name": topic_name(topic), "location": _region(options), "properties": properties}
        yield bicep.resource(symbols[name], f"{_TOPICS}@{API}", body)
    if feeds:
        yield bicep.existing("bus", f"{servicebus.NAMESPACES}@{servicebus.API}", {"name": _namespace(options)})
    containers = dict.fromkeys(filter(None, map(settings.container, feeds)))
    kept = {container: f"container{number}" for number, container in enumerate(containers)}
    for container, symbol in kept.items():
        yield from _container(container, symbol)
    for number, feed in enumerate(feeds):
        queue = {
            "parent": Expression("bus"),
            "name": queue_name(feed),
            "properties": servicebus.properties(settings.queue(feed)),
        }
        yield bicep.resource(f"queue{number}", f"{servicebus.NAMESPACES}/queues@{servicebus.API}", queue)
        own = settings.container(feed)
        body = {
            "parent": symbols[feed.topic.name],
            "name": feed.name,
            "properties": _properties(feed, f"queue{number}", kept[own] if own else ""),
        }
        yield bicep.resource(f"subscription{number}", f"{_TOPICS}/eventSubscriptions@{API}", body)


def _container(container: settings.Container, symbol: str) -> Iterator[str]:
    account, blobs = f"{symbol}_account", f"{symbol}_blobs"
    kind = f"{_ACCOUNTS}/blobServices"
    yield bicep.existing(account, f"{_ACCOUNTS}@{STORAGE_API}", {"name": container.account})
    yield bicep.existing(blobs, f"{kind}@{STORAGE_API}", {"parent": Expression(account), "name": "default"})
    body = {"parent": Expression(blobs), "name": container.name}
    yield bicep.resource(symbol, f"{kind}/containers@{STORAGE_API}", body)


def _properties(of: Subscription, queue: str, container: str) -> Mapping[str, Any]:
    properties: dict[str, Any] = {
        "destination": {"endpointType": "ServiceBusQueue", "properties": {"resourceId": Expression(f"{queue}.id")}},
        "eventDeliverySchema": "CloudEventSchemaV1_0",
    }
    if container:
        place = {
            "resourceId": Expression(f"{container}_account.id"),
            "blobContainerName": Expression(f"{container}.name"),
        }
        properties["deadLetterDestination"] = {"endpointType": "StorageBlob", "properties": place}
    if "filter" in of.native:
        properties["filter"] = of.native["filter"]
    return properties
