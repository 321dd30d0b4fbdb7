"""A broker with every bad manner that the seam allows, in memory: what the portable layer must be right on.

`awkward://NAME` is shared by the connections of a process, as `memory://NAME` is. Its manners, each one that a real
broker has: sends are small, of at most one event per ordering key, and some of their messages may fail; giving back
spends an attempt; a settle that comes too late is accepted and does nothing; a receive cannot be cut short; there is
no delay, no dead-letter verb and no way to one subscription; what was delivered too often is dropped; a lease has a
ceiling; streams are taken away (`Awkward.take_away`); closing gives nothing back.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from msgspec.structs import replace

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.brokers.memory import (
    ClosedError,
    Entry,
    MemoryAdapter,
    MemoryConnection,
    MemoryTopology,
    Publisher,
    Store,
    Subscriber,
    TroubleError,
    classify,
    size,
)
from cloudevents_bridge.driver import (
    Capability,
    Change,
    DeadLetters,
    Done,
    Fault,
    Inbound,
    Outbound,
    Received,
    SendTraits,
    Subscription,
    Topic,
    Url,
    Verb,
)
from cloudevents_bridge.errors import ConfigurationError, ErrorCode

CAPABILITIES = frozenset({Capability.ORDERING, Capability.EXTEND, Capability.REPLAY, Capability.TOPOLOGY})
_MESSAGE_OVERHEAD = 64
_ATTRIBUTE_OVERHEAD = 3
_BUSY = Fault(ErrorCode.UNAVAILABLE, retryable=True, maybe_applied=False, message="busy, try again")
_UNANSWERED = Fault(ErrorCode.UNAVAILABLE, retryable=True, maybe_applied=True, message="the answer was lost")
D = TypeVar("D", bound="AwkwardPublisher | AwkwardSubscriber")


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How awkward it is: options of `connect`, or query keys of the URL.

    Attributes:
        poll: seconds that a receive without an event takes, whatever is asked for and whoever calls `stop`.
        batch_count, batch_bytes, message_bytes: limits of a send.
        removes_after: deliveries after which an event is dropped.
        lease_total: seconds from its receipt to which a delivery can be kept.
        streams: over how many streams the ordering keys are spread.
        fault_rate: share of calls, and of messages of a call, that fail for once and have no effect.
        lost_rate: share of calls that have their effect, and whose answer is lost.
        seed: of the chances above.
    """

    poll: float = 5.0
    batch_count: int = 10
    batch_bytes: int = 262_144
    message_bytes: int = 262_144
    removes_after: int = 20
    lease_total: float = 600.0
    streams: int = 4
    fault_rate: float = 0.0
    lost_rate: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, url: Url, options: Mapping[str, Any]) -> Manners:
        """Those of a URL, and of options over it. Raises `ConfigurationError` for what is no number of at least 0."""
        given = {**url.query, **{name: value for name, value in options.items() if name in _MANNERS}}
        read: dict[str, Any] = {}
        for name, value in given.items():
            try:
                read[name] = type(getattr(cls, name))(value)
            except (TypeError, ValueError):
                read[name] = -1
            if not read[name] >= 0:
                raise ConfigurationError(f"{name} of {url.text} is {value!r}: give a number of at least 0")
        return cls(**read)


_MANNERS = frozenset(field.name for field in fields(Manners))


class RefusedError(Exception):
    """The broker refuses a call that breaks what its traits say: a bug of the caller."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INVALID_ARGUMENT) -> None:
        super().__init__(message)
        self.code = code


class Awkward:
    """One awkward broker as a connection sees it; `broker.native` gives it.

    Attributes:
        store: the events.
    """

    def __init__(self, store: Store, consumers: WeakSet[AwkwardSubscriber], manners: Manners) -> None:
        self.store = store
        self._consumers = consumers
        self._manners = manners

    def take_away(self, of: Subscription, stream: str) -> None:
        """Take a stream from whoever consumes it: what is not settled goes back into the queue."""

        def of_stream(entry: Entry) -> bool:
            return stream_of(entry.key, entry.message.body, self._manners.streams) == stream

        store = self.store
        with store.lock:
            feed = store.feed(of)
            feed.reclaim(of_stream, store.clock.now(), free=False)
            for consumer in self._consumers:
                if consumer.reads(of):
                    consumer.lose(stream)
            feed.changed.notify_all()

    def enter(self, consumer: AwkwardSubscriber) -> None:
        with self.store.lock:
            self._consumers.add(consumer)


def stream_of(key: str | None, body: bytes, streams: int) -> str:
    """The stream of an event: that of its ordering key, else any."""
    return f"stream-{zlib.crc32(body if key is None else key.encode()) % streams}"


class Chance:
    """What fails now and then."""

    def __init__(self, manners: Manners) -> None:
        self._fault, self._lost = manners.fault_rate, manners.lost_rate
        self._random = random.Random(manners.seed)

    def fails(self) -> bool:
        return bool(self._fault) and self._random.random() < self._fault

    def before(self) -> None:
        """Fail without effect, at times."""
        if self.fails():
            raise TroubleError(_BUSY)

    def after(self) -> None:
        """Lose the answer, at times."""
        if self._lost and self._random.random() < self._lost:
            raise TroubleError(_UNANSWERED)


class AwkwardPublisher:
    """`PublisherDriver` that takes ten events, no two of a key, and fails some of them."""

    def __init__(self, store: Store, to: Topic | DeadLetters, manners: Manners, chance: Chance) -> None:
        m = manners
        self.traits = SendTraits(m.batch_count, m.batch_bytes, m.message_bytes, keys="one_each", sends=4)
        self._inner = Publisher(store, to)
        self._ordered = isinstance(to, Topic) and to.ordered
        self._chance = chance

    def size(self, message: Outbound) -> int:
        return size(message) + _MESSAGE_OVERHEAD + _ATTRIBUTE_OVERHEAD * len(message.attributes)

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        self._check(batch)
        self._chance.before()
        outcomes: list[Done | Fault] = []
        for message in batch:
            length = self.size(message)
            if length > self.traits.message_bytes:
                text = f"{length} bytes, and {self.traits.message_bytes} is the limit"
                outcomes.append(Fault(ErrorCode.TOO_LARGE, retryable=False, maybe_applied=False, message=text))
            elif self._chance.fails():
                outcomes.append(_BUSY)
            else:
                plain = replace(message, dedup=None, ttl=None)
                outcomes += [replace(done, sequence=None, reached=None) for done in self._put(plain, timeout)]
        self._chance.after()
        return outcomes

    def close(self) -> None:
        self._inner.close()

    def _put(self, message: Outbound, timeout: float) -> list[Done]:
        return [done for done in self._inner.send([message], timeout=timeout) if isinstance(done, Done)]

    def _check(self, batch: Sequence[Outbound]) -> None:
        if not 0 < len(batch) <= self.traits.batch_count:
            raise RefusedError(f"a batch of {len(batch)}, and it takes 1 to {self.traits.batch_count}")
        keys = [message.key for message in batch if self._ordered and message.key is not None]
        if len(set(keys)) < len(keys):
            raise RefusedError("a batch with an ordering key twice")
        if any(message.delay for message in batch):
            raise RefusedError("a delay, and it has none")
        total = sum(map(self.size, batch))
        if len(batch) > 1 and total > self.traits.batch_bytes:
            raise RefusedError(f"a batch of {total} bytes", ErrorCode.TOO_LARGE)


class AwkwardSubscriber(Subscriber):
    """`SubscriberDriver` that stops late, settles in silence and loses streams.

    Attributes:
        manners: those of its connection.
    """

    def __init__(self, awkward: Awkward, of: Subscription | DeadLetters, manners: Manners, chance: Chance) -> None:
        super().__init__(awkward.store, of)
        self.manners = manners
        self.traits = replace(
            self.traits,
            batch_count=manners.batch_count,
            settle_count=manners.batch_count,
            wait=(manners.poll, manners.poll),
            stop_within=manners.poll,
            nack_delay=0.0,
            lease_total=manners.lease_total,
            # The letters themselves are never dropped: nobody could keep them otherwise.
            removes_after=None if isinstance(of, DeadLetters) else manners.removes_after,
            free_release=False,
            dead=False,
        )
        self._chance = chance
        self._lost: set[str] = set()
        awkward.enter(self)

    def receive(self, max_messages: int, wait: float) -> Received:
        if self._stopped and not self._closed:
            return Received()
        self._chance.before()
        received = super().receive(min(max_messages, self.traits.batch_count), self.manners.poll)
        with self._store.lock:
            lost, self._lost = sorted(self._lost), set()
        kept = [self._hand_out(each) for each in received.messages if not self._removed(each)]
        return Received(kept, lost)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        if not 0 < len(messages) <= self.traits.settle_count:
            raise RefusedError(f"{len(messages)} settled at once, and it takes 1 to {self.traits.settle_count}")
        if verb == "dead" or (verb == "nack" and seconds > 0):
            raise RefusedError(f"{verb} with {seconds:g} seconds, and it has no such thing")
        self._chance.before()
        outcomes = [_BUSY if self._chance.fails() else self._settle(verb, each, seconds, timeout) for each in messages]
        self._chance.after()
        return outcomes

    def stop(self) -> None:
        """A receive that is under way goes on, and may still bring events."""
        self._stopped = True

    def close(self) -> None:
        """Nothing is given back: what is not settled waits for the end of its lease."""
        with self._store.lock:
            self._stopped = self._closed = True

    def reads(self, of: Subscription) -> bool:
        place = self._of
        return isinstance(place, Subscription) and (place.topic.name, place.name) == (of.topic.name, of.name)

    def lose(self, stream: str) -> None:
        """Have the next receive, or the one under way, say that the stream is lost."""
        self._lost.add(stream)

    def _cut(self) -> bool:
        return bool(self._lost)

    def _settle(self, verb: Verb, message: Inbound, seconds: float, timeout: float) -> Done | Fault:
        inner, begun = message.handle
        if verb == "extend":
            seconds = max(min(seconds, begun + self.manners.lease_total - self._store.clock.now()), 0.0)
        native: Verb = "nack" if verb == "release" else verb
        [outcome] = super().settle(native, [inner], seconds=seconds, timeout=timeout)
        if isinstance(outcome, Fault) and verb != "extend" and outcome.code is ErrorCode.LEASE_LOST:
            return Done()
        return outcome

    def _hand_out(self, message: Inbound) -> Inbound:
        stream = stream_of(message.key, message.body, self.manners.streams)
        return replace(message, handle=(message, self._store.clock.now()), stream=stream)

    def _removed(self, message: Inbound) -> bool:
        limit = self.traits.removes_after
        if limit is None or (message.attempt or 0) <= limit:
            return False
        super().settle("ack", [message], timeout=1.0)
        return True


class AwkwardTopology(MemoryTopology):
    """`TopologyDriver` without settings of its own."""

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        for place in wanted:
            if place.native:
                raise ConfigurationError(
                    f"{place.name} has native settings ({', '.join(place.native)}): there are none"
                )
        return super().diff(wanted)


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

    query: frozenset[str] = _MANNERS
    options: frozenset[str] = _MANNERS | {"clock"}

    def __init__(self) -> None:
        self._memory = MemoryAdapter()
        self._consumers: WeakKeyDictionary[Store, WeakSet[AwkwardSubscriber]] = WeakKeyDictionary()

    def __call__(self, url: Url, options: Mapping[str, Any]) -> AwkwardConnection:
        manners = Manners.of(url, options)
        memory = self._memory(url, {name: value for name, value in options.items() if name == "clock"})
        consumers = self._consumers.setdefault(memory.native, WeakSet())
        return AwkwardConnection(memory, Awkward(memory.native, consumers, manners), manners)


adapter = AwkwardAdapter()
