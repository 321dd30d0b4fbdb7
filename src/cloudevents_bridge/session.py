"""A connection as one process holds it: opened on first use, and opened again in the child after a fork."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar
from weakref import WeakSet

from cloudevents_bridge import clock, driver
from cloudevents_bridge.core.retry import Backoff
from cloudevents_bridge.errors import ClosedError, ErrorCode, UnsupportedError, make_error
from cloudevents_bridge.faults import place_name, wrapped
from cloudevents_bridge.topics import Subscription, Topic

if TYPE_CHECKING:
    from cloudevents_bridge.telemetry.otel import Telemetry

T = TypeVar("T")
Place: TypeAlias = driver.Topic | driver.Subscription
DEFAULT_TIMEOUT = 30.0
"""Seconds a call may take with its retries, where neither the call nor the configuration says."""


class Closing:
    """What is closed when its `with` block ends."""

    def close(self, *, timeout: float = 30.0) -> None:
        """End it, within about `timeout` seconds. Closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Declared:
    """The topics that the program declares, as the places that a driver knows."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self.topics: dict[str, Topic] = {topic.name: topic for topic in topics}

    def topic(self, name: str) -> driver.Topic:
        declared = self.topics.get(name) or Topic(name)
        return driver.Topic(declared.name, declared.ordered, declared.native)

    def policy(self, topic: str, subscription: str) -> Subscription:
        """The declaration of a subscription, or one with the defaults."""
        for each in self.topics[topic].subscriptions if topic in self.topics else ():
            if each.name == subscription:
                return each
        return Subscription(subscription)

    def subscription(self, topic: str, name: str) -> driver.Subscription:
        return subscription_place(self.topic(topic), self.policy(topic, name))


def subscription_place(topic: driver.Topic, declared: Subscription) -> driver.Subscription:
    """A declared subscription as the driver's place."""
    return driver.Subscription(
        topic,
        declared.name,
        lease=declared.lease,
        max_attempts=declared.max_attempts,
        filter=declared.filter,
        native=declared.native,
    )


def places(topics: Iterable[Topic]) -> list[Place]:
    """Each topic followed by its subscriptions."""
    found: list[Place] = []
    for topic in topics:
        place = driver.Topic(topic.name, topic.ordered, topic.native)
        found.append(place)
        found.extend(subscription_place(place, each) for each in topic.subscriptions)
    return found


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a session needs to know. `broker`: the URL that errors show. `telemetry`: None: there is none."""

    broker: str
    declared: Declared
    backoff: Backoff
    timeout: float
    create_missing: bool
    telemetry: Telemetry | None = None


class Session:
    """One connection in one process."""

    def __init__(self, connection: driver.Connection, config: SessionConfig) -> None:
        self.connection = connection
        self.config = config
        self.broker = config.broker
        self.left_behind = False  # in the child of a fork: it is the parent's
        self._made: set[str] | None = None
        self._making = threading.Lock()

    def call(
        self,
        doing: str,
        operation: Callable[[float], T],
        *,
        timeout: float | None = None,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> T:
        """Make one request, `operation(seconds_left)`, with the retries of the policy.

        Raises:
            BridgeError: what the request failed with in the end.
        """

        def attempt(left: float) -> T:
            with wrapped(self.connection, doing, self.broker):
                return operation(left)

        limit = self.config.timeout if timeout is None else timeout
        return self.config.backoff.call(attempt, timeout=limit, clock=clock.now, sleep=sleep)

    def require(self, capability: driver.Capability, instead: str) -> None:
        """Raise `UnsupportedError` naming the capability, the broker and what to use instead."""
        if capability not in self.connection.capabilities:
            raise UnsupportedError(
                f"{self.broker} does not have the capability {capability.value!r}: {instead}", broker=self.broker
            )

    def check(self, topics: Iterable[Topic]) -> None:
        """Raise `UnsupportedError` if one of the topics declares what the broker does not have."""
        for topic in topics:
            if topic.ordered and driver.Capability.ORDERING not in self.connection.capabilities:
                raise UnsupportedError(
                    f"topic {topic.name} is declared ordered and {self.broker} does not have the capability "
                    "'ordering': use another broker, or declare it without",
                    broker=self.broker,
                )
            for subscription in topic.subscriptions:
                if subscription.filter is not None and driver.Capability.FILTER not in self.connection.capabilities:
                    raise UnsupportedError(
                        f"subscription {topic.name}/{subscription.name} declares a filter and {self.broker} does not "
                        "have the capability 'filter': drop the filter and select in the program",
                        broker=self.broker,
                    )

    def ensure(self, *wanted: Place) -> None:
        """With `create_missing`: apply the declared topics and subscriptions on first use, then create these."""
        if not self.config.create_missing or (self._made and all(place_name(p) in self._made for p in wanted)):
            return
        with self._making:
            made = self._made or set()
            declared = places(self.config.declared.topics.values()) if self._made is None else []
            asked = {place_name(place): place for place in (*declared, *wanted)}
            missing = [place for name, place in asked.items() if name not in made]
            if missing:
                self.require(driver.Capability.TOPOLOGY, "open without create_missing, and create with its own tools")
                self.call("create what is missing", lambda _: self.apply(missing))
            self._made = made | set(asked)

    def forget(self) -> None:
        """Something was deleted: what was made may be missing again."""
        with self._making:
            self._made = None

    def apply(self, wanted: Sequence[Place]) -> Sequence[driver.Change]:
        """Make the broker as wanted, and return what was changed.

        Raises:
            BridgeError: FAILED_PRECONDITION if something exists that cannot be changed to what is wanted.
        """
        changes = self.connection.topology.diff(wanted)
        for change in changes:
            if change.conflict:
                raise make_error(
                    ErrorCode.FAILED_PRECONDITION,
                    f"{place_name(change.place)} on {self.broker} has {change.setting} {change.have}, declared is "
                    f"{change.want}, and that cannot be changed: declare what exists, or delete it and apply again",
                    broker=self.broker,
                )
        if changes:
            self.connection.topology.apply(changes)
        return changes


class Opener:
    """Gives each process its session. Connecting does no I/O, so the first one is made at once."""

    def __init__(self, connect: Callable[[], driver.Connection], config: SessionConfig) -> None:
        self._connect = connect
        self.config = config
        self._closed = False
        self.lock = threading.Lock()
        self._session: Session | None = Session(connect(), config)
        self._left_behind: list[Session] = []
        self.beside: WeakSet[Closing] = WeakSet()  # what is closed after the connection
        _openers.add(self)

    def get(self) -> Session:
        """The session of this process.

        Raises:
            ClosedError: after `close`.
        """
        session = self._session
        if session is not None:
            return session
        with self.lock:
            if self._closed:
                raise ClosedError(f"{self.config.broker} was closed: connect again", broker=self.config.broker)
            if self._session is None:
                self._session = Session(self._connect(), self.config)
            return self._session

    def peek(self) -> Session | None:
        """The session of this process, if it is open."""
        return self._session

    def close(self) -> None:
        with self.lock:
            session, self._session, self._closed = self._session, None, True
        if session is not None:
            session.connection.close()
        for each in list(self.beside):
            each.close()

    def _after_fork(self) -> None:
        # The parent's connection is kept, unused: closing it here could end what the parent still uses.
        self.lock = threading.Lock()
        if self._session is not None:
            self._session.left_behind = True
            self._left_behind.append(self._session)
            self._session = None


_openers: WeakSet[Opener] = WeakSet()


def _forget_the_parent() -> None:
    for opener in _openers:
        opener._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parent)
