"""The same connection in tasks: what is left behind, what is cancelled, and several event loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest

from cloudevents_bridge import Topic, aio
from cloudevents_bridge.driver import PublisherDriver, SubscriberDriver, Verb
from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_contract.bench import Bench, keys, together
from cloudevents_bridge_contract.faulty import Of, Outcomes, Shim, To
from cloudevents_bridge_contract.suite.life import _more, _open_files, _threads

T = TypeVar("T")
AT_ONCE = 2.0
"""Seconds within which a cancelled task has to go on, on a busy machine too."""
POOLS = {"ceb-aio-send": 8, "ceb-aio-settle": 4, "ceb-aio-call": 4, "ceb-aio-close": 1}
"""The threads of one AsyncBroker, at most."""


def in_tasks(bench: Bench, *topics: Topic, shim: Shim | None = None, **options: Any) -> aio.AsyncBroker:
    """A connection for tasks, closed with the case."""
    broker: Any = bench.broker(*topics, shim=shim, **options)
    return broker._real if bench.rig.in_tasks else aio.AsyncBroker(broker)


async def eventually(bench: Bench, check: Callable[[], T], what: str) -> T:
    """The first true value that `check` gives; fails after the rig's patience."""
    deadline = time.monotonic() + bench.rig.patience
    while not (value := check()):
        assert time.monotonic() < deadline, f"it did not happen in time: {what}"
        await asyncio.sleep(0.005)
    return value


async def gathered(bench: Bench, subscriber: aio.AsyncSubscriber, count: int) -> list[aio.AsyncDelivery]:
    """So many deliveries."""
    found: list[aio.AsyncDelivery] = []
    deadline = time.monotonic() + bench.rig.patience
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} events arrived in time"
        found += await subscriber.receive(count - len(found), wait=1.0)
    return found


async def cancel(work: Awaitable[object]) -> bool:
    """Cancel it once it waits. Gives whether it was cancelled; it has to end at once."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.02)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=AT_ONCE)
    assert done, "a cancelled call did not return"
    return task.cancelled()


class Stuck(Shim):
    """Answers no send, and no ack, before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Any], timeout: float) -> Outcomes:
        self.go.wait(60)
        return inner.send(batch, timeout=timeout)

    def settle(self, inner: SubscriberDriver, of: Of, verb: Verb, messages: Sequence[Any], **options: Any) -> Outcomes:
        if verb == "ack":
            self.go.wait(60)
        return inner.settle(verb, messages, **options)


class AsyncioLifeCases:
    def test_asyncio_closing_leaves_nothing(self, bench: Bench) -> None:
        topic = bench.topic(2)

        async def use() -> set[Any]:
            async with in_tasks(bench, topic) as broker:
                await broker.ping()
                async with broker.publisher(topic.name) as publisher:
                    await publisher.publish_many(bench.events(3))
                    await (await publisher.submit(bench.event()))
                async with broker.subscriber(topic.name, topic.subscriptions[0].name) as subscriber:
                    for delivery in await gathered(bench, subscriber, 2):
                        await delivery.ack()
                    waiting = asyncio.create_task(subscriber.receive(10, wait=60))
                async for delivery in broker.subscriber(topic.name, topic.subscriptions[1].name):
                    await delivery.dead_letter("the case wants it dead")
                    break
                letters = broker.dead_letters(topic.name, topic.subscriptions[1].name)
                assert [letter.reason async for letter in letters.find()]
                worker = broker.worker().add(topic.name, topic.subscriptions[1].name, _nothing)
                async with worker:
                    await eventually(bench, lambda: worker.stats.handled == 3, "three events are handled")
                await asyncio.wait([waiting])
                assert waiting.exception() is None or isinstance(waiting.exception(), ClosedError)
            await asyncio.sleep(0)
            return asyncio.all_tasks() - {asyncio.current_task()}

        before = _threads()
        asyncio.run(use())  # whatever is made once per process is there now
        bench.eventually(lambda: not _ours(_threads() - before), "the threads end", patience=5.0)
        threads, files = _threads(), _open_files()
        assert asyncio.run(use()) == set(), "tasks were left"
        bench.eventually(lambda: _threads() <= threads, "the threads end")
        bench.eventually(lambda: not _more(files, _open_files()), "files and sockets are closed")

    def test_asyncio_threads_are_those_documented(self, bench: Bench) -> None:
        topic = bench.topic(2)
        idle = 10

        async def use() -> None:
            before = _threads()
            broker = in_tasks(bench, topic)
            subscribers = [broker.subscriber(topic.name, topic.subscriptions[1].name) for _ in range(idle)]
            waiting = [asyncio.create_task(each.receive(wait=60)) for each in subscribers for _ in range(5)]
            busy = broker.subscriber(topic.name, topic.subscriptions[0].name)
            await asyncio.gather(*(broker.publish(topic.name, event) for event in bench.events(40)))
            deliveries = await gathered(bench, busy, 40)
            await asyncio.gather(*(delivery.ack() for delivery in deliveries))
            names = [thread.name for thread in _threads() - before]
            for pool, most in POOLS.items():
                assert names.count(pool) <= most, f"{names.count(pool)} threads {pool}, where {most} are documented"
            receiving = len([name for name in names if name.startswith("ceb-receive")])
            assert receiving <= idle + 1, f"{receiving} threads receive for {idle + 1} subscribers"
            allowed = sum(POOLS.values()) + (idle + 1) * (1 + bench.rig.threads_to_receive) + bench.rig.threads_to_send
            assert len(names) <= allowed + 8, f"{len(names)} threads: {names}"
            await broker.close()
            await asyncio.gather(*waiting)

        asyncio.run(use())

    def test_asyncio_cancellation_is_prompt(self, bench: Bench) -> None:
        topic = bench.topic()
        stuck = Stuck()

        async def use() -> None:
            broker = in_tasks(bench, topic, shim=stuck)
            publisher = broker.publisher(topic.name, max_buffered=1)
            assert await cancel(broker.publish(topic.name, bench.event()))
            assert await cancel(broker.publish_many(topic.name, bench.events(3)))
            await publisher.submit(bench.event())
            assert await cancel(publisher.submit(bench.event()))
            assert await cancel(publisher.flush())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await broker.publish(topic.name, bench.event())
            idle = broker.subscriber(topic.name, topic.subscriptions[0].name)
            assert await cancel(idle.receive(wait=60))
            assert await cancel(publisher.close())
            assert await cancel(broker.close())
            stuck.go.set()
            await broker.close()

        before = _threads()
        try:
            asyncio.run(use())
        finally:
            stuck.go.set()
        bench.eventually(lambda: _threads() <= before, "the threads end")

    def test_asyncio_cancelled_settle_is_made(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(20)))
        stuck = Stuck()

        async def use() -> None:
            broker = in_tasks(bench, topic, shim=stuck)
            subscriber = broker.subscriber(topic.name, topic.subscriptions[0].name)
            acks = [asyncio.create_task(each.ack()) for each in await gathered(bench, subscriber, len(events))]
            await asyncio.sleep(0)  # each has begun, and most wait for a thread
            for ack in acks:
                ack.cancel()
            done, _ = await asyncio.wait(acks, timeout=AT_ONCE)
            assert len(done) == len(acks), "a cancelled ack did not return"
            stuck.go.set()
            await broker.close()

        try:
            asyncio.run(use())
        finally:
            stuck.go.set()
        bench.nothing(bench.subscriber(topic), 0.3, "its ack was begun")

    def test_asyncio_task_cancelled_in_its_block_gives_back(self, bench: Bench) -> None:
        topic = bench.topic(lease=4 * bench.rig.patience)
        bench.publish(topic, *(events := bench.events(5)))

        async def handle(delivery: aio.AsyncDelivery) -> None:
            async with delivery:
                await asyncio.sleep(60)

        async def use() -> None:
            async with in_tasks(bench, topic) as broker:
                subscriber = broker.subscriber(topic.name, topic.subscriptions[0].name)
                for delivery in await gathered(bench, subscriber, 5):
                    assert await cancel(handle(delivery))

        asyncio.run(use())
        assert sorted(keys(bench.gather(bench.subscriber(topic), 5))) == sorted(keys(events))

    def test_asyncio_several_loops_share_a_connection(self, bench: Bench) -> None:
        topic = bench.topic()
        broker = in_tasks(bench, topic)
        subscriber = broker.subscriber(topic.name, topic.subscriptions[0].name)
        events = [bench.events(20) for _ in range(3)]
        got: list[str] = []

        async def use(mine: list[Any]) -> None:
            for event in mine:
                await broker.publish(topic.name, event)
            deadline = time.monotonic() + bench.rig.patience
            while len(set(got)) < 60 and time.monotonic() < deadline:
                for delivery in await subscriber.receive(5, wait=0.2):
                    await delivery.ack()
                    got.append(delivery.event.id)

        together([lambda mine=mine: asyncio.run(use(mine)) for mine in events])  # type: ignore[misc]
        bench.each_once(got, [event.id for mine in events for event in mine])
        asyncio.run(broker.close())


def _nothing() -> None:
    pass


def _ours(threads: set[threading.Thread]) -> list[str]:
    return [thread.name for thread in threads if thread.name.startswith("ceb-")]
