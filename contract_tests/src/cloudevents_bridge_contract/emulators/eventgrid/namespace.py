"""The data plane of the namespace: publish, receive, and what settles."""

from __future__ import annotations

import re

from cloudevents_bridge_contract.emulators.eventgrid.auth import Access
from cloudevents_bridge_contract.emulators.eventgrid.events import MAX_REQUEST, read_cloud_events
from cloudevents_bridge_contract.emulators.eventgrid.grid import Grid, PullSubscription, PullTopic
from cloudevents_bridge_contract.emulators.eventgrid.http import Answer, Request, answer
from cloudevents_bridge_contract.emulators.eventgrid.problems import Problem, bad_request, not_found, too_large
from cloudevents_bridge_contract.emulators.eventgrid.pull import RELEASE_DELAYS

VERSIONS = ("2024-06-01", "2023-11-01")
MAX_RECEIVE = 100
_PUBLISH = re.compile(r"/topics/([^/:]+):publish\Z")
_SUBSCRIPTION = re.compile(
    r"/topics/([^/:]+)/eventsubscriptions/([^/:]+):(receive|acknowledge|release|reject|renewLock)\Z"
)


def operation(path: str) -> str | None:
    """What a path asks of the namespace; None: nothing."""
    if _PUBLISH.match(path):
        return "publish"
    found = _SUBSCRIPTION.match(path)
    return found[3] if found else None


class Namespace:
    def __init__(self, grid: Grid, access: Access) -> None:
        self._grid, self._access = grid, access

    def handle(self, request: Request) -> Answer:
        """Raises:
        Problem: where the service refuses.
        """
        self._access.check_namespace(request.headers)
        if request.method != "POST":
            raise Problem(405, "MethodNotAllowed", f"{request.method} is not allowed here.")
        request.require_version(*VERSIONS)
        if found := _PUBLISH.match(request.path):
            return self._publish(self._topic(found[1]), request)
        found = _SUBSCRIPTION.match(request.path)
        assert found is not None
        subscription = self._topic(found[1]).subscriptions.get(found[2])
        if subscription is None:
            raise not_found(f"The event subscription {found[2]} of the topic {found[1]} does not exist.")
        if found[3] == "receive":
            return self._receive(subscription, request)
        return self._settle(subscription, found[3], request)

    def _topic(self, name: str) -> PullTopic:
        topic = self._grid.topics.get(name)
        if topic is None:
            raise not_found(f"The topic {name} does not exist.")
        return topic

    def _publish(self, topic: PullTopic, request: Request) -> Answer:
        events = read_cloud_events(request.media, request.body, request.headers)
        for subscription in list(topic.subscriptions.values()):
            subscription.put(events)
        return answer({})

    def _receive(self, subscription: PullSubscription, request: Request) -> Answer:
        most = request.number("maxEvents", 1, 1, MAX_RECEIVE)
        wait = request.seconds("maxWaitTime", 60, self._grid.shortest_wait, 120)
        given = subscription.receive(most, wait, request.gone)
        value = [
            {"brokerProperties": {"lockToken": each.token, "deliveryCount": each.delivery}, "event": each.event.raw}
            for each in given
        ]
        return answer({"value": value})

    def _settle(self, subscription: PullSubscription, verb: str, request: Request) -> Answer:
        if len(request.body) > MAX_REQUEST:
            raise too_large(f"The request has {len(request.body)} bytes, and the maximum is {MAX_REQUEST}.")
        tokens = request.json().get("lockTokens")
        if not isinstance(tokens, list) or not tokens or not all(isinstance(each, str) for each in tokens):
            raise bad_request("lockTokens is no array of strings, or has none.")
        delay = request.query.get("releaseDelayInSeconds", "0") if verb == "release" else "0"
        if delay not in map(str, RELEASE_DELAYS):
            raise bad_request(f"releaseDelayInSeconds is {delay}, and must be one of {RELEASE_DELAYS}.")
        failed = subscription.settle(verb, tokens, float(delay))
        lost = {each.token for each in failed}
        return answer(
            {
                "failedLockTokens": [
                    {"lockToken": each.token, "error": {"code": each.code, "message": each.message}} for each in failed
                ],
                "succeededLockTokens": [token for token in tokens if token not in lost],
            }
        )
