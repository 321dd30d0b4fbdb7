"""Topics and subscriptions: whether they are there, and what Azure Resource Manager needs to make them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure.eventgrid import export, policy, settings
from cloudevents_bridge_azure.eventgrid.client import Client
from cloudevents_bridge_azure.eventgrid.names import Source, source, topic_name
from cloudevents_bridge_azure.eventgrid.options import Options
from cloudevents_bridge_azure.eventgrid.publisher import publishing
from cloudevents_bridge_azure.eventgrid.subscriber import consuming

_NO_TOKEN = b'{"lockTokens":["ceb-look"]}'
_NO_EVENT = b"[]"


class Topology:
    """Looks for what there is by requests without effect, writes what others make, and makes nothing.

    A subscription answers who acknowledges a token that there cannot be, and a topic who publishes no event.
    """

    unseen = (
        "Event Grid says whether a topic or subscription exists, and not how it is set: only `az` and Azure's portal "
        "show its lock duration, retention and filters"
    )

    def __init__(self, options: Options, client: Client) -> None:
        self._options, self._client = options, client

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        for place in wanted:
            settings.check(place)
        there = {each for each in map(source, _feeds(wanted)) if self._finds(each)}
        topics = {each.topic for each in there}
        changes: list[Change] = []
        for place in wanted:
            if isinstance(place, Topic):
                name = topic_name(place)
                if name not in topics and not self._client.finds(publishing(name), _NO_EVENT):
                    changes.append(Change(place, "", None, name))
                continue
            missing = [each for each in _feeds([place]) if source(each) not in there]
            changes += [Change(each, "", None, "/".join(source(each))) for each in missing]
        return changes

    def apply(self, changes: Sequence[Change]) -> None:
        raise self._refusal()

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        raise self._refusal()

    def export(self, format: str, wanted: Sequence[Topic | Subscription]) -> str:
        for place in wanted:
            settings.check(place)
        return export.export(format, self._options, wanted)

    def policy(self, role: str, wanted: Sequence[Topic | Subscription]) -> str:
        for place in wanted:
            settings.check(place)
        return policy.policy(role, self._options, wanted)

    def _finds(self, of: Source) -> bool:
        return self._client.finds(consuming(of, "acknowledge"), _NO_TOKEN)

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self._options.url} is the data plane of Event Grid, which changes no topology: run what "
            "`ceb topology export commands` or `ceb topology export bicep` writes",
            broker=self._options.url,
        )


def _feeds(wanted: Sequence[Topic | Subscription]) -> Iterator[Subscription | DeadLetters]:
    """The event subscriptions, those of the dead letters among them."""
    for place in wanted:
        if isinstance(place, Subscription):
            yield place
            yield DeadLetters(place)
