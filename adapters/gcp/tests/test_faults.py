"""Faults on the way to Pub/Sub: what was accepted arrives, what was refused does not, and a key keeps its order."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from pubsub_running import Refusal, Running

from cloudevents_bridge import Broker, CloudEvent, PublishError, RetryPolicy, Subscription, Topic
from cloudevents_bridge_contract import storm
from cloudevents_bridge_contract.emulators.process import wait_until
from cloudevents_bridge_contract.emulators.proxy import Proxy
from cloudevents_bridge_contract.suite.traps import receive_unless_closed
from cloudevents_bridge_gcp import rpc

Opened = Callable[..., Broker]
ONCE = RetryPolicy(attempts=1)
PATIENT = RetryPolicy(attempts=None, initial=0.05, maximum=0.5)


def event(id: str, key: str | None = None) -> CloudEvent:
    return CloudEvent(type="com.example.test", source="/test", id=id, data="x" * 100, partitionkey=key)


def _hold(proxy: Proxy) -> None:
    with proxy.hold():
        threading.Event().wait(0.4)  # longer than a request may take


def _every_third_unavailable(monkeypatch: pytest.MonkeyPatch, *methods: rpc.Method) -> list[str]:
    """Of the requests every third fails, in turns before and after the service did what was asked."""
    call, numbers, failed = rpc.Rpc.call, itertools.count(1), list[str]()

    def failing(self: rpc.Rpc, method: rpc.Method, request: Any, *, timeout: float) -> Any:
        number = next(numbers) if method in methods else 1
        if number % 3:
            return call(self, method, request, timeout=timeout)
        if number % 2:
            call(self, method, request, timeout=timeout)
        failed.append(method.path)
        error = Refusal(grpc.StatusCode.UNAVAILABLE, "try again")
        raise rpc.explain(method, request, error) from error

    monkeypatch.setattr(rpc.Rpc, "call", failing)
    return failed


@pytest.mark.parametrize("fault", ["reset", "delay", "unavailable"])
def test_nothing_is_lost_or_told_falsely(
    emulator: Running, opened: Opened, name: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Without retries, so that each failure is told; a publish ends accepted, refused or unknown."""
    billing = Subscription("billing", lease=2.0, max_attempts=30)
    broker = opened(Topic(name, subscriptions=[billing]), retry=ONCE)
    handled: set[str] = set()
    worker = broker.worker().add(name, "billing", lambda event: handled.add(event.id), concurrency=4)
    accepted, refused, unknown = set[str](), set[str](), set[str]()
    storms: Any = {
        "reset": lambda: storm.repeatedly(emulator.proxy.cut, 0.1),
        "delay": lambda: storm.repeatedly(lambda: _hold(emulator.proxy), 0.2),
        "unavailable": lambda: storm.repeatedly(lambda: None, 1.0),
    }
    if fault == "unavailable":
        _every_third_unavailable(monkeypatch, rpc.PUBLISH, rpc.ACK)
    with worker:
        with storms[fault]():
            until = time.monotonic() + 2  # and forty rounds at least
            for round in itertools.takewhile(lambda n: n < 40 or time.monotonic() < until, itertools.count()):
                sent = [event(f"{round}-{n}") for n in range(10)]
                try:
                    broker.publish_many(name, sent, timeout=0.3)
                    failed = {}
                except PublishError as error:
                    failed = {each.id: why.maybe_applied for each, why in error.failed}
                accepted |= {each.id for each in sent if each.id not in failed}
                refused |= {id for id, maybe in failed.items() if not maybe}
                unknown |= {id for id, maybe in failed.items() if maybe}
        assert unknown or refused, "nothing was disturbed"
        assert accepted, "nothing came through"
        wait_until(lambda: accepted <= handled, 20)
    print(f"{fault}: {len(accepted)} accepted, {len(refused)} refused, {len(unknown)} unknown")
    lost, falsely_refused = accepted - handled, refused & handled
    assert (len(lost), len(falsely_refused)) == (0, 0), f"lost {lost}, refused and there {falsely_refused}"


def test_a_key_keeps_its_order_over_failures_and_goes_on_after_them(
    opened: Opened, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = Topic(name, ordered=True, subscriptions=[Subscription("billing", lease=30.0)])
    broker = opened(topic, retry=PATIENT, batch_bytes=1_000)
    handled: list[str] = []
    failed = _every_third_unavailable(monkeypatch, rpc.PUBLISH)
    events = [event(f"{key}-{n}", key) for n in range(30) for key in "ab"]
    broker.publish_many(name, events, timeout=60)
    assert len(failed) > 3, "the requests were not many enough to fail"
    with broker.worker().add(name, "billing", lambda event: handled.append(event.id)):
        assert wait_until(lambda: len(set(handled)) == 60, 20), f"{len(set(handled))} of 60 events were handled"
    first = list(dict.fromkeys(handled))
    for key in "ab":
        assert [id for id in first if id.startswith(key)] == [each.id for each in events if each.partitionkey == key]


def test_of_a_key_that_fails_the_rest_is_not_sent_and_the_next_call_resumes_it(
    opened: Opened, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = Topic(name, ordered=True, subscriptions=[Subscription("billing", lease=30.0)])
    broker = opened(topic, retry=ONCE, batch_bytes=1_000)
    events = [event(f"{n}", "k") for n in range(12)]
    with monkeypatch.context() as patch:
        _every_third_unavailable(patch, rpc.PUBLISH)
        with pytest.raises(PublishError) as caught:
            broker.publish_many(name, events)
    missing = [each for each, _ in caught.value.failed]
    assert 0 < len(missing) < 12
    assert missing == events[-len(missing) :], "an event of the key was sent past one that failed"
    broker.publish_many(name, missing)
    handled: list[str] = []
    with broker.worker().add(name, "billing", lambda event: handled.append(event.id)):
        assert wait_until(lambda: len(set(handled)) == 12, 20)
    assert list(dict.fromkeys(handled)) == [each.id for each in events]


def test_a_closed_subscriber_takes_nothing_any_more(opened: Opened, name: str) -> None:
    """The lease is far longer than the test: what a forgotten pull took would not come."""
    subscriptions = [Subscription("billing", lease=60.0), Subscription("witness", lease=60.0)]
    broker = opened(Topic(name, subscriptions=subscriptions))
    for _ in range(3):
        subscriber = broker.subscriber(name, "billing")
        waiting = threading.Thread(target=receive_unless_closed, args=(subscriber, 30.0))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive(), "the receive did not wait"
        subscriber.close()
        waiting.join(10)
    with broker.subscriber(name, "billing") as asking:
        assert asking.receive(wait=0) == []  # on the same connection: the broker has read that the pulls were cancelled
    with broker.subscriber(name, "witness") as witness, ThreadPoolExecutor(1) as pool:
        witnessed = pool.submit(witness.receive, wait=20)
        broker.publish_many(name, [event(str(n)) for n in range(100)])
        assert witnessed.result(), "no pull that waited was given anything"  # so a forgotten one was, too
    got: set[str] = set()
    with broker.subscriber(name, "billing") as fresh:

        def all_here() -> bool:
            deliveries = fresh.receive(100, wait=1)
            fresh.ack_many(deliveries)
            got.update(delivery.event.id for delivery in deliveries)
            return len(got) == 100

        assert wait_until(all_here, 10), f"{100 - len(got)} of 100 events were taken by pulls of closed subscribers"


def test_tasks_publish_and_consume(emulator: Running, opened: Opened, name: str) -> None:
    import asyncio

    from cloudevents_bridge import aio

    topic = Topic(name, ordered=True, subscriptions=["billing"])
    opened(topic)

    async def work() -> list[str]:
        async with aio.connect(emulator.url, topics=[topic]) as broker:
            await broker.publish_many(name, [event(str(n), "k") for n in range(20)])
            got: list[str] = []
            async with broker.subscriber(name, "billing") as subscriber:
                while len(got) < 20:
                    for delivery in await subscriber.receive(10, wait=10):
                        got.append(delivery.event.id)
                        await delivery.ack()
            return got

    assert asyncio.run(asyncio.wait_for(work(), 60)) == [str(n) for n in range(20)]
