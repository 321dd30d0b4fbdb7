"""The entities of a namespace: queues, topics and their subscriptions; where a message goes, and where dead ones do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudevents_bridge_contract.emulators.servicebus import refusals, settings
from cloudevents_bridge_contract.emulators.servicebus.message import DESCRIPTION, REASON, Message
from cloudevents_bridge_contract.emulators.servicebus.queue import SCHEDULED, Queue, Stored
from cloudevents_bridge_contract.emulators.servicebus.refusals import Refusal
from cloudevents_bridge_contract.emulators.servicebus.rules import Rule
from cloudevents_bridge_contract.emulators.servicebus.settings import Settings

DEAD, TRANSFER_DEAD = "/$deadletterqueue", "/$transfer/$deadletterqueue"
_HOPS = 4  # the service forwards a message that often


class Entity:
    """What queues, topics and subscriptions have: a description, and for the first two a schedule and a memory."""

    def __init__(self, path: str, description: Mapping[str, str]) -> None:
        self.path = path
        self.created = time.time()
        self.scheduled: dict[int, Stored] = {}
        self._seen: dict[Any, float] = {}
        self._last = 1 << 40  # numbers of what is scheduled are not those that it gets once it is due
        self.description: dict[str, str] = {}
        self.settings = Settings()
        self.describe(description)

    def describe(self, description: Mapping[str, str]) -> None:
        """Raises ValueError if a value is none of its kind."""
        self.settings = Settings.of(description)
        self.description = dict(description)

    def schedule(self, message: Message, now: float) -> int:
        self._last += 1
        self.scheduled[self._last] = Stored(message, self._last, now, state=SCHEDULED)
        return self._last

    def due(self, now: float) -> list[Message]:
        """What was scheduled for now or before, in order; it is scheduled no longer."""
        found = sorted((s.message.at, number) for number, s in self.scheduled.items() if s.message.at <= now)
        return [self.scheduled.pop(number).message for _, number in found]

    def repeats(self, message: Message, now: float) -> bool:
        """Whether its id was seen within the window; it counts as seen from now on."""
        window = self.settings.duplicates
        if window is None or message.id is None:
            return False
        while self._seen and next(iter(self._seen.values())) <= now - window:
            del self._seen[next(iter(self._seen))]
        if message.id in self._seen:
            return True
        self._seen[message.id] = now
        return False


class QueueEntity(Entity):
    """A queue or a subscription, with its two dead-letter queues."""

    def __init__(self, path: str, description: Mapping[str, str], bury: Callable[..., None]) -> None:
        super().__init__(path, description)
        self.queue = Queue(path, self.settings, bury)
        self.dead = Queue(f"{path}/$DeadLetterQueue", self._of_dead(), _stays)
        self.transfer_dead = Queue(f"{path}/$Transfer/$DeadLetterQueue", self._of_dead(), _stays)
        self.rules: dict[str, Rule] = {}

    @property
    def queues(self) -> tuple[Queue, Queue, Queue]:
        return self.queue, self.dead, self.transfer_dead

    def describe(self, description: Mapping[str, str]) -> None:
        super().describe(description)
        if hasattr(self, "queue"):
            self.queue.settings = self.settings
            self.dead.settings = self.transfer_dead.settings = self._of_dead()

    def _of_dead(self) -> Settings:
        return Settings(lock=self.settings.lock, max_deliveries=1 << 31, receives=self.settings.receives)


class TopicEntity(Entity):
    """A topic. `subscriptions`: by the lower-case name."""

    def __init__(self, path: str, description: Mapping[str, str]) -> None:
        super().__init__(path, description)
        self.subscriptions: dict[str, QueueEntity] = {}


class Namespace:
    """All entities, by lower-case path. The clock is given with each call that needs it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.entities: dict[str, QueueEntity | TopicEntity] = {}

    # -- finding

    def all_queues(self) -> Iterator[QueueEntity]:
        for entity in list(self.entities.values()):
            if isinstance(entity, TopicEntity):
                yield from list(entity.subscriptions.values())
            else:
                yield entity

    def holder(self, path: str) -> QueueEntity | TopicEntity:
        """Raises Refusal: there is none."""
        found = self._find(path.lower())
        if found is None:
            raise refusals.no_entity(path)
        return found

    def queue(self, path: str) -> Queue:
        """The queue, subscription or dead-letter queue at `path`.

        Raises:
            Refusal: if there is none.
        """
        lower = path.lower()
        for suffix, which in ((TRANSFER_DEAD, 2), (DEAD, 1), ("", 0)):
            if lower.endswith(suffix):
                entity = self._find(lower.removesuffix(suffix))
                if isinstance(entity, QueueEntity):
                    return entity.queues[which]
                break
        raise refusals.no_entity(path)

    def _find(self, lower: str) -> QueueEntity | TopicEntity | None:
        topic, separator, subscription = lower.partition("/subscriptions/")
        if not separator:
            return self.entities.get(lower)
        found = self.entities.get(topic)
        return found.subscriptions.get(subscription) if isinstance(found, TopicEntity) else None

    # -- making

    def add_queue(self, name: str, description: Mapping[str, str]) -> QueueEntity:
        """Raises ValueError if a value of the description is none of its kind."""
        entity = QueueEntity(name, {**settings.QUEUE, **description}, self._bury)
        self.entities[name.lower()] = entity
        return entity

    def add_topic(self, name: str, description: Mapping[str, str]) -> TopicEntity:
        """Raises ValueError if a value of the description is none of its kind."""
        entity = TopicEntity(name, {**settings.TOPIC, **description})
        self.entities[name.lower()] = entity
        return entity

    def add_subscription(
        self, topic: TopicEntity, name: str, description: Mapping[str, str], rule: Rule
    ) -> QueueEntity:
        """Raises ValueError if a value of the description is none of its kind."""
        path = f"{topic.path}/Subscriptions/{name}"
        entity = QueueEntity(path, {**settings.SUBSCRIPTION, **description}, self._bury)
        entity.rules[rule.name] = rule
        topic.subscriptions[name.lower()] = entity
        return entity

    # -- sending

    def send(self, path: str, messages: Sequence[Message], now: float) -> list[int]:
        """Take all of a batch or none. Returns the number of each that is scheduled; 0 for the others.

        Raises:
            Refusal: if there is no such entity, it is disabled, or a message is too large or lacks its session.
        """
        entity = self.holder(path)
        if not entity.settings.sends:
            raise Refusal(refusals.DISABLED, f"Messaging entity '{path}' is currently disabled. Operation: Send.")
        size = sum(message.size for message in messages)
        if size > entity.settings.max_bytes:
            text = f"The received message ({size} bytes) exceeds the limit ({entity.settings.max_bytes} bytes)"
            raise Refusal(refusals.TOO_LARGE, f"{text} currently allowed on the link.")
        if entity.settings.sessions and any(message.session is None for message in messages):
            raise Refusal(
                refusals.NOT_ALLOWED,
                "The SessionId was not set on a message, and it cannot be sent to the entity. Entities that have "
                "session support enabled can only receive messages that have the SessionId set to a valid value.",
            )
        return [self._accept(entity, message, now) for message in messages]

    def cancel(self, path: str, numbers: Sequence[int]) -> None:
        """Raises Refusal: one of them is not scheduled (any more); then none is cancelled."""
        entity = self.holder(path)
        for number in numbers:
            if number not in entity.scheduled:
                text = f"The message with sequence number {number} is not scheduled."
                raise Refusal(refusals.MESSAGE_NOT_FOUND, text)
        for number in numbers:
            entity.scheduled.pop(number, None)

    def peek(self, path: str, first: int, count: int, session: str | None, now: float) -> list[Stored]:
        found = self.queue(path).peek(first, count, session, now)
        entity = self._find(path.lower())
        scheduled = entity.scheduled.values() if entity is not None else []
        found += [s for s in scheduled if s.number >= first and (session is None or s.message.session == session)]
        return found[:count]

    def tick(self, now: float) -> None:
        """Let what is due become active, and what has ended end."""
        for entity in list(self.entities.values()):
            if entity.scheduled:
                for message in entity.due(now):
                    self._deliver(entity, message, now)
        for each in self.all_queues():
            for queue in each.queues:
                queue.tick(now)

    # -- within

    def _accept(self, entity: QueueEntity | TopicEntity, message: Message, now: float) -> int:
        if entity.repeats(message, now):
            return 0
        if message.at > now:
            return entity.schedule(message, now)
        self._deliver(entity, message, now)
        return 0

    def _deliver(self, entity: QueueEntity | TopicEntity, message: Message, now: float) -> None:
        if isinstance(entity, TopicEntity):
            message = _shortened(message, entity.settings.ttl)
            for subscription in list(entity.subscriptions.values()):
                self._filter(subscription, message, now)
        else:
            self._store(entity, message, now)

    def _filter(self, subscription: QueueEntity, message: Message, now: float) -> None:
        """A copy for each rule with an action that takes it, and one for all the others."""
        plain = False
        for rule in list(subscription.rules.values()):
            try:
                if not rule.takes(message):
                    continue
                if rule.action is None:
                    plain = True
                else:
                    self._store(subscription, rule.action.changed(message).with_user(RuleName=rule.name), now)
            except ArithmeticError as error:
                if subscription.settings.keep_unfiltered:
                    number = subscription.queue.put(message, now)
                    stored = subscription.queue.stored.pop(number)
                    self._bury(subscription.queue, stored, "FilterEvaluationException", str(error))
        if plain:
            self._store(subscription, message, now)

    def _store(self, entity: QueueEntity, message: Message, now: float) -> None:
        target = entity.settings.forward
        if target is not None:
            self._forward(entity, target, message, now)
        elif entity.settings.sessions and message.session is None:
            marked = message.with_user(**{REASON: "Session id is null", DESCRIPTION: "The entity requires sessions."})
            entity.dead.put(marked, now, expires=False)
        else:
            entity.queue.put(message, now)

    def _forward(self, entity: QueueEntity, target: str, message: Message, now: float) -> None:
        onward = self._find(target.lower())
        if onward is None or not onward.settings.sends:
            reason, text = "MessagingEntityNotFoundException", f"The entity '{target}' cannot take messages."
        elif message.hops >= _HOPS:
            reason, text = "MaxTransferHopCountExceeded", f"The message was forwarded {_HOPS} times already."
        else:
            self._accept(onward, _hopped(message), now)
            return
        entity.transfer_dead.put(message.with_user(**{REASON: reason, DESCRIPTION: text}), now, expires=False)

    def _bury(self, queue: Queue, stored: Stored, reason: str, text: str) -> None:
        entity = self._find(queue.path.lower())
        if not isinstance(entity, QueueEntity):
            return
        message = stored.message.with_user(**{REASON: reason or None, DESCRIPTION: text or None})
        now = self.clock()
        target = entity.settings.forward_dead_letters
        onward = self._find(target.lower()) if target else None
        if isinstance(onward, QueueEntity) and not (onward.settings.sessions and message.session is None):
            onward.queue.put(message, now, was=stored.number, failures=stored.failures, source=queue.path)
        else:
            entity.dead.put(message, now, was=stored.number, failures=stored.failures, expires=False)


def _stays(queue: Queue, stored: Stored, reason: str, text: str) -> None:
    raise Refusal(refusals.NOT_ALLOWED, f"Messages of '{queue.path}' cannot be dead-lettered again.")


def _shortened(message: Message, ttl: float | None) -> Message:
    if ttl is None or (message.ttl is not None and message.ttl <= ttl):
        return message
    return replace(message, ttl=ttl)


def _hopped(message: Message) -> Message:
    return replace(message, hops=message.hops + 1)
