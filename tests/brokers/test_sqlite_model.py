"""The SQLite broker against a model of a few lines, over any order of calls."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloudevents_bridge.brokers.sqlite.adapter import Connection
from cloudevents_bridge.brokers.sqlite.clock import Clock
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.driver import DeadLetters, Done, Inbound, Outbound, Subscription, Topic

LEASE = 10.0


class Entry:
    """What one subscription knows of one event."""

    def __init__(self, name: str, key: str | None, due: float, expires: float) -> None:
        self.name, self.key, self.due, self.expires = name, key, due, expires
        self.leased: Inbound | None = None
        self.attempts = 0


class Broker(RuleBasedStateMachine):
    @initialize(ordered=st.booleans())
    def start(self, ordered: bool) -> None:
        self.path = Path(tempfile.mkdtemp()) / "events.db"
        self.now, self.wall, self.boot = 0.0, 1e9, "a"
        self.topic = Topic("topic", ordered=ordered)
        self.places = [Subscription(self.topic, name, lease=LEASE) for name in ("one", "two")]
        self.queues: dict[str, list[Entry]] = {"one": [], "two": []}
        self.dead: dict[str, list[str]] = {"one": [], "two": []}
        self.lost: list[Inbound] = []
        self.count = 0
        self.broker = self.connect()
        self.broker.topology.apply(self.broker.topology.diff([self.topic, *self.places]))

    def connect(self) -> Connection:
        clock = Clock(self.boot, lambda: self.now, lambda: self.wall)
        return Connection(Store(self.path, "sqlite:///x", synchronous="OFF", clock=clock))

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.broker.close()
            shutil.rmtree(self.path.parent)

    def available(self, name: str) -> list[Entry]:
        """What may be delivered: of each ordering key only the first."""
        queue = self.queues[name]
        queue[:] = [e for e in queue if e.expires > self.now or (e.leased and e.due > self.now)]
        heads: set[str] = set()
        found = []
        for entry in queue:
            if self.topic.ordered and entry.key is not None:
                if entry.key in heads:
                    continue
                heads.add(entry.key)
            if entry.due <= self.now:
                found.append(entry)
        return found

    @rule(
        keys=st.lists(st.sampled_from([None, "k", "l"]), min_size=1, max_size=5),
        delay=st.sampled_from([0.0, 0.0, 0.0, 7.0]),
        ttl=st.sampled_from([None, None, 12.0]),
        only=st.sampled_from([None, None, None, 0]),
    )
    def publish(self, keys: list[str | None], delay: float, ttl: float | None, only: int | None) -> None:
        batch = []
        for key in keys:
            self.count += 1
            batch.append(Outbound(str(self.count).encode(), {}, key, None, delay, ttl))
            for place in self.places if only is None else [self.places[only]]:
                expires = 1e18 if ttl is None else self.now + ttl
                self.queues[place.name].append(Entry(str(self.count), key, self.now + delay, expires))
        done = self.broker.open_publisher(self.topic if only is None else self.places[only]).send(batch, timeout=5.0)
        assert [each.reached for each in done if isinstance(each, Done)] == [2 if only is None else 1] * len(keys)

    @rule(which=st.integers(0, 1), most=st.integers(1, 6))
    def receive(self, which: int, most: int) -> None:
        place = self.places[which]
        left = most
        while left:
            possible = {entry.name: entry for entry in self.available(place.name)}
            messages = self.broker.open_subscriber(place).receive(left, 0.0).messages
            assert len(messages) <= left
            assert bool(messages) == bool(possible)
            if not messages:
                return
            for message in messages:
                entry = possible.pop(message.body.decode())
                if entry.leased:
                    self.lost.append(entry.leased)
                entry.leased, entry.due = message, self.now + LEASE
                entry.attempts += 1
                assert message.attempt == entry.attempts
                assert message.key == (entry.key if self.topic.ordered else None)
            left -= len(messages)

    @precondition(lambda self: any(e.leased for q in self.queues.values() for e in q))
    @rule(data=st.data(), verb=st.sampled_from(["ack", "ack", "nack", "release", "extend", "dead"]))
    def settle(self, data: Any, verb: Any) -> None:
        name = data.draw(st.sampled_from([n for n, q in self.queues.items() if any(e.leased for e in q)]))
        held = [e for e in self.queues[name] if e.leased]
        chosen = data.draw(st.lists(st.sampled_from(held), min_size=1, unique=True))
        messages = [e.leased for e in chosen if e.leased] + self.lost[-1:]
        place = self.places[0]
        outcomes = self.broker.open_subscriber(place).settle(verb, messages, seconds=5.0, reason="why", timeout=5.0)
        assert all(not isinstance(each, Done) for each in outcomes[len(chosen) :])
        for entry, outcome in zip(chosen, outcomes, strict=False):
            assert isinstance(outcome, Done) == (entry.due > self.now)
            if not isinstance(outcome, Done):
                continue
            if verb in ("ack", "dead"):
                self.queues[name].remove(entry)
                if verb == "dead":
                    self.dead[name].append(entry.name)
            elif verb == "extend":
                entry.due = self.now + 5.0
                continue
            else:
                entry.due = self.now + (5.0 if verb == "nack" else 0.0)
                entry.attempts -= verb == "release"
            assert entry.leased
            self.lost.append(entry.leased)
            entry.leased = None

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    @rule(jump=st.sampled_from([-1e6, 1e6]))
    def move_the_wall_clock(self, jump: float) -> None:
        self.wall += jump

    @rule()
    def restart(self) -> None:
        self.broker.close()
        self.broker = self.connect()

    @rule(which=st.integers(0, 1))
    def bury(self, which: int) -> None:
        place = self.places[which]
        subscriber = self.broker.open_subscriber(DeadLetters(place))
        letters = subscriber.receive(100, 0.0).messages
        assert sorted(each.body.decode() for each in letters) == sorted(self.dead[place.name])
        subscriber.settle("release", letters[:-1], timeout=5.0)
        subscriber.settle("ack", letters[-1:], timeout=5.0)
        if letters:
            self.dead[place.name].remove(letters[-1].body.decode())

    @invariant()
    def nothing_is_kept_without_its_event(self) -> None:
        if not hasattr(self, "broker"):
            return
        orphans = self.broker._store.read(
            "SELECT count(*) FROM deliveries d LEFT JOIN events e ON e.id = d.event WHERE e.id IS NULL"
        )
        assert orphans == [(0,)]
        twins = self.broker._store.read(
            "SELECT place, key FROM deliveries WHERE key IS NOT NULL AND due IS NOT NULL GROUP BY 1, 2 "
            "HAVING count(*) > 1"
        )
        assert twins == []


Broker.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBroker = Broker.TestCase
