"""Custom topics, queues, and what delivers from one to the other: what can be seen of them, and what makes them."""

from __future__ import annotations

from collections.abc import Sequence

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure.eventgrid.client import Act, TopicClient
from cloudevents_bridge_azure.eventgrid.custom import export, policy, settings
from cloudevents_bridge_azure.eventgrid.custom.names import endpoint, queue_name, topic_name
from cloudevents_bridge_azure.eventgrid.custom.options import TopicOptions
from cloudevents_bridge_azure.eventgrid.publisher import MEDIA, ROLE
from cloudevents_bridge_azure.servicebus.administration import Administration
from cloudevents_bridge_azure.servicebus.settings import differences

Places = Sequence[Topic | Subscription]


class Topology:
    """Looks for what there is, writes what others make, and makes nothing: a queue by itself would get no event.

    A topic answers who publishes no event; queues are asked of the administration of Service Bus, with their settings.
    """

    unseen = (
        "Event Grid shows no event subscriptions of custom topics, and no settings: only `az` and Azure's portal show "
        "whether a topic delivers to its queues, and with which filter"
    )

    def __init__(self, options: TopicOptions, client: TopicClient, queues: Administration) -> None:
        self._options, self._client, self._queues = options, client, queues

    def diff(self, wanted: Places) -> Sequence[Change]:
        for place in wanted:
            settings.check(place)
        changes: list[Change] = []
        for place in wanted:
            changes += self._topic(place) if isinstance(place, Topic) else self._queue(place)
        return changes

    def apply(self, changes: Sequence[Change]) -> None:
        raise self._refusal()

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        raise self._refusal()

    def export(self, format: str, wanted: Places) -> str:
        for place in wanted:
            settings.check(place)
        return export.export(format, self._options, wanted)

    def policy(self, role: str, wanted: Places) -> str:
        for place in wanted:
            settings.check(place)
        return policy.policy(role, self._options, wanted)

    def _topic(self, place: Topic) -> list[Change]:
        act = Act(endpoint(place, self._options.grid), MEDIA, ROLE, place.name)
        return [] if self._client.finds(act, b"[]") else [Change(place, "", None, topic_name(place))]

    def _queue(self, place: Subscription) -> list[Change]:
        have = self._queues.find("get_queue", queue_name(place))
        if have is None:
            return [Change(place, "", None, queue_name(place))]
        return list(differences(place, have, settings.queue(place)))

    def _refusal(self) -> UnsupportedError:
        url = self._options.grid.url
        return UnsupportedError(
            f"{url} is the data plane of Event Grid, which changes no topology: run what "
            "`ceb topology export commands` or `ceb topology export bicep` writes",
            broker=url,
        )
