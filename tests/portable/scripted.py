"""A broker that does as the test says: what it is asked is recorded, and what it answers can be replaced."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar

import msgspec

from cloudevents_bridge import Worker, driver
from cloudevents_bridge.bindings import STRUCTURED
from cloudevents_bridge.driver import (
    DEAD_LETTER,
    Capability,
    Change,
    Done,
    Fault,
    Inbound,
    Outbound,
    Received,
    ReceiveTraits,
    SendTraits,
)
from cloudevents_bridge.errors import ErrorCode, UnsupportedError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.faults import place_name
from cloudevents_bridge.stats import Stats

Outcome = Done | Fault
Place = driver.Topic | driver.Subscription | driver.DeadLetters
SOON = 10.0
"""Seconds that something may take on a busy machine."""


def busy(*, maybe_applied: bool = False, after: float | None = None) -> Fault:
    return Fault(ErrorCode.UNAVAILABLE, retryable=True, maybe_applied=maybe_applied, retry_after=after, message="busy")


def refused(code: ErrorCode = ErrorCode.PERMISSION_DENIED) -> Fault:
    return Fault(code, retryable=False, maybe_applied=False, message="refused")


Made = TypeVar("Made")


class NativeError(Exception):
    """What the SDK of the scripted broker raises."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def until(true: Callable[[], Any]) -> None:
    """Wait for it, not for long."""
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def work_off(worker: Worker, scripted: Scripted) -> Stats:
    """Have it work until all that there was is settled: how long it was idle says little on a busy machine."""
    with worker:
        until(scripted.settled)
    return worker.stats


def event(id: str = "1", key: str | None = None, data: object = None) -> CloudEvent:
    return CloudEvent(type="com.example.test", source="/test", id=id, partitionkey=key, data=data, time=None)


class Sent(NamedTuple):
    place: str
    batch: list[Outbound]

    @property
    def ids(self) -> list[str]:
        return [STRUCTURED.decode(message.attributes, message.body).id for message in self.batch]


class Settled(NamedTuple):
    verb: str
    ids: list[str]
    seconds: float
    reason: str


class Scripted:
    """The adapter, and the broker behind its connections."""

    query: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset({"secret"})

    def __init__(self) -> None:
        self.capabilities = frozenset(Capability) - {Capability.FILTER}
        self.send_traits = SendTraits(10, 100_000, 10_000, "one_each")
        self.receive_traits = ReceiveTraits(
            batch_count=10,
            settle_count=10,
            receives=1,
            wait=(0.0, 20.0),
            stop_within=0.1,
            nack_delay=0.0,
            lease_total=3600.0,
            removes_after=None,
            settle="each",
            free_release=True,
            dead=True,
        )
        self.direct = True
        self.lease = 60.0
        self.on_send: Callable[[Sent, float], Sequence[Outcome]] = lambda sent, timeout: [
            Done(str(next(self.numbers))) for _ in sent.batch
        ]
        self.on_settle: Callable[[Settled], Sequence[Outcome] | None] = lambda settled: None
        self.on_receive: Callable[[], None] = lambda: None
        self.on_apply: Callable[[Sequence[Change]], None] = lambda changes: None
        self.sends: list[Sent] = []
        self.settles: list[Settled] = []
        self.calls: Counter[str] = Counter()
        self.waits: list[float] = []
        self.changed = threading.Condition()
        self.queues: dict[str, deque[Inbound]] = {}
        self.out: dict[int, tuple[str, Inbound]] = {}
        self.exists: set[str] = set()
        self.conflicts: dict[str, Change] = {}
        self.numbers = count(1)
        self.lost: list[str] = []
        self.receiving = 0
        self.most_sending = 0
        self._sending = 0
        self.opened: list[Any] = []

    def __call__(self, url: driver.Url, options: Mapping[str, Any]) -> ScriptedConnection:
        return ScriptedConnection(self)

    def put(
        self,
        what: CloudEvent | bytes,
        *,
        place: str = "subscription orders/billing",
        attempt: int | None = 1,
        attributes: Mapping[str, str] = {},
        stream: str | None = None,
    ) -> None:
        """Put a message into a place that is consumed from."""
        made: Mapping[str, str] = {}
        body, key = what, None
        if isinstance(what, CloudEvent):
            made, body = STRUCTURED.encode(what)
            key = what.partitionkey
        assert isinstance(body, bytes)
        self._put(place, Outbound(body, {**made, **attributes}, key), attempt, stream)

    def _put(self, place: str, message: Outbound, attempt: int | None = 1, stream: str | None = None) -> None:
        with self.changed:
            number = next(self.numbers)
            inbound = Inbound(
                message.body, message.attributes, number, self.lease, attempt, message.key, stream, f"native-{number}"
            )
            self.queues.setdefault(place, deque()).append(inbound)
            self.changed.notify_all()

    def lose(self, stream: str) -> None:
        """Take a stream away from whoever receives."""
        with self.changed:
            self.lost.append(stream)
            self.changed.notify_all()

    def verbs(self) -> list[str]:
        return [settled.verb for settled in self.settles]

    def sent_ids(self) -> list[str]:
        return [id for sent in self.sends for id in sent.ids]

    def left(self, place: str = "subscription orders/billing") -> int:
        """Messages that are there for the next consumer."""
        with self.changed:
            return len(self.queues.get(place, ()))

    def settled(self, place: str = "subscription orders/billing") -> bool:
        """Whether nothing is there for a consumer, and none has anything in hand."""
        with self.changed:
            return not (self.queues.get(place) or self.out)

    def letters(self) -> list[Inbound]:
        with self.changed:
            return list(self.queues.get("dead letters of orders/billing", ()))


class ScriptedPublisher:
    def __init__(self, broker: Scripted, to: Place) -> None:
        self.broker = broker
        self.place = place_name(to)
        self.to = to
        self.traits = broker.send_traits
        self.closed = 0

    def size(self, message: Outbound) -> int:
        return len(message.body) + sum(len(k) + len(v.encode()) for k, v in message.attributes.items())

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Outcome]:
        broker = self.broker
        sent = Sent(self.place, list(batch))
        with broker.changed:
            broker.calls["send"] += 1
            broker.sends.append(sent)
            broker._sending += 1
            broker.most_sending = max(broker.most_sending, broker._sending)
            broker.changed.notify_all()
        try:
            outcomes = broker.on_send(sent, timeout)
        finally:
            with broker.changed:
                broker._sending -= 1
        for message, outcome in zip(batch, outcomes, strict=False):
            if isinstance(outcome, Done):
                self._route(message)
        return outcomes

    def _route(self, message: Outbound) -> None:
        if isinstance(self.to, driver.Topic):
            for place in [p for p in self.broker.exists if p.startswith(f"subscription {self.to.name}/")]:
                self.broker._put(place, message)
        else:
            self.broker._put(self.place, message)

    def close(self) -> None:
        self.closed += 1


class ScriptedSubscriber:
    def __init__(self, broker: Scripted, of: Place) -> None:
        self.broker = broker
        self.of = of
        self.place = place_name(of)
        self.traits = broker.receive_traits
        if isinstance(of, driver.DeadLetters):
            self.traits = msgspec.structs.replace(self.traits, dead=False)
        self.stopped = False
        self.closed = 0

    def receive(self, max_messages: int, wait: float) -> Received:
        broker = self.broker
        with broker.changed:
            broker.calls["receive"] += 1
            broker.waits.append(wait)
            broker.receiving += 1
            try:
                broker.on_receive()
                queue = broker.queues.setdefault(self.place, deque())
                broker.changed.wait_for(lambda: queue or broker.lost or self.stopped, wait)
                taken: list[Inbound] = []
                while queue and len(taken) < max_messages and not self.stopped:
                    inbound = queue.popleft()
                    broker.out[inbound.handle] = (self.place, inbound)
                    taken.append(inbound)
                lost, broker.lost = broker.lost, []
                return Received(taken, lost)
            finally:
                broker.receiving -= 1

    def settle(
        self, verb: driver.Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Outcome]:
        broker = self.broker
        ids = []
        for message in messages:
            try:
                ids.append(STRUCTURED.decode(message.attributes, message.body).id)
            except ValueError:
                ids.append("?")
        settled = Settled(verb, ids, seconds, reason)
        with broker.changed:
            broker.calls[verb] += 1
            broker.settles.append(settled)
            broker.changed.notify_all()
        outcomes = broker.on_settle(settled)
        if outcomes is None:
            outcomes = [Done(lease=seconds)] * len(messages)
        for message, outcome in zip(messages, outcomes, strict=False):
            if isinstance(outcome, Done) and verb != "extend":
                self._done(verb, message, reason)
        return outcomes

    def _done(self, verb: driver.Verb, message: Inbound, reason: str) -> None:
        broker = self.broker
        with broker.changed:
            broker.out.pop(message.handle, None)
            if verb in ("nack", "release"):
                spent = 1 if verb == "nack" else 0
                again = msgspec.structs.replace(message, attempt=(message.attempt or 1) + spent)
                broker.queues[self.place].append(again)
            broker.changed.notify_all()
        if verb == "dead":
            assert isinstance(self.of, driver.Subscription)
            attributes = {**message.attributes, DEAD_LETTER: reason}
            broker._put(place_name(driver.DeadLetters(self.of)), Outbound(message.body, attributes, message.key))

    def stop(self) -> None:
        with self.broker.changed:
            self.stopped = True
            self.broker.changed.notify_all()

    def close(self) -> None:
        self.stop()
        self.closed += 1


class ScriptedTopology:
    def __init__(self, broker: Scripted) -> None:
        self.broker = broker

    def diff(self, wanted: Sequence[driver.Topic | driver.Subscription]) -> Sequence[Change]:
        self.broker.calls["diff"] += 1
        found = []
        for place in wanted:
            name = place_name(place)
            if name in self.broker.conflicts:
                found.append(self.broker.conflicts[name])
            elif name not in self.broker.exists:
                found.append(Change(place, "", None, "there"))
        return found

    def apply(self, changes: Sequence[Change]) -> None:
        self.broker.calls["apply"] += 1
        self.broker.on_apply(changes)
        self.broker.exists.update(place_name(change.place) for change in changes)

    def delete(self, place: Place) -> None:
        self.broker.calls["delete"] += 1
        self.broker.exists.discard(place_name(place))

    def export(self, format: str, wanted: Sequence[driver.Topic | driver.Subscription]) -> str:
        raise UnsupportedError(f"no {format}")

    def policy(self, role: str, wanted: Sequence[driver.Topic | driver.Subscription]) -> str:
        return f"{role}: {', '.join(place_name(place) for place in wanted)}"


class ScriptedConnection:
    wire = STRUCTURED

    def __init__(self, broker: Scripted) -> None:
        broker.calls["connect"] += 1
        self.broker = broker
        self.capabilities = broker.capabilities
        self.direct = broker.direct
        self.topology = ScriptedTopology(broker)
        self.native = broker
        self.closed = 0
        broker.opened.append(self)

    def open_publisher(self, to: Place) -> ScriptedPublisher:
        return self._keep(ScriptedPublisher(self.broker, to))

    def open_subscriber(self, of: driver.Subscription | driver.DeadLetters) -> ScriptedSubscriber:
        return self._keep(ScriptedSubscriber(self.broker, of))

    def _keep(self, made: Made) -> Made:
        self.broker.opened.append(made)
        return made

    def classify(self, error: BaseException) -> Fault:
        if isinstance(error, NativeError):
            return error.fault
        return Fault(
            ErrorCode.UNKNOWN, retryable=False, maybe_applied=False, message=f"{type(error).__name__}: {error}"
        )

    def ping(self, *, timeout: float) -> None:
        self.broker.calls["ping"] += 1

    def close(self) -> None:
        self.closed += 1
