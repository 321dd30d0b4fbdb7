"""The data plane of custom topics: where events are published, and where an endpoint is validated by hand."""

from __future__ import annotations

import re

from cloudevents_bridge_contract.emulators.eventgrid.auth import Access
from cloudevents_bridge_contract.emulators.eventgrid.events import (
    CUSTOM_EVENTS,
    read_cloud_events,
    read_event_grid_events,
)
from cloudevents_bridge_contract.emulators.eventgrid.grid import CLOUD_EVENTS, Grid
from cloudevents_bridge_contract.emulators.eventgrid.http import Answer, Request, answer
from cloudevents_bridge_contract.emulators.eventgrid.problems import Problem, not_found

VERSIONS = ("2018-01-01",)
VALIDATE = "/validate"
_PUBLISH = re.compile(r"/([^/:]+)/api/events\Z")


def operation(path: str) -> str | None:
    """What a path asks of custom topics; None: nothing."""
    if path == VALIDATE:
        return "validate"
    return "send" if _PUBLISH.match(path) else None


class Custom:
    def __init__(self, grid: Grid, access: Access) -> None:
        self._grid, self._access = grid, access

    def handle(self, request: Request) -> Answer:
        """Raises:
        Problem: where the service refuses.
        """
        if request.path == VALIDATE:
            return self._validate(request)
        self._access.check_custom(request.headers)
        if request.method != "POST":
            raise Problem(405, "MethodNotAllowed", f"{request.method} is not allowed here.")
        request.require_version(*VERSIONS)
        found = _PUBLISH.match(request.path)
        assert found is not None
        topic = self._grid.custom.get(found[1])
        if topic is None:
            raise not_found(f"The topic {found[1]} does not exist.")
        if topic.schema == CLOUD_EVENTS:
            events = read_cloud_events(request.media, request.body, request.headers, most=CUSTOM_EVENTS, lenient=True)
        else:
            events = read_event_grid_events(request.body)
        for subscription in list(topic.subscriptions.values()):
            subscription.put(events)
        return answer({})

    def _validate(self, request: Request) -> Answer:
        """Who has a subscription's validation URL allows its endpoint."""
        code = request.query.get("id", "")
        for topic in self._grid.custom.values():
            for subscription in topic.subscriptions.values():
                if subscription.code == code:
                    subscription.state = "Succeeded"
                    return answer({"message": "Webhook successfully validated as a subscription endpoint"})
        raise not_found("There is no such validation.")
