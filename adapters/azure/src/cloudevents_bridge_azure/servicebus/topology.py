"""Topics and subscriptions: what differs, making it so, removing. The only thing that creates."""

from __future__ import annotations

from collections.abc import Sequence

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import BridgeError, ErrorCode, make_error
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_azure.servicebus import settings
from cloudevents_bridge_azure.servicebus.administration import RULE, Administration
from cloudevents_bridge_azure.servicebus.names import subscription_name, topic_name
from cloudevents_bridge_azure.servicebus.options import Options

Place = Topic | Subscription


class Topology:
    """Each request is one of the administration's own: nothing is kept between two calls."""

    def __init__(self, administration: Administration, options: Options) -> None:
        self._admin = administration
        self._options = options

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        changes: list[Change] = []
        seen: set[str] = set()
        for place in wanted:
            settings.check(place)
            of = place if isinstance(place, Topic) else place.topic
            if of.name not in seen and (isinstance(place, Topic) or of not in wanted):
                seen.add(of.name)
                found = self._diff_topic(of)
                changes += found if isinstance(place, Topic) else [each for each in found if not each.setting]
            if isinstance(place, Subscription):
                changes += self._diff_subscription(place)
        return changes

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.conflict:
                raise self._conflict(change)
        by_place: dict[str, list[Change]] = {}
        for change in sorted(changes, key=lambda each: isinstance(each.place, Subscription)):
            by_place.setdefault(place_name(change.place), []).append(change)
        for group in by_place.values():
            place = group[0].place
            new = any(not change.setting for change in group)
            if isinstance(place, Topic):
                self._make_topic(place, new=new)
            elif isinstance(place, Subscription):
                self._make_subscription(place, {change.setting for change in group}, new=new)

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        settings.check(place)
        if isinstance(place, Topic):
            self._admin.find("delete_topic", topic_name(place))
        elif isinstance(place, Subscription):
            self._admin.find("delete_subscription", topic_name(place.topic), subscription_name(place))
        # A dead-letter queue is its subscription's own, and goes with it.

    def export(self, format: str, wanted: Sequence[Topic | Subscription]) -> str:
        from cloudevents_bridge_azure.servicebus import export

        for place in wanted:
            settings.check(place)
        return export.export(format, self._options, wanted)

    def policy(self, role: str, wanted: Sequence[Topic | Subscription]) -> str:
        from cloudevents_bridge_azure.servicebus import policy

        for place in wanted:
            settings.check(place)
        return policy.policy(role, self._options, wanted)

    # -- comparing

    def _diff_topic(self, place: Topic) -> list[Change]:
        name = topic_name(place)
        have = self._admin.find("get_topic", name)
        if have is None:
            return [Change(place, "", None, name)]
        return list(settings.differences(place, have, settings.topic(place)))

    def _diff_subscription(self, place: Subscription) -> list[Change]:
        topic, name = topic_name(place.topic), subscription_name(place)
        rule = settings.rule(place, self._options.mode)
        have = self._admin.find("get_subscription", topic, name)
        if have is None:
            return [Change(place, "", None, name)]
        changes = list(settings.differences(place, have, settings.subscription(place)))
        there = self._rule(topic, name)
        if there != (rule or ""):
            changes.append(Change(place, "filter", there or "none", rule or "none"))
        return changes

    def _rule(self, topic: str, name: str) -> str:
        """The SQL of its rules; empty: it takes everything."""
        from azure.servicebus.management import SqlRuleFilter, TrueRuleFilter

        said: list[str] = []
        for rule in self._admin.call("list_rules", topic, name):
            if isinstance(rule.filter, TrueRuleFilter):
                return ""
            said.append(rule.filter.sql_expression if isinstance(rule.filter, SqlRuleFilter) else f"rule {rule.name}")
        found = " OR ".join(said) or "takes nothing"
        return "" if found == "1=1" else found

    # -- making

    def _make_topic(self, place: Topic, *, new: bool) -> None:
        name, want = topic_name(place), settings.topic(place)
        if new and self._admin.create("create_topic", name, **want):
            return
        have = self._admin.call("get_topic", name)
        self._refuse_conflicts(settings.differences(place, have, want))
        settings.change(have, want)
        self._admin.call("update_topic", have)

    def _make_subscription(self, place: Subscription, names: set[str], *, new: bool) -> None:
        topic, name, want = topic_name(place.topic), subscription_name(place), settings.subscription(place)
        rule = settings.rule(place, self._options.mode)
        made = new and self._admin.create("create_subscription", topic, name, **want)
        if not made and names != {"filter"}:
            have = self._admin.call("get_subscription", topic, name)
            self._refuse_conflicts(settings.differences(place, have, want))
            settings.change(have, want)
            self._admin.call("update_subscription", topic, have)
        if rule is not None or (not made and "filter" in names):
            self._set_rule(topic, name, rule)

    def _set_rule(self, topic: str, name: str, sql: str | None) -> None:
        from azure.servicebus.management import SqlRuleFilter, TrueRuleFilter

        wanted = TrueRuleFilter() if sql is None else SqlRuleFilter(sql)
        default = None
        for rule in list(self._admin.call("list_rules", topic, name)):
            if rule.name == RULE:
                default = rule
            else:
                self._admin.find("delete_rule", topic, name, rule.name)
        if default is None:
            self._admin.create("create_rule", topic, name, RULE, filter=wanted)
        else:
            default.filter = wanted
            self._admin.call("update_rule", topic, name, default)

    def _refuse_conflicts(self, changes: object) -> None:
        for change in changes:  # type: ignore[attr-defined]
            if change.conflict:
                raise self._conflict(change)

    def _conflict(self, change: Change) -> BridgeError:
        return make_error(
            ErrorCode.FAILED_PRECONDITION,
            f"{place_name(change.place)} on {self._options.url} has {change.setting} {change.have}, and {change.want} "
            "is wanted: Service Bus cannot change this; delete it first, or declare it as it is",
        )
