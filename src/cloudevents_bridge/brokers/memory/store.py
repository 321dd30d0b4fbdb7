"""What a memory broker holds: topics, the feeds of their subscriptions, and the lock around it all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec.structs import replace

from cloudevents_bridge.brokers.memory.clock import Clock
from cloudevents_bridge.brokers.memory.feed import Feed, wake
from cloudevents_bridge.driver import (
    DeadLetters,
    Done,
    Fault,
    Inbound,
    Outbound,
    Subscription,
    Topic,
    Verb,
)
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge.faults import place_name

Place: TypeAlias = Topic | Subscription | DeadLetters
Operation: TypeAlias = Literal["publish", "receive", "settle"]


class Call(NamedTuple):
    """One call of a driver. The last four: of a settle."""

    operation: Operation
    place: Place
    verb: Verb | None = None
    messages: Sequence[Inbound] = ()
    seconds: float = 0.0
    reason: str = ""


class Watcher(Protocol):
    """A test that looks on, with the store's lock held, and may do harm."""

    def begins(self, call: Call) -> tuple[Fault, bool] | None:
        """Before a call: the fault it shall end with, and whether it takes effect all the same. None: let it be."""

    def accepted(self, topic: str, batch: Sequence[Outbound]) -> None:
        """Events were published to a topic."""

    def created(self, feed: Feed) -> None:
        """A subscription was created because it was missed."""


class MissingError(LookupError):
    """The place does not exist."""


class ClosedError(Exception):
    """The connection, or the driver, was closed."""


class TroubleError(Exception):
    """The fault that a test asked for."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


_TABLE: tuple[tuple[type[BaseException], ErrorCode], ...] = (
    (MissingError, ErrorCode.NOT_FOUND),
    (ClosedError, ErrorCode.CLOSED),
)


def classify(error: BaseException) -> Fault:
    """What an error of the store means. What is unknown is not retried."""
    if isinstance(error, TroubleError):
        return error.fault
    for kind, code in _TABLE:
        if isinstance(error, kind):
            return Fault(code, retryable=False, maybe_applied=False, message=str(error))
    return Fault(ErrorCode.UNKNOWN, retryable=False, maybe_applied=False, message=f"{type(error).__name__}: {error}")


def dead_letters_of(of: Subscription) -> Subscription:
    """The settings of a dead-letter place: its subscription's, but what is in it stays until somebody settles it."""
    return replace(of, expires=None, retention=float("inf"))


class StoredTopic:
    """A topic that exists."""

    def __init__(self, topic: Topic) -> None:
        self.ordered = topic.ordered
        self.window = float(topic.native.get("deduplication", 0.0))
        self.feeds: dict[str, Feed] = {}
        self.dead: dict[str, Feed] = {}
        self._seen: dict[str, Done] = {}
        self._seen_at: deque[tuple[float, str]] = deque()

    def seen(self, dedup: str | None, now: float) -> Done | None:
        """The receipt of the first send with this id, where that was within the window."""
        while self._seen_at and self._seen_at[0][0] <= now - self.window:
            del self._seen[self._seen_at.popleft()[1]]
        return self._seen.get(dedup) if dedup is not None else None

    def remember(self, dedup: str | None, done: Done, now: float) -> None:
        if dedup is not None:
            self._seen[dedup] = done
            self._seen_at.append((now, dedup))

    def unused(self, now: float) -> Iterator[str]:
        """Subscriptions that nobody has used for as long as they may be left alone."""
        for name, feed in self.feeds.items():
            expires = feed.of.expires
            if expires is not None and not feed.waiters and now - feed.used > expires:
                yield name


class Store:
    """One broker in memory. Any thread; `lock` is held around everything that is not said to be pure.

    Attributes:
        url: for people; nothing is read from it.
        users: connections that are open.
        watcher: a test that looks on. What is missed is then created.
        feed_of: makes the feed of a subscription.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.clock = clock
        self.lock = threading.RLock()
        self.users = 0
        self.topics: dict[str, StoredTopic] = {}
        self.watcher: Watcher | None = None
        self.feed_of: type[Feed] = Feed
        self.holders = count(1)
        self._ids = count(1)

    def topic(self, place: Topic) -> StoredTopic:
        """The topic of a place.

        Raises:
            MissingError: if it does not exist.
        """
        found = self.topics.get(place.name)
        if found is None:
            if self.watcher is None:
                raise MissingError(f"{place_name(place)} does not exist on {self.url}")
            found = self.create_topic(place)
        return found

    def feed(self, place: Subscription | DeadLetters) -> Feed:
        """The feed of a place.

        Raises:
            MissingError: if the place does not exist, or expired because nobody used it.
        """
        found = self.find(place)
        if found is None and self.watcher is not None:
            of = place.of if isinstance(place, DeadLetters) else place
            new = self.find(of) is None
            feed = self.create_subscription(of)
            if new:
                self.watcher.created(feed)
            found = self.find(place)
        if found is None:
            raise MissingError(f"{place_name(place)} does not exist on {self.url}")
        return found

    def find(self, place: Subscription | DeadLetters) -> Feed | None:
        """The feed of a place, if it exists."""
        of = place.of if isinstance(place, DeadLetters) else place
        topic = self.topics.get(of.topic.name)
        if topic is None:
            return None
        if of.name in topic.feeds and topic.feeds[of.name].of.expires is not None:
            self.expire(topic)
        return (topic.dead if isinstance(place, DeadLetters) else topic.feeds).get(of.name)

    def send(self, to: Place, batch: Sequence[Outbound]) -> list[Done]:
        """Put a batch into every subscription of a topic, or into one place."""
        now = self.clock.now()
        if not isinstance(to, Topic):
            self.feed(to).put(batch, now)
            return [Done(str(number), None, 0.0, 1) for number in self._numbers(batch)]
        topic = self.topic(to)
        self.expire(topic)
        if topic.window:
            return self._send_once(to.name, topic, batch, now)
        done = self._receipts(topic, batch)
        self._spread(to.name, topic, batch, now)
        return done

    def expire(self, topic: StoredTopic) -> None:
        """Remove the subscriptions that nobody uses any more."""
        for name in list(topic.unused(self.clock.now())):
            self._drop(topic, name)

    def create_topic(self, wanted: Topic) -> StoredTopic:
        """The topic, made if it does not exist."""
        return self.topics.setdefault(wanted.name, StoredTopic(wanted))

    def create_subscription(self, wanted: Subscription) -> Feed:
        """The feed, made with its dead-letter place if it does not exist."""
        topic = self.create_topic(wanted.topic)
        self.expire(topic)
        if wanted.name not in topic.feeds:
            topic.feeds[wanted.name] = self.feed_of(wanted, self.lock, ordered=topic.ordered, now=self.clock.now())
        if wanted.name not in topic.dead:
            of = dead_letters_of(topic.feeds[wanted.name].of)
            topic.dead[wanted.name] = Feed(of, self.lock, ordered=False, now=self.clock.now())
        return topic.feeds[wanted.name]

    def delete(self, place: Place) -> None:
        """Remove a place and all that is in it. Silent when absent."""
        if isinstance(place, Topic):
            topic = self.topics.get(place.name)
            for name in list(topic.feeds) if topic else ():
                self.delete(Subscription(place, name))
            self.topics.pop(place.name, None)
            return
        of = place.of if isinstance(place, DeadLetters) else place
        topic = self.topics.get(of.topic.name)
        if topic is None:
            return
        if isinstance(place, DeadLetters):
            if dead := topic.dead.pop(of.name, None):
                dead.close()
        elif of.name in topic.feeds:
            self._drop(topic, of.name)

    def places(self) -> Iterator[Feed]:
        for topic in self.topics.values():
            yield from topic.feeds.values()
            yield from topic.dead.values()

    def wake(self) -> None:
        """Have every waiting consumer look again, after the clock was moved."""
        with self.lock:
            wake(self.places())

    def idle(self) -> bool:
        """Whether no consumer holds a delivery."""
        return not any(feed.leased for feed in self.places())

    def _drop(self, topic: StoredTopic, name: str) -> None:
        topic.feeds.pop(name).close()
        if dead := topic.dead.pop(name, None):
            dead.close()

    def _numbers(self, batch: Sequence[Outbound]) -> Iterator[int]:
        return (next(self._ids) for _ in batch)

    def _receipts(self, topic: StoredTopic, batch: Sequence[Outbound]) -> list[Done]:
        # Where what is missed is created, later subscriptions may get it too.
        reached = len(topic.feeds) if self.watcher is None else None
        return [Done(number, number, 0.0, reached) for number in map(str, self._numbers(batch))]

    def _send_once(self, name: str, topic: StoredTopic, batch: Sequence[Outbound], now: float) -> list[Done]:
        fresh: list[Outbound] = []
        outcomes: list[Done] = []
        for message in batch:
            done = topic.seen(message.dedup, now)
            if done is None:
                [done] = self._receipts(topic, [message])
                topic.remember(message.dedup, done, now)
                fresh.append(message)
            outcomes.append(done)
        self._spread(name, topic, fresh, now)
        return outcomes

    def _spread(self, name: str, topic: StoredTopic, batch: Sequence[Outbound], now: float) -> None:
        if self.watcher is not None:
            self.watcher.accepted(name, batch)
        plain = not topic.ordered
        if plain:
            for message in batch:
                if message.delay > 0 or message.ttl is not None:
                    plain = False
                    break
        for feed in topic.feeds.values():
            if plain:
                feed.put_plain(batch, now)
            else:
                feed.put(batch, now)
