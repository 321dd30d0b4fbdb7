"""Custom topics, queues, and the subscriptions between them, for `az`. The data plane makes none of them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure.eventgrid.custom import settings
from cloudevents_bridge_azure.eventgrid.custom.names import queue_name, topic_name
from cloudevents_bridge_azure.eventgrid.custom.options import TopicOptions
from cloudevents_bridge_azure.servicebus.settings import deliveries, lock

Places = Sequence[Topic | Subscription]
GROUP = '--resource-group "$GROUP"'
SENDER, QUEUE_SENDER, QUEUE_RECEIVER = (
    "EventGrid Data Sender",
    "Azure Service Bus Data Sender",
    "Azure Service Bus Data Receiver",
)


class Topology:
    """Writes what others make, and makes nothing."""

    def __init__(self, options: TopicOptions) -> None:
        self._url = options.grid.url
        self._namespace = options.bus.host.partition(".")[0]
        self._region = options.grid.host.partition(".")[0].rpartition("-")[0] or "westeurope"

    def diff(self, wanted: Places) -> Sequence[Change]:
        raise self._refusal()

    def apply(self, changes: Sequence[Change]) -> None:
        raise self._refusal()

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        raise self._refusal()

    def export(self, format: str, wanted: Places) -> str:
        for place in wanted:
            settings.check(place)
        if format != "commands":
            raise UnsupportedError(
                f"the topology of {self._url} cannot be exported as {format!r}: use 'commands'", broker=self._url
            )
        head = "# set GROUP to the resource group of the topics and of the Service Bus namespace"
        return "\n".join([head, *dict.fromkeys(self._commands(wanted)), ""])

    def policy(self, role: str, wanted: Places) -> str:
        for place in wanted:
            settings.check(place)
        roles: Mapping[str, Callable[[Places], Iterator[str]]] = {
            "publisher": self._publisher,
            "consumer": self._consumer,
            "operator": self._operator,
            "provisioner": self._provisioner,
        }
        if role not in roles:
            raise UnsupportedError(
                f"there is no role {role!r} on {self._url}; the roles are {', '.join(sorted(roles))}", broker=self._url
            )
        head = f"# {role}: set GROUP to the resource group, and WHO to the object id of the identity"
        return "\n".join([head, *dict.fromkeys(roles[role](wanted)), ""])

    def _commands(self, wanted: Places) -> Iterator[str]:
        for place in wanted:
            topic = place if isinstance(place, Topic) else place.topic
            name = topic_name(topic)
            yield (
                f"az eventgrid topic create {GROUP} --name {name} --location {self._region} "
                "--input-schema cloudeventschemav1_0"
            )
            if isinstance(place, Subscription):
                yield self._queue(place)
                yield self._feed(place)

    def _queue(self, of: Subscription) -> str:
        return (
            f"az servicebus queue create {GROUP} --namespace-name {self._namespace} --name {queue_name(of)} "
            f"--lock-duration PT{math.ceil(lock(of))}S --max-delivery-count {deliveries(of)} "
            f"--default-message-time-to-live PT{math.ceil(of.retention)}S "
            "--enable-dead-lettering-on-message-expiration true"
        )

    def _feed(self, of: Subscription) -> str:
        line = (
            f"az eventgrid event-subscription create --name {of.name} "
            f'--source-resource-id "$({self._show_topic(of.topic)})" '
            f'--endpoint-type servicebusqueue --endpoint "$({self._show_queue(of)})" '
            "--event-delivery-schema cloudeventschemav1_0"
        )
        if "filter" in of.native:
            line += f" --advanced-filter {shlex.quote(json.dumps(of.native['filter']))}"
        return line

    def _publisher(self, wanted: Places) -> Iterator[str]:
        for place in wanted:
            if isinstance(place, Topic):
                yield _assign(SENDER, self._show_topic(place))

    def _consumer(self, wanted: Places) -> Iterator[str]:
        """Receiving, which with Service Bus is also moving to the dead letters."""
        for place in wanted:
            if isinstance(place, Subscription):
                yield _assign(QUEUE_RECEIVER, self._show_queue(place))

    def _operator(self, wanted: Places) -> Iterator[str]:
        """Reading dead letters, and replaying them into their queue."""
        for place in wanted:
            if isinstance(place, Subscription):
                yield _assign(QUEUE_RECEIVER, self._show_queue(place))
                yield _assign(QUEUE_SENDER, self._show_queue(place))

    def _provisioner(self, wanted: Places) -> Iterator[str]:
        del wanted  # what does not exist yet is no scope: this one is the group's
        shown = 'az group show --name "$GROUP" --query id --output tsv'
        for role in ("EventGrid Contributor", "Azure Service Bus Data Owner"):
            yield _assign(role, shown)

    def _show_topic(self, topic: Topic) -> str:
        return f"az eventgrid topic show {GROUP} --name {topic_name(topic)} --query id --output tsv"

    def _show_queue(self, of: Subscription) -> str:
        where = f"--namespace-name {self._namespace} --name {queue_name(of)}"
        return f"az servicebus queue show {GROUP} {where} --query id --output tsv"

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self._url} is the data plane of Event Grid, which shows and changes no topology: run what "
            "`ceb topology export commands` writes",
            broker=self._url,
        )


def _assign(role: str, shown: str) -> str:
    return f'az role assignment create --assignee-object-id "$WHO" --role "{role}" --scope "$({shown})"'
