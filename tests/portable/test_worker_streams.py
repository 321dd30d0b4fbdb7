"""A worker on a broker with streams: they are taken away, and an ack may cover all before it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from scripted import Scripted, event, until

from cloudevents_bridge import Broker, CloudEvent, Delivery, Reject, Retry, RetryPolicy, Subscription, Topic

Opened = Callable[..., Broker]
ORDERS = Topic("orders", subscriptions=[Subscription("billing", redelivery=RetryPolicy(initial=0.01, maximum=0.01))])


@pytest.fixture
def prefix(opened: Opened, scripted: Scripted) -> Broker:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, settle="prefix", dead=False)
    return opened(topics=[ORDERS])


class Gates:
    """A handler that is let go event by event."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.runs: list[str] = []
        self._open: dict[str, threading.Event] = {}

    def __call__(self, event: CloudEvent) -> None:
        self.runs.append(event.id)
        self.inside.add(event.id)
        assert self.gate(event.id).wait(10)
        self.inside.discard(event.id)

    def gate(self, id: str) -> threading.Event:
        return self._open.setdefault(id, threading.Event())

    def let_go(self, *ids: str) -> None:
        for id in ids:
            self.gate(id).set()


def acked(scripted: Scripted) -> list[str]:
    return [id for settled in scripted.settles if settled.verb == "ack" for id in settled.ids]


def test_an_ack_covers_a_prefix_so_it_waits_for_all_before_it(prefix: Broker, scripted: Scripted) -> None:
    gates = Gates()
    with prefix.worker().add("orders", "billing", gates, concurrency=4) as working:
        for n in range(4):
            scripted.put(event(str(n)), stream="one")
        scripted.put(event("other"), stream="two")
        until(lambda: gates.inside >= {"0", "1", "2", "3"})
        gates.let_go("2", "other", "1")
        until(lambda: "other" in acked(scripted))
        assert acked(scripted) == ["other"]
        gates.let_go("0")
        until(lambda: "2" in acked(scripted))
        assert acked(scripted) == ["other", "2"]
        gates.let_go("3")
        until(lambda: acked(scripted) == ["other", "2", "3"])
        until(lambda: working.stats.handled == 5)
    assert not [s for s in scripted.settles if s.verb in ("nack", "release")]


def test_a_retry_is_held_and_nothing_after_it_is_acked_before(prefix: Broker, scripted: Scripted) -> None:
    def handle(delivery: Delivery) -> None:
        if delivery.event.id == "0" and delivery.attempt == 1:
            raise Retry(0.05)

    for n in range(5):
        scripted.put(event(str(n)), stream="one")
    with prefix.worker().add("orders", "billing", handle) as working:
        until(lambda: acked(scripted)[-1:] == ["4"])
    assert (working.stats.handled, working.stats.failed) == (5, 1)
    assert set(scripted.verbs()) == {"ack"}


def test_a_dead_letter_is_copied_and_then_counts_as_done(prefix: Broker, scripted: Scripted) -> None:
    def handle(event: CloudEvent) -> None:
        if event.id == "1":
            raise Reject("bad")

    for n in range(3):
        scripted.put(event(str(n)), stream="one")
    with prefix.worker().add("orders", "billing", handle) as working:
        until(lambda: acked(scripted)[-1:] == ["2"])
    assert working.stats.dead_lettered == 1
    assert len(scripted.letters()) == 1
    assert "dead" not in scripted.verbs()


def test_by_hand_it_is_settled_in_its_turn_too(prefix: Broker, scripted: Scripted) -> None:
    runs: list[str] = []

    def handle(delivery: Delivery) -> None:
        runs.append(delivery.event.id)
        if delivery.event.id == "0" and delivery.attempt == 1:
            delivery.nack(delay=0.02)
        elif delivery.event.id == "1":
            delivery.dead_letter("by hand")
        else:
            delivery.ack()
        assert not acked(scripted) or delivery.event.id != "0"

    for n in range(3):
        scripted.put(event(str(n)), stream="one")
    with prefix.worker().add("orders", "billing", handle):
        until(lambda: acked(scripted)[-1:] == ["2"])
    assert sorted(runs) == ["0", "0", "1", "2"]
    assert len(scripted.letters()) == 1


def test_what_is_undone_when_it_stops_takes_what_follows_along(prefix: Broker, scripted: Scripted) -> None:
    gates = Gates()
    with prefix.worker(grace=0.1).add("orders", "billing", gates, concurrency=3):
        for n in range(3):
            scripted.put(event(str(n)), stream="one")
        until(lambda: gates.inside == {"0", "1", "2"})
        gates.let_go("1")
        until(lambda: gates.inside == {"0", "2"})
    assert acked(scripted) == []
    gates.let_go("0", "2")


def test_a_stream_that_is_taken_away_is_not_settled_and_async_runs_are_cancelled(
    opened: Opened, scripted: Scripted
) -> None:
    import asyncio

    cancelled: list[str] = []
    entered = threading.Semaphore(0)
    go_on: list[Any] = []

    async def handle(event: CloudEvent) -> None:
        gate = asyncio.Event()
        go_on.append((asyncio.get_running_loop(), gate))
        entered.release()
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append(event.id)
            raise

    with opened(topics=[ORDERS]).worker().add("orders", "billing", handle, concurrency=3):
        scripted.put(event("1"), stream="one")
        assert entered.acquire(timeout=10)
        scripted.put(event("2"), stream="two")
        assert entered.acquire(timeout=10)
        scripted.lose("one")
        until(lambda: cancelled == ["1"])
        loop, gate = go_on[1]
        loop.call_soon_threadsafe(gate.set)
        until(lambda: scripted.verbs() == ["ack"])
    assert [settled.ids for settled in scripted.settles] == [["2"]]
