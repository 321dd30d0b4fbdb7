"""A broker with every bad manner that the seam allows, in memory: what the portable layer must be right on.

`awkward://NAME` is shared by the connections of a process, as `memory://NAME` is. Its manners, each one that a real
broker has: sends are small, of at most one event per ordering key, and some of their messages may fail; giving back
spends an attempt; a settle that comes too late is accepted and does nothing; a receive cannot be cut short; there is
no delay, no dead-letter verb and no way to one subscription; what was delivered too often is dropped; a lease has a
ceiling; streams are taken away (`Awkward.take_away`); closing gives nothing back; and where it is asked for (`groups`),
a receive brings several events of an ordering key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.brokers.memory import ClosedError, MemoryAdapter, MemoryConnection, Store, classify
from cloudevents_bridge.driver import Capability, DeadLetters, Fault, Subscription, Topic, Url
from cloudevents_bridge_contract.awkward.drivers import (
    Awkward,
    AwkwardPublisher,
    AwkwardSubscriber,
    AwkwardTopology,
)
from cloudevents_bridge_contract.awkward.groups import GroupFeed
from cloudevents_bridge_contract.awkward.manners import NAMES, Chance, Manners, RefusedError, stream_of

__all__ = [
    "adapter",
    "Awkward",
    "AwkwardAdapter",
    "AwkwardConnection",
    "AwkwardPublisher",
    "AwkwardSubscriber",
    "Manners",
    "RefusedError",
    "stream_of",
]

CAPABILITIES = frozenset({Capability.ORDERING, Capability.EXTEND, Capability.REPLAY, Capability.TOPOLOGY})
D = TypeVar("D", bound=AwkwardPublisher | AwkwardSubscriber)


class AwkwardConnection:
    """One connection.

    Attributes:
        native: the broker, with `take_away`.
    """

    capabilities = CAPABILITIES
    direct = False

    def __init__(self, memory: MemoryConnection, native: Awkward, manners: Manners) -> None:
        self.native = native
        self.topology = AwkwardTopology(native.store)
        self._memory = memory
        self._manners = manners
        self._chance = Chance(manners)
        self._opened: WeakSet[AwkwardPublisher | AwkwardSubscriber] = WeakSet()
        self._closed = False

    @cached_property
    def wire(self) -> Wire:
        from cloudevents_bridge.bindings import PUBSUB

        return PUBSUB

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> AwkwardPublisher:
        if isinstance(to, Subscription):
            raise RefusedError(f"{to.name} is a subscription: it is reached by its topic only")
        return self._keep(AwkwardPublisher(self.native.store, to, self._manners, self._chance))

    def open_subscriber(self, of: Subscription | DeadLetters) -> AwkwardSubscriber:
        return self._keep(AwkwardSubscriber(self.native, of, self._manners, self._chance))

    def classify(self, error: BaseException) -> Fault:
        if isinstance(error, RefusedError):
            return Fault(error.code, retryable=False, maybe_applied=False, message=str(error))
        return classify(error)

    def ping(self, *, timeout: float) -> None:
        self._memory.ping(timeout=timeout)

    def close(self) -> None:
        with self.native.store.lock:
            self._closed = True
            for driver in list(self._opened):
                driver.close()
        self._memory.close()

    def _keep(self, driver: D) -> D:
        with self.native.store.lock:
            if self._closed:
                raise ClosedError(f"the connection to {self.native.store.url} is closed")
            self._opened.add(driver)
            return driver


class AwkwardAdapter:
    """The `Adapter` of `awkward://`; for its options see `Manners`. `clock`: as that of `memory://`."""

    query: frozenset[str] = NAMES
    options: frozenset[str] = NAMES | {"clock"}

    def __init__(self) -> None:
        self._memory = MemoryAdapter()
        self._consumers: WeakKeyDictionary[Store, WeakSet[AwkwardSubscriber]] = WeakKeyDictionary()

    def __call__(self, url: Url, options: Mapping[str, Any]) -> AwkwardConnection:
        manners = Manners.of(url, options)
        memory = self._memory(url, {name: value for name, value in options.items() if name == "clock"})
        if manners.groups:
            memory.native.feed_of = GroupFeed
        consumers = self._consumers.setdefault(memory.native, WeakSet())
        return AwkwardConnection(memory, Awkward(memory.native, consumers, manners), manners)


adapter = AwkwardAdapter()
