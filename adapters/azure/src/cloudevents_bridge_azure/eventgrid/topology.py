"""Topics and subscriptions for other tools: Event Grid's data plane creates nothing, Azure Resource Manager does."""

from __future__ import annotations

from collections.abc import Sequence

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure.eventgrid import export, policy, settings
from cloudevents_bridge_azure.eventgrid.options import Options


class Topology:
    """Writes what others make, and makes nothing."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        raise self._refusal()

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

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self._options.url} is the data plane of Event Grid, which shows and changes no topology: run what "
            "`ceb topology export commands` or `ceb topology export bicep` writes",
            broker=self._options.url,
        )
