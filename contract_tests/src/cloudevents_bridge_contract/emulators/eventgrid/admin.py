"""What stands for the management plane, which on the service is Azure Resource Manager."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cloudevents_bridge_contract.emulators.eventgrid.custom import VALIDATE
from cloudevents_bridge_contract.emulators.eventgrid.grid import (
    CLOUD_EVENTS,
    EVENT_GRID,
    CustomTopic,
    Grid,
    PullSubscription,
    PullTopic,
    PushSubscription,
)
from cloudevents_bridge_contract.emulators.eventgrid.http import Answer, Request, answer
from cloudevents_bridge_contract.emulators.eventgrid.problems import Problem, bad_request, not_found
from cloudevents_bridge_contract.emulators.eventgrid.settings import check_name, pull_settings, push_settings

PREFIX = "/admin"
MAX_SUBSCRIPTIONS = 500


class Faults:
    """Answers that are given in place of the service's, for so many requests of an operation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, tuple[int, Problem]] = {}

    def set(self, operation: str, times: int, problem: Problem) -> None:
        with self._lock:
            self._left[operation] = (times, problem)

    def check(self, operation: str) -> None:
        """Raises:
        Problem: if it is this operation's turn.
        """
        with self._lock:
            times, problem = self._left.get(operation, (0, None))
            if problem is None or not times:
                return
            self._left[operation] = (times - 1, problem)
        raise problem


class Admin:
    """`/admin/…`: makes and removes topics and subscriptions, shows dead letters, counts requests, sets faults.

    Attributes:
        counts: requests by operation.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.faults = Faults()

    def count(self, operation: str) -> None:
        with self._lock:
            self.counts[operation] += 1

    def handle(self, request: Request) -> Answer:
        """Raises:
        Problem: 400 for what is wrong, 404 for what is not there.
        """
        match (request.method, *request.path.removeprefix(PREFIX).strip("/").split("/")):
            case ("GET", "ready"):
                return answer({"ready": True})
            case ("GET", "requests"):
                return answer(dict(self.counts))
            case ("DELETE", "requests"):
                self.counts.clear()
                return answer({})
            case ("PUT", "faults", operation):
                return self._fault(operation, request.json())
            case (method, "topics" | "custom" as kind, name):
                return self._of_topic(method, kind, name, request.json())
            case (method, "topics" | "custom" as kind, topic, name):
                return self._of_subscription(method, kind, topic, name, request)
            case ("GET", "topics" | "custom" as kind, topic, name, "deadletters"):
                return answer(self._found(kind, topic, name).letters.read())
        raise not_found(f"There is no {request.method} {request.path}.")

    def _fault(self, operation: str, given: Mapping[str, Any]) -> Answer:
        match given:
            case {"status": int(status), "code": str(code), "times": int(times)}:
                problem = Problem(status, code, "A fault that was set.", retry_after=given.get("retryAfter"))
                self.faults.set(operation, times, problem)
                return answer({})
        raise bad_request("A fault has status, code and times; and retryAfter, if it shall.")

    def _of_topic(self, method: str, kind: str, name: str, given: Mapping[str, Any]) -> Answer:
        topics: dict[str, Any] = self._grid.topics if kind == "topics" else self._grid.custom
        if method == "PUT":
            check_name(name)
            if name not in topics:
                topics[name] = PullTopic(name) if kind == "topics" else CustomTopic(name, _schema(given))
        elif name not in topics:
            raise not_found(f"The topic {name} does not exist.")
        elif method == "DELETE":
            for subscription in topics.pop(name).subscriptions.values():
                subscription.close()
            return answer({})
        return answer({"name": name, "subscriptions": sorted(topics[name].subscriptions)})

    def _of_subscription(self, method: str, kind: str, topic: str, name: str, request: Request) -> Answer:
        if method == "PUT":
            self._make(kind, topic, name, request)
        found = self._found(kind, topic, name)
        if method == "DELETE":
            self._topic(kind, topic).subscriptions.pop(name, None)
            found.close()
            return answer({})
        state = found.state if isinstance(found, PushSubscription) else "Succeeded"
        return answer({"name": name, "provisioningState": state, **found.counts()})

    def _make(self, kind: str, topic_name: str, name: str, request: Request) -> None:
        check_name(name)
        grid, topic, given = self._grid, self._topic(kind, topic_name), request.json()
        if name not in topic.subscriptions and len(topic.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise bad_request(f"The topic has {MAX_SUBSCRIPTIONS} event subscriptions, and that is the maximum.")
        if isinstance(topic, PullTopic):
            pull = pull_settings(given, scale=grid.time_scale, strict=grid.strict)
            letters = grid.letters(pull.container, topic_name, name, pulled=True)
            _close(topic.subscriptions.pop(name, None))
            topic.subscriptions[name] = PullSubscription(pull, letters)
            return
        push = push_settings(given, scale=grid.time_scale, strict=grid.strict)
        letters = grid.letters(push.container, topic_name, name, pulled=False)
        _close(topic.subscriptions.pop(name, None))
        made = topic.subscriptions[name] = PushSubscription(topic, name, push, letters, grid.queues)
        try:
            made.validate(f"{request.base}{VALIDATE}?id={made.code}")
        except Problem:
            _close(topic.subscriptions.pop(name, None))
            raise

    def _topic(self, kind: str, name: str) -> PullTopic | CustomTopic:
        topics: Mapping[str, PullTopic | CustomTopic]
        topics = self._grid.topics if kind == "topics" else self._grid.custom
        if name not in topics:
            raise not_found(f"The topic {name} does not exist.")
        return topics[name]

    def _found(self, kind: str, topic: str, name: str) -> PullSubscription | PushSubscription:
        found = self._topic(kind, topic).subscriptions.get(name)
        if found is None:
            raise not_found(f"The event subscription {name} of the topic {topic} does not exist.")
        return found


def _schema(given: Mapping[str, Any]) -> str:
    schema = given.get("inputSchema", CLOUD_EVENTS)
    if schema not in (CLOUD_EVENTS, EVENT_GRID):
        raise bad_request(f"The inputSchema {schema} is neither {CLOUD_EVENTS} nor {EVENT_GRID}.")
    return str(schema)


def _close(subscription: PullSubscription | PushSubscription | None) -> None:
    if subscription is not None:
        subscription.close()
