"""Deliveries that seem to have ended the processes that ran them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from scripted import Scripted, event, until, work_off

from cloudevents_bridge import Broker, CloudEvent, RetryPolicy, Subscription, Topic

Opened = Callable[..., Broker]
FAST = RetryPolicy(initial=0.0, maximum=0.0)


@pytest.mark.parametrize("ordered", [False, True])
def test_one_runs_alone_after_all_else_is_settled(opened: Opened, scripted: Scripted, ordered: bool) -> None:
    topic = Topic("orders", ordered=ordered, subscriptions=[Subscription("billing", redelivery=FAST, max_attempts=3)])
    in_hand: dict[str, int] = {}
    running = threading.Semaphore(0)
    go_on = threading.Event()

    def handle(event: CloudEvent) -> None:
        in_hand[event.id] = len(scripted.out)
        if event.id.startswith("suspect"):
            running.release()
            assert go_on.wait(10)

    for n in range(300):
        scripted.put(event(str(n), key=str(n % 7) if ordered else None))
    scripted.put(event("suspect-1", key="0" if ordered else None), attempt=4)
    scripted.put(event("suspect-2", key="0" if ordered else None), attempt=4)
    for n in range(300, 400):
        scripted.put(event(str(n), key="0" if ordered else None))
    with opened(topics=[topic]).worker().add("orders", "billing", handle, concurrency=3) as working:
        assert running.acquire(timeout=10)
        receives = scripted.calls["receive"]
        assert working.stats.in_flight == 1
        assert scripted.calls["receive"] == receives
        go_on.set()
        until(lambda: working.stats.handled == 402)
    assert (in_hand["suspect-1"], in_hand["suspect-2"]) == (1, 1)


def test_one_that_fails_is_dead_lettered_as_any_other(opened: Opened, scripted: Scripted) -> None:
    def handle(event: CloudEvent) -> None:
        raise ValueError

    topic = Topic("orders", subscriptions=[Subscription("billing", redelivery=FAST, max_attempts=3)])
    scripted.put(event(), attempt=7)
    opened(topics=[topic]).worker().add("orders", "billing", handle).run(until_idle=0.05)
    assert scripted.verbs() == ["dead"]


def test_one_that_ended_too_many_is_dead_lettered_without_a_run(opened: Opened, scripted: Scripted) -> None:
    topic = Topic("orders", subscriptions=[Subscription("billing", redelivery=FAST, max_attempts=3)])
    scripted.put(event("bad"), attempt=10)
    scripted.put(event("good"))
    seen: list[str] = []
    stats = work_off(opened(topics=[topic]).worker().add("orders", "billing", lambda e: seen.append(e.id)), scripted)
    assert seen == ["good"]
    assert (stats.handled, stats.dead_lettered) == (1, 1)
