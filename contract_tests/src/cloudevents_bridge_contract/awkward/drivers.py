"""The drivers of an awkward broker: those of the broker in memory, behaving badly."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakSet

from msgspec.structs import replace

from cloudevents_bridge.brokers.memory import Entry, MemoryTopology, Publisher, Store, Subscriber, size
from cloudevents_bridge.driver import (
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
    Verb,
)
from cloudevents_bridge.errors import ConfigurationError, ErrorCode
from cloudevents_bridge_contract.awkward.manners import BUSY, Chance, Manners, RefusedError, stream_of

_MESSAGE_OVERHEAD = 64
_ATTRIBUTE_OVERHEAD = 3


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
                outcomes.append(BUSY)
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
        outcomes = [BUSY if self._chance.fails() else self._settle(verb, each, seconds, timeout) for each in messages]
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
