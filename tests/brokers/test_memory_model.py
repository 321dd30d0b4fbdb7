"""The memory broker against a model of it, on a clock that only the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloudevents_bridge.brokers.memory import MemoryConnection, Store, VirtualClock
from cloudevents_bridge.driver import DEAD_LETTER, DeadLetters, Done, Inbound, Outbound, Subscription, Topic, Verb
from cloudevents_bridge.errors import ErrorCode

LEASE, RETENTION = 10.0, 500.0


@dataclass
class Held:
    """What the model knows of one event in one subscription."""

    body: bytes
    key: str | None
    deadline: float
    due: float = 0.0
    leased: bool = False
    attempt: int = 0
    leases: list[Inbound] = field(default_factory=list)


class Model:
    """The subscription as it should be: a list in the order of publishing."""

    def __init__(self, *, ordered: bool) -> None:
        self.ordered = ordered
        self.events: list[Held] = []

    def move(self, now: float) -> None:
        for event in self.events:
            if event.due and event.due <= now and self._is_out(event):
                event.due, event.leased = 0.0, False

    def available(self, now: float) -> list[Held]:
        """What a receive may bring, in any order: of a key the first that has not expired, if it is not out."""
        self.events = [e for e in self.events if e.due > now or e.deadline > now]
        return [e for e in self.events if e.due <= now and self._is_out(e)]

    def _is_out(self, event: Held) -> bool:
        if not self.ordered or event.key is None:
            return True
        return next(e for e in self.events if e.key == event.key) is event


class MemoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.store = Store("memory://", self.clock)
        self.connection = MemoryConnection(self.store, lambda: None)
        self.sent = 0
        self.letters: list[tuple[bytes, str]] = []
        self.given: list[tuple[Held, Inbound]] = []

    @initialize(ordered=st.booleans())
    def create(self, ordered: bool) -> None:
        self.topic = Topic("orders", ordered=ordered)
        self.of = Subscription(self.topic, "billing", lease=LEASE, retention=RETENTION)
        other = Subscription(self.topic, "audit")
        self.connection.topology.apply(self.connection.topology.diff([self.topic, self.of, other]))
        self.model = Model(ordered=ordered)
        self.publisher = self.connection.open_publisher(self.topic)
        self.direct = self.connection.open_publisher(self.of)
        self.subscriber = self.connection.open_subscriber(self.of)
        self.other = self.connection.open_subscriber(other)

    @property
    def now(self) -> float:
        return self.clock.now()

    @rule(
        keys=st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=5),
        later=st.sampled_from([(0.0, None), (0.0, None), (4.0, None), (0.0, 6.0)]),
        direct=st.booleans(),
    )
    def send(self, keys: list[str | None], later: tuple[float, float | None], direct: bool) -> None:
        delay, ttl = later
        batch = []
        for key in keys:
            self.sent += 1
            body = str(self.sent).encode()
            batch.append(Outbound(body, {}, key, None, delay, ttl))
            deadline = self.now + (RETENTION if ttl is None else ttl)
            self.model.events.append(Held(body, key, deadline, self.now + delay if delay else 0.0))
        done = (self.direct if direct else self.publisher).send(batch, timeout=1.0)
        assert [outcome.reached for outcome in done if isinstance(outcome, Done)] == [1 if direct else 2] * len(batch)

    @rule(most=st.integers(1, 6))
    def receive(self, most: int) -> None:
        self.model.move(self.now)
        available = {event.body: event for event in self.model.available(self.now)}
        messages = self.subscriber.receive(most, 0.0).messages
        assert len(messages) == min(most, len(available))
        for message in messages:
            event = available.pop(message.body)
            event.attempt += 1
            event.leased, event.due = True, self.now + LEASE
            event.leases.append(message)
            assert (message.attempt, message.lease) == (event.attempt, LEASE)
            assert message.key == (event.key if self.model.ordered else None)
            self.given.append((event, message))

    @precondition(lambda self: self.given)
    @rule(
        data=st.data(),
        verb=st.sampled_from(["ack", "ack", "nack", "release", "extend", "dead"]),
        seconds=st.sampled_from([0.0, 3.0, 25.0]),
    )
    def settle(self, data: st.DataObject, verb: Verb, seconds: float) -> None:
        """Settle some, stale and foreign leases among them: each has an outcome of its own."""
        chosen = data.draw(st.lists(st.sampled_from(self.given), min_size=1, max_size=4, unique_by=lambda g: id(g[0])))
        self.model.move(self.now)
        seconds = max(seconds, 1.0) if verb == "extend" else seconds
        outcomes = self.subscriber.settle(
            verb, [message for _, message in chosen], seconds=seconds, reason="broken", timeout=1.0
        )
        for (event, message), outcome in zip(chosen, outcomes, strict=True):
            current = event in self.model.events and event.leased and event.leases[-1] is message
            if not current:
                assert not isinstance(outcome, Done)
                assert outcome.code is ErrorCode.LEASE_LOST
                continue
            assert outcome == Done(lease=seconds if verb == "extend" else 0.0)
            self._settled(event, verb, seconds)

    def _settled(self, event: Held, verb: Verb, seconds: float) -> None:
        if verb == "extend":
            event.due = self.now + seconds
            return
        event.leased = False
        event.due = self.now + seconds if verb == "nack" and seconds else 0.0
        if verb == "release":
            event.attempt -= 1
        if verb in {"ack", "dead"}:
            self.model.events.remove(event)
        if verb == "dead":
            self.letters.append((event.body, "broken"))

    @rule(seconds=st.sampled_from([0.5, 4.0, 10.0, 25.0, 501.0]))
    def advance(self, seconds: float) -> None:
        # A model that sees every moment at which something happens needs no rules of its own for what came between.
        end = self.now + seconds
        while moments := [e.due for e in self.model.events if self.now < e.due <= end]:
            self._step(min(moments) - self.now)
        self._step(end - self.now)

    def _step(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.move(self.now)
        self.model.available(self.now)

    @rule()
    def restart(self) -> None:
        """A consumer that closes gives back what it held, and the attempts with it."""
        self.model.move(self.now)
        self.subscriber.close()
        self.subscriber = self.connection.open_subscriber(self.of)
        for event in self.model.events:
            if event.leased:
                event.leased, event.due = False, 0.0
                event.attempt -= 1

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if self.sent:
            assert self.store.feed(self.of).size >= len(self.model.available(self.now))

    def teardown(self) -> None:
        if not hasattr(self, "subscriber"):
            return
        self._drain()
        letters = self.connection.open_subscriber(DeadLetters(self.of)).receive(1000, 0.0).messages
        alive = [(m.body, m.attributes[DEAD_LETTER]) for m in letters]
        # The letters of long ago have expired.
        assert alive == self.letters[len(self.letters) - len(alive) :]
        feed = self.store.feed(self.of)
        assert (feed.size, feed.leased, feed._timed) == (0, 0, 0)
        assert not feed._timers
        assert not feed._lanes
        assert not feed._ready

    def _drain(self) -> None:
        left = {event.body for event in self.model.events}
        self.clock.advance(LEASE + 25.0)
        while messages := self.subscriber.receive(1000, 0.0).messages:
            assert {m.body for m in messages} <= left
            left -= {m.body for m in messages}
            self.subscriber.settle("ack", messages, timeout=1.0)


TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
pytestmark = pytest.mark.timeout(60)
