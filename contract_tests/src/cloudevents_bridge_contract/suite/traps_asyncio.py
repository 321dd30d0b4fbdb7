"""What event loops are known to get wrong: events dropped by cancellation, acks starved by idle polls."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from cloudevents_bridge import Capability, aio
from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_contract.bench import Bench, keys
from cloudevents_bridge_contract.suite.life_asyncio import eventually, gathered, in_tasks
from cloudevents_bridge_contract.suite.traps import often_given_back, too_often_given_back

IDLE = 64
SLOWEST = 1.0
"""Seconds that 99 of 100 acks take at most."""


class Fickle:
    """A consumer that changes its mind while it receives. `got`: what it has acked."""

    def __init__(self, rng: random.Random) -> None:
        self.got: list[str] = []
        self._rng = rng

    async def receive(self, subscribers: list[aio.AsyncSubscriber]) -> None:
        """Begin to receive, and cancel that, let it time out or close the subscriber at a random instant."""
        subscriber = self._rng.choice(subscribers)
        instant = self._rng.choice([0.0, 0.0002, 0.001, 0.004])
        how = self._rng.choices(["cancel", "time out", "close"], [6, 3, 1])[0]
        receiving = asyncio.create_task(self._receive(subscriber, instant if how == "time out" else 60.0))
        await asyncio.sleep(instant)
        if how == "close":
            await subscriber.close()
        elif how == "cancel":
            receiving.cancel()
        await asyncio.wait([receiving])
        if how != "close":  # which gives back what came
            await self._settle(subscriber, receiving)

    async def cancel(self, subscriber: aio.AsyncSubscriber) -> None:
        """Begin to receive, and cancel that when it waits."""
        receiving = asyncio.create_task(self._receive(subscriber, 60.0))
        await asyncio.wait([receiving], timeout=0.02)
        receiving.cancel()
        await asyncio.wait([receiving])
        await self._settle(subscriber, receiving)

    async def _settle(self, subscriber: aio.AsyncSubscriber, received: asyncio.Task[list[aio.AsyncDelivery]]) -> None:
        if received.cancelled() or isinstance(received.exception(), (TimeoutError, ClosedError)):
            return
        if self._rng.random() < 0.7:
            await subscriber.ack_many(received.result())
            self.got += [delivery.event.id for delivery in received.result()]
        else:
            for delivery in received.result():
                await delivery.give_back()

    async def _receive(self, subscriber: aio.AsyncSubscriber, seconds: float) -> list[aio.AsyncDelivery]:
        async with asyncio.timeout(seconds):
            return await subscriber.receive(self._rng.randrange(1, 20), wait=60)


class AsyncioTrapCases:
    def test_asyncio_receive_cancelled_at_any_instant_loses_nothing(self, bench: Bench) -> None:
        """Cancelled, timed out or closed under: a fresh consumer has everything soon, not after a lease."""
        topic = often_given_back(bench, lease=120.0)
        name = topic.subscriptions[0].name
        events, last = bench.events(bench.many(300)), bench.events(bench.many(10))
        fickle = Fickle(random.Random(8))

        async def use() -> None:
            broker, publishing = in_tasks(bench, topic), in_tasks(bench, topic)
            subscribers: list[aio.AsyncSubscriber] = []
            instants = published = 0
            until = time.monotonic() + 5  # a thousand, or as many as a slow broker has in five seconds
            while instants < 1000 and time.monotonic() < until:
                subscribers = [each for each in subscribers if not each.closed]
                while len(subscribers) < 3:
                    subscribers.append(broker.subscriber(topic.name, name))
                waiting = fickle.receive(subscribers)
                if instants % 3 == 0 and published < len(events):
                    await asyncio.gather(waiting, publishing.publish(topic.name, events[published]))
                    published += 1
                else:
                    await waiting
                instants += 1
            await publishing.publish_many(topic.name, events[published:])
            # Those that were cancelled stay open: what comes for them yet must not wait for a lease, or for a close.
            for subscriber in subscribers:
                if not subscriber.closed:
                    await fickle.cancel(subscriber)
            await publishing.publish_many(topic.name, last)
            fresh = broker.subscriber(topic.name, name)
            began = came = time.monotonic()
            while len(set(fickle.got)) < len(events) + len(last):
                if time.monotonic() >= min(came + 2 + bench.rig.wakeup, began + 20):
                    break
                deliveries = await fresh.receive(100, wait=0.5)
                if deliveries:  # some brokers give one at a time; what waits for its lease comes later
                    came = time.monotonic()
                await fresh.ack_many(deliveries)
                fickle.got += [delivery.event.id for delivery in deliveries]

        asyncio.run(use())
        bench.each_once(fickle.got + too_often_given_back(bench, topic), keys([*events, *last]))

    def test_asyncio_idle_subscribers_and_a_slow_handler(self, bench: Bench) -> None:
        """64 idle polls, and a handler of three leases: it keeps its delivery, and nobody's ack waits for a poll."""
        lease = max(bench.lease, 2.0)  # what a busy machine does late is not what this is about
        slow, busy, idle = bench.topic(lease=lease), bench.topic(), bench.topic()
        took: list[float] = []

        async def handle(broker: aio.AsyncBroker, started: asyncio.Event) -> int:
            async for delivery in broker.subscriber(slow.name, slow.subscriptions[0].name):
                async with delivery:
                    started.set()
                    await asyncio.sleep(3 * lease)
                return delivery.attempt
            return 0

        async def ack(subscriber: aio.AsyncSubscriber, count: int) -> None:
            while count > 0:
                for delivery in await subscriber.receive(min(count, 10), wait=1.0):
                    begun = time.monotonic()
                    await delivery.ack()
                    took.append(time.monotonic() - begun)
                    count -= 1

        async def use() -> None:
            broker = in_tasks(bench, slow, busy, idle)
            subscribers = [broker.subscriber(idle.name, idle.subscriptions[0].name) for _ in range(IDLE)]
            waiting: list[asyncio.Task[Any]] = [asyncio.create_task(each.receive(wait=60)) for each in subscribers]
            event = bench.event()
            await broker.publish(slow.name, event)
            if Capability.EXTEND not in bench.capabilities:
                [delivery] = await gathered(bench, broker.subscriber(slow.name, slow.subscriptions[0].name), 1)
                bench.requires(Capability.EXTEND, lambda: delivery.sync.extend(lease))
            started = asyncio.Event()
            handling = asyncio.create_task(handle(broker, started))
            other = asyncio.create_task(_arrivals(broker, slow.name, slow.subscriptions[0].name, started, handling))
            await eventually(bench, started.is_set, "the handler runs")
            consumers = [broker.subscriber(busy.name, busy.subscriptions[0].name) for _ in range(4)]
            each = max(bench.many(200) // 4, 1)
            acking = [asyncio.create_task(ack(consumer, each)) for consumer in consumers]
            for one in bench.events(4 * each):
                await broker.publish(busy.name, one)
            await asyncio.wait_for(asyncio.gather(*acking), 3 * bench.rig.patience)
            assert await handling == 1, "the slow handler's event was delivered again"
            assert await other == [], "another consumer was given the slow handler's event"
            assert not any(task.done() for task in waiting), "an idle subscriber gave up"
            await broker.close()
            await asyncio.gather(*waiting)

        asyncio.run(use())
        took.sort()
        p99 = took[int(len(took) * 0.99)]
        assert p99 < SLOWEST, f"99 of 100 acks took up to {p99:.2f} s beside {IDLE} idle subscribers"


async def _arrivals(
    broker: aio.AsyncBroker, topic: str, subscription: str, begun: asyncio.Event, handling: asyncio.Task[int]
) -> list[str]:
    """What another consumer is given while the handler runs."""
    await begun.wait()
    arrived: list[str] = []
    subscriber = broker.subscriber(topic, subscription)
    while not handling.done():
        for delivery in await subscriber.receive(1, wait=0.1):
            arrived.append(delivery.event.id)
            await delivery.ack()
    return arrived
