"""Topics and subscriptions: what differs, making it so, removing. The only thing that creates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import BridgeError, ErrorCode, make_error
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_gcp import native, pb, rpc, settings
from cloudevents_bridge_gcp.errors import status_of
from cloudevents_bridge_gcp.names import dead_letters_of, short, subscription_name, topic_name
from cloudevents_bridge_gcp.options import Options

TIMEOUT = 30.0
"""Seconds for each request."""
Place = Topic | Subscription | DeadLetters


class Topology:
    """Each request is one of Pub/Sub's own: nothing is kept between two calls."""

    def __init__(self, connection: rpc.Rpc, options: Options) -> None:
        self._rpc = connection
        self._options = options

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        changes: list[Change] = []
        seen: set[str] = set()
        for place in wanted:
            native.check(place, self._options.manners)
            of = place if isinstance(place, Topic) else place.topic
            if of.name not in seen and (isinstance(place, Topic) or of not in wanted):
                seen.add(of.name)
                found = self._diff_topic(of)
                changes += found if isinstance(place, Topic) else [each for each in found if not each.setting]
            if isinstance(place, Subscription):
                changes += self._diff_subscription(place)
                if settings.has_dead_letters(place):
                    changes += self._diff_dead_letters(DeadLetters(place))
        return changes

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.conflict:
                raise self._conflict(change)
        order: dict[type, int] = {Topic: 0, DeadLetters: 1, Subscription: 2}  # a subscription names its dead letters
        by_place: dict[str, list[Change]] = {}
        for change in sorted(changes, key=lambda each: order[type(each.place)]):
            by_place.setdefault(place_name(change.place), []).append(change)
        for group in by_place.values():
            self._make(group[0].place, {change.setting for change in group})

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        native.check(place, self._options.manners)
        project = self._options.project
        if isinstance(place, Topic):
            name = topic_name(project, place)
            for each in self._subscriptions(name):
                self._delete_subscription(each, *dead_letters_of(each))
            self._delete_topic(name)
        else:
            of = place.of if isinstance(place, DeadLetters) else place
            dead = topic_name(project, DeadLetters(of)), subscription_name(project, DeadLetters(of))
            own = subscription_name(project, of) if isinstance(place, Subscription) else None
            self._delete_subscription(own, *dead)

    def export(self, format: str, wanted: Sequence[Topic | Subscription]) -> str:
        from cloudevents_bridge_gcp import export

        for place in wanted:
            native.check(place, self._options.manners)
        return export.export(format, self._options, wanted)

    def policy(self, role: str, wanted: Sequence[Topic | Subscription]) -> str:
        from cloudevents_bridge_gcp import policy

        for place in wanted:
            native.check(place, self._options.manners)
        return policy.policy(role, self._options, wanted)

    # -- comparing

    def _diff_topic(self, place: Topic) -> list[Change]:
        have = self._topic(topic_name(self._options.project, place))
        want = settings.topic(self._options, place)
        if have is None:
            return [Change(place, "", None, short(want.name))]
        return list(settings.differences(place, have, want))

    def _diff_subscription(self, place: Subscription) -> list[Change]:
        want = settings.subscription(self._options, place)
        have = self._subscription(want.name)
        if have is None:
            return [Change(place, "", None, short(want.name))]
        return list(settings.differences(place, have, want))

    def _diff_dead_letters(self, place: DeadLetters) -> list[Change]:
        want = settings.subscription(self._options, place)
        have = self._subscription(want.name)
        if have is None or self._topic(want.topic) is None:
            return [Change(place, "", None, short(want.name))]
        return list(settings.differences(place, have, want))

    # -- making

    def _make(self, place: Place, names: set[str]) -> None:
        if "" in names:
            if not isinstance(place, Subscription):
                self._create_topic(place)
            if not isinstance(place, Topic):
                self._create_subscription(place)
            return
        if isinstance(place, Topic):
            topic = settings.topic(self._options, place)
            have = self._call(rpc.GET_TOPIC, pb.GetTopicRequest(topic=topic.name))
            made, paths = settings.update(place, names, have, topic)
            request = pb.UpdateTopicRequest(topic=made, update_mask=pb.FieldMask(paths=paths))
            self._call(rpc.UPDATE_TOPIC, request)
            return
        subscription = settings.subscription(self._options, place)
        have = self._call(rpc.GET_SUBSCRIPTION, pb.GetSubscriptionRequest(subscription=subscription.name))
        made, paths = settings.update(place, names, have, subscription)
        request = pb.UpdateSubscriptionRequest(subscription=made, update_mask=pb.FieldMask(paths=paths))
        self._call(rpc.UPDATE_SUBSCRIPTION, request)

    def _create_topic(self, place: Topic | DeadLetters) -> None:
        try:
            self._call(rpc.CREATE_TOPIC, settings.topic(self._options, place))
        except pb.GoogleAPICallError as error:
            if status_of(error) != "ALREADY_EXISTS":
                raise

    def _create_subscription(self, place: Subscription | DeadLetters) -> None:
        want = settings.subscription(self._options, place)
        try:
            self._call(rpc.CREATE_SUBSCRIPTION, want)
        except pb.GoogleAPICallError as error:
            have = self._subscription(want.name) if status_of(error) == "ALREADY_EXISTS" else None
            if have is None:
                raise
            for change in settings.differences(place, have, want):  # another process made it meanwhile
                if change.conflict:
                    raise self._conflict(change) from error

    def _conflict(self, change: Change) -> BridgeError:
        return make_error(
            ErrorCode.FAILED_PRECONDITION,
            f"{place_name(change.place)} on {self._options.url} has {change.setting} {change.have}, and {change.want} "
            "is wanted: Pub/Sub cannot change this; delete it first, or declare it as it is",
        )

    # -- requests

    def _topic(self, name: str) -> Any:
        return self._get(rpc.GET_TOPIC, pb.GetTopicRequest(topic=name))

    def _subscription(self, name: str) -> Any:
        return self._get(rpc.GET_SUBSCRIPTION, pb.GetSubscriptionRequest(subscription=name))

    def _subscriptions(self, topic: str) -> list[str]:
        """The resource names of all subscriptions of a topic."""
        found: list[str] = []
        page = ""
        while True:
            request = pb.ListTopicSubscriptionsRequest(topic=topic, page_size=1000, page_token=page)
            response = self._get(rpc.LIST_SUBSCRIPTIONS, request)
            if response is None:
                return found
            found += response.subscriptions
            page = response.next_page_token
            if not page:
                return found

    def _delete_topic(self, name: str) -> None:
        self._get(rpc.DELETE_TOPIC, pb.DeleteTopicRequest(topic=name))

    def _delete_subscription(self, name: str | None, dead_topic: str, dead_subscription: str) -> None:
        for each in (name, dead_subscription):
            if each is not None:
                self._get(rpc.DELETE_SUBSCRIPTION, pb.DeleteSubscriptionRequest(subscription=each))
        self._delete_topic(dead_topic)

    def _get(self, method: rpc.Method, request: Any) -> Any:
        """The answer; None: what the request is about does not exist."""
        try:
            return self._call(method, request)
        except pb.GoogleAPICallError as error:
            if status_of(error) != "NOT_FOUND":
                raise
            return None

    def _call(self, method: rpc.Method, request: Any) -> Any:
        return self._rpc.call(method, request, timeout=TIMEOUT)
