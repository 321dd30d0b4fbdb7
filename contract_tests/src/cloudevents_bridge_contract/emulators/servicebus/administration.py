"""What the administration API does: entities made, read, changed, listed and removed, by path."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cloudevents_bridge_contract.emulators.servicebus import atom
from cloudevents_bridge_contract.emulators.servicebus.namespace import Namespace, QueueEntity, TopicEntity
from cloudevents_bridge_contract.emulators.servicebus.queue import SCHEDULED
from cloudevents_bridge_contract.emulators.servicebus.settings import FIXED, entity_of

_PAGE = 100


class Answer(Exception):  # noqa: N818 - how a request ends early
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Administration:
    """What the requests do. One call at a time: whoever calls holds the namespace's lock."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def get(self, path: str, query: Mapping[str, str]) -> ET.Element:
        """Raises Answer."""
        if path.lower() in ("$resources/queues", "$resources/topics"):
            wanted: type = QueueEntity if path.lower().endswith("queues") else TopicEntity
            names = sorted(name for name, each in self._namespace.entities.items() if isinstance(each, wanted))
            return self._feed(path, [self._namespace.entities[name] for name in names], query)
        topic, subscription, rule = _split(path)
        if subscription is None:
            entity = self._namespace.entities.get(topic.lower())
            if entity is None:  # as the service answers: not 404
                return atom.feed("Publicly Listed Services", [])
            return self._entry(entity)
        if subscription == "":
            return self._feed(path, list(self._topic(topic).subscriptions.values()), query)
        found = self._subscription(topic, subscription)
        if rule is None:
            return self._entry(found)
        entries = [atom.entry(each.name, "RuleDescription", {"Name": each.name}, created=found.created, inner=each.xml)
                   for each in found.rules.values() if rule in ("", each.name)]  # fmt: skip
        if rule:
            if not entries:
                raise Answer(404, f"The messaging entity '{path}' could not be found.")
            return entries[0]
        return self._page(path, entries, query)

    def put(self, path: str, body: bytes, *, update: bool) -> ET.Element:
        """Raises Answer, ValueError."""
        kind, element = atom.description(body)
        topic, subscription, rule = _split(path)
        try:
            old = self._existing(topic, subscription, rule)
        except Answer:
            if update:
                raise
            old = None
        if old is not None and not update:
            raise Answer(409, f"SubCode=40900. Conflict. The entity '{path}' already exists.")
        if rule is not None:
            made = atom.rule(element, rule)
            self._subscription(topic, subscription or "").rules[rule] = made
            return self.get(path, {})
        values = atom.texts(element)
        self._check_forwards(path, values)
        if isinstance(old, (QueueEntity, TopicEntity)):
            _check_fixed(old.description, values)
            old.describe({**old.description, **values})
        elif subscription is not None:
            first = atom.default_rule(element)
            self._namespace.add_subscription(self._topic(topic), subscription, values, first)
        elif kind == "QueueDescription":
            self._namespace.add_queue(path, values)
        elif kind == "TopicDescription":
            self._namespace.add_topic(path, values)
        else:
            raise ValueError(f"There is no entity of the kind {kind}.")
        return self.get(path, {})

    def delete(self, path: str) -> None:
        """Raises Answer."""
        topic, subscription, rule = _split(path)
        self._existing(topic, subscription, rule)
        if rule is not None:
            del self._subscription(topic, subscription or "").rules[rule]
        elif subscription is not None:
            del self._topic(topic).subscriptions[subscription.lower()]
        else:
            del self._namespace.entities[topic.lower()]

    # -- within

    def _existing(self, topic: str, subscription: str | None, rule: str | None) -> object:
        if subscription is None:
            found = self._namespace.entities.get(topic.lower())
            if found is None:
                raise Answer(404, f"The messaging entity '{topic}' could not be found.")
            return found
        there = self._subscription(topic, subscription)
        if rule is None:
            return there
        if rule not in there.rules:
            raise Answer(404, f"The messaging entity '{topic}|{subscription}|{rule}' could not be found.")
        return there.rules[rule]

    def _topic(self, name: str) -> TopicEntity:
        found = self._namespace.entities.get(name.lower())
        if not isinstance(found, TopicEntity):
            raise Answer(404, f"The messaging entity '{name}' could not be found.")
        return found

    def _subscription(self, topic: str, name: str) -> QueueEntity:
        found = self._topic(topic).subscriptions.get(name.lower())
        if found is None:
            raise Answer(404, f"The messaging entity '{topic}|{name}' could not be found.")
        return found

    def _check_forwards(self, path: str, values: Mapping[str, str]) -> None:
        for name in ("ForwardTo", "ForwardDeadLetteredMessagesTo"):
            target = entity_of(values.get(name))
            if target is not None and target.lower() == path.lower():
                raise ValueError(f"{name} cannot be the entity itself.")
            if target is not None and target.lower() not in self._namespace.entities:
                raise ValueError(f"SubCode=40400. The entity '{target}' of {name} could not be found.")

    def _entry(self, entity: QueueEntity | TopicEntity) -> ET.Element:
        title = entity.path.rpartition("/")[2] if "/Subscriptions/" in entity.path else entity.path
        if isinstance(entity, TopicEntity):
            values = {**entity.description, "SubscriptionCount": str(len(entity.subscriptions)), "SizeInBytes": "0"}
            counts = {"ScheduledMessageCount": len(entity.scheduled)}
            return atom.entry(title, "TopicDescription", values, created=entity.created, counts=counts)
        states = Counter(stored.state for stored in entity.queue.stored.values())
        counts = {
            "ActiveMessageCount": states.total() - states[SCHEDULED],
            "DeadLetterMessageCount": len(entity.dead.stored),
            "ScheduledMessageCount": len(entity.scheduled),
            "TransferDeadLetterMessageCount": len(entity.transfer_dead.stored),
            "TransferMessageCount": 0,
        }
        values = {**entity.description, "MessageCount": str(sum(counts.values()))}
        if "/Subscriptions/" in entity.path:
            kind = "SubscriptionDescription"
        else:
            kind = "QueueDescription"
            values["SizeInBytes"] = str(sum(stored.message.size for stored in entity.queue.stored.values()))
        return atom.entry(title, kind, values, created=entity.created, counts=counts)

    def _feed(self, path: str, entities: list[Any], query: Mapping[str, str]) -> ET.Element:
        return self._page(path, [self._entry(each) for each in entities], query)

    @staticmethod
    def _page(path: str, entries: list[ET.Element], query: Mapping[str, str]) -> ET.Element:
        skip, top = int(query.get("$skip", 0)), min(int(query.get("$top", _PAGE)), _PAGE)
        more = skip + top < len(entries)
        onward = f"/{path}?%24skip={skip + top}&%24top={top}" if more else None
        return atom.feed(path, entries[skip : skip + top], onward=onward)


def _split(path: str) -> tuple[str, str | None, str | None]:
    """Topic or queue, subscription, rule; None: not asked for; empty: all of them."""
    parts = path.split("/")
    lower = [each.lower() for each in parts]
    if "subscriptions" not in lower[1:]:
        return path, None, None
    at = lower.index("subscriptions", 1)
    topic, rest_of_it = "/".join(parts[:at]), parts[at + 1 :]
    if not rest_of_it:
        return topic, "", None
    if len(rest_of_it) > 1 and rest_of_it[1].lower() == "rules":
        return topic, rest_of_it[0], "/".join(rest_of_it[2:])
    return topic, "/".join(rest_of_it), None


def _check_fixed(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    for name in FIXED:
        if name in new and new[name].lower() != old.get(name, "false").lower():
            raise ValueError(f"The value for {name} of an existing entity cannot be changed.")
