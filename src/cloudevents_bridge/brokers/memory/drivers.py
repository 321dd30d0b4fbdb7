"""The drivers of a memory broker: each call takes the store's lock, does one thing and lets go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar
from weakref import WeakSet

from cloudevents_bridge import clock as real
from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.brokers.memory.clock import Pause
from cloudevents_bridge.brokers.memory.feed import Entry, Feed
from cloudevents_bridge.brokers.memory.store import (
    Call,
    ClosedError,
    MissingError,
    Place,
    Store,
    TroubleError,
    classify,
)
from cloudevents_bridge.brokers.memory.topology import MemoryTopology
from cloudevents_bridge.driver import (
    DEAD_LETTER,
    Capability,
    DeadLetters,
    Done,
    Fault,
    Inbound,
    Outbound,
    Received,
    ReceiveTraits,
    SendTraits,
    Subscription,
    Topic,
    Verb,
)
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge.faults import place_name

BATCH = 1_000
MESSAGE_BYTES = 16 * 1024 * 1024
_LONGEST = 1_209_600.0
_NO_DEAD = Fault(
    ErrorCode.FAILED_PRECONDITION,
    retryable=False,
    maybe_applied=False,
    message="a dead letter cannot be dead-lettered: ack it, or publish it to its subscription",
)
CAPABILITIES = frozenset(Capability) - {Capability.FILTER}

D = TypeVar("D", bound="Publisher | Subscriber")


def size(message: Outbound) -> int:
    """Bytes of the body, and of the names and values of the attributes in UTF-8."""
    total = len(message.body)
    for name, value in message.attributes.items():
        total += len(name) + len(value) if name.isascii() and value.isascii() else len((name + value).encode())
    return total


class Publisher:
    """`PublisherDriver` on a store."""

    def __init__(self, store: Store, to: Place) -> None:
        window = float(to.native.get("deduplication", 0.0)) if isinstance(to, Topic) else 0.0
        self.traits = SendTraits(BATCH, 4 * MESSAGE_BYTES, MESSAGE_BYTES, "mixed", 1, window)
        self._store = store
        self._to = to
        self._closed = False

    def size(self, message: Outbound) -> int:
        return size(message)

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        store = self._store
        with store.lock:
            if self._closed:
                raise ClosedError(f"the publisher of {place_name(self._to)} is closed")
            lost = _watched(store, Call("publish", self._to))
            done = store.send(self._to, batch)
            if lost is not None:
                raise TroubleError(lost)
            return done

    def close(self) -> None:
        with self._store.lock:
            self._closed = True


class Subscriber:
    """`SubscriberDriver` on a store."""

    def __init__(self, store: Store, of: Subscription | DeadLetters) -> None:
        self.traits = ReceiveTraits(
            batch_count=BATCH,
            settle_count=BATCH,
            receives=1,
            wait=(0.0, 3_600.0),
            stop_within=0.1,
            nack_delay=_LONGEST,
            lease_total=_LONGEST,
            removes_after=None,
            settle="each",
            free_release=True,
            dead=not isinstance(of, DeadLetters),
        )
        self._store = store
        self._of = of
        self._holder = next(store.holders)
        self._stopped = False
        self._closed = False

    def receive(self, max_messages: int, wait: float) -> Received:
        store = self._store
        clock = store.clock
        with store.lock:
            self._check()
            lost = _watched(store, Call("receive", self._of))
            feed = store.feed(self._of)
            now = clock.now()
            end, expires = now + wait, real.now() + wait
            waiting = True
            while True:
                feed.used = now
                taken = [] if self._cut() else feed.take(max_messages, now, self._holder)
                if taken or self._cut() or now >= end or not waiting:
                    break
                waiting = self._wait(feed, end, expires)
                self._check()
                if feed.gone:
                    raise MissingError(f"{place_name(self._of)} was deleted from {store.url}")
                now = clock.now()
            if lost is not None:
                raise TroubleError(lost)
            return Received(taken)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        store = self._store
        with store.lock:
            self._check()
            lost = _watched(store, Call("settle", self._of, verb, messages, seconds, reason))
            feed = store.feed(self._of)
            now = feed.used = store.clock.now()
            outcomes: Sequence[Done | Fault]
            if verb == "ack":
                outcomes = feed.ack(messages, now)
            elif verb == "dead" and isinstance(self._of, DeadLetters):
                outcomes = [_NO_DEAD] * len(messages)
            else:
                dead = store.feed(DeadLetters(feed.of)) if verb == "dead" else feed
                outcomes = feed.settle(
                    verb, messages, now, seconds=seconds, bury=lambda entry: dead.put([_letter(entry, reason)], now)
                )
            if store.clock.jumps:
                store.wake()
            if lost is not None:
                raise TroubleError(lost)
            return outcomes

    def stop(self) -> None:
        with self._store.lock:
            self._stopped = True
            if feed := self._store.find(self._of):
                feed.changed.notify_all()

    def close(self) -> None:
        store = self._store
        with store.lock:
            if self._closed:
                return
            self.stop()
            self._closed = True
            if feed := store.find(self._of):
                feed.reclaim(self._holds, store.clock.now(), free=True)

    def _wait(self, feed: Feed, end: float, expires: float) -> bool:
        clock = self._store.clock
        delay = feed.next_delay() if clock.jumps and self._store.idle() else None
        feed.waiters += 1
        try:
            waiting = clock.wait(feed.changed, Pause(end, expires, feed.next_due(), delay))
        finally:
            feed.waiters -= 1
        if delay is not None and clock.now() >= delay:
            self._store.wake()
        return waiting

    def _cut(self) -> bool:
        """Whether a receive ends without an event, before its wait is over."""
        return self._stopped

    def _holds(self, entry: Entry) -> bool:
        return entry.token is not None and entry.token[0] == self._holder

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"the subscriber of {place_name(self._of)} is closed")


class MemoryConnection:
    """One connection to a store.

    Attributes:
        native: the store.
    """

    capabilities = CAPABILITIES
    direct = True

    def __init__(self, store: Store, release: Callable[[], None]) -> None:
        self.native = store
        self.topology = MemoryTopology(store)
        self._release = release
        self._opened: WeakSet[Publisher | Subscriber] = WeakSet()
        self._closed = False

    @cached_property
    def wire(self) -> Wire:
        from cloudevents_bridge.bindings import STRUCTURED

        return STRUCTURED

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> Publisher:
        return self._keep(Publisher(self.native, to))

    def open_subscriber(self, of: Subscription | DeadLetters) -> Subscriber:
        return self._keep(Subscriber(self.native, of))

    def classify(self, error: BaseException) -> Fault:
        return classify(error)

    def ping(self, *, timeout: float) -> None:
        self._check()

    def close(self) -> None:
        with self.native.lock:
            if self._closed:
                return
            self._closed = True
            opened = list(self._opened)
            for driver in opened:
                driver.close()
        self._release()

    def _keep(self, driver: D) -> D:
        with self.native.lock:
            self._check()
            self._opened.add(driver)
            return driver

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"the connection to {self.native.url} is closed")


def _letter(entry: Entry, reason: str) -> Outbound:
    return Outbound(entry.message.body, {**entry.message.attributes, DEAD_LETTER: reason})


def _watched(store: Store, call: Call) -> Fault | None:
    """Raise the fault that a test asked for, or hand it back when the call shall take effect all the same."""
    found = store.watcher.begins(call) if store.watcher is not None else None
    if found is None:
        return None
    fault, takes_effect = found
    if not takes_effect:
        raise TroubleError(fault)
    return fault
