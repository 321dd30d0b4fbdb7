"""Programs as users write them, for mypy --strict and pyright. Nothing here is run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_type

import cloudevents_bridge as ceb
from cloudevents_bridge.aio import AsyncBroker, AsyncDelivery, AsyncWorker
from cloudevents_bridge.errors import EventTooLargeError, NotFoundError
from cloudevents_bridge.middleware import MemoryStore, SQLiteStore, Store, idempotent, log, timing
from cloudevents_bridge.types import Action, Change, Decoder, Middleware, Stats, Topology, Value


@dataclass
class Order:
    id: int


billing = ceb.Subscription("billing", max_attempts=3, lease=30.0, redelivery=ceb.RetryPolicy(initial=1, maximum=60))
orders = ceb.Topic("orders", subscriptions=[billing, "shipping"], ordered=True, native={"kms_key": "alias/orders"})


def publish(broker: ceb.Broker) -> None:
    event = ceb.CloudEvent(
        type="com.example.order.created",
        source="/shop",
        data={"id": 7},
        time=datetime.now(UTC),
        partitionkey="7",
        extensions={"traceparent": "00-0-0-00", "sampledrate": 1},
    )
    assert_type(broker.publish("orders", event, delay=5, timeout=2.5), ceb.Receipt)
    assert_type(broker.publish_many("orders", (event for _ in range(3))), list[ceb.Receipt])
    with broker.publisher("orders", linger=0.1, max_buffered=100, on_full="raise") as publisher:
        assert_type(publisher, ceb.Publisher)
        assert_type(publisher.submit(event), Future[ceb.Receipt])
        publisher.flush(timeout=5)
    try:
        broker.publish_many("orders", [event])
    except ceb.PublishError as error:
        for failed, why in error.failed:
            assert_type(failed, ceb.CloudEvent)
            assert_type(why, ceb.BridgeError)
        for outcome in error.outcomes:
            assert_type(outcome, ceb.Receipt | ceb.BridgeError)
            if isinstance(outcome, ceb.Receipt):
                print(outcome.event_id, outcome.native_id, outcome.sequence)
            elif isinstance(outcome, EventTooLargeError) or outcome.retryable:
                print(outcome.code, outcome.retry_after, outcome.broker)


def consume(broker: ceb.Broker) -> None:
    with broker.subscriber("orders", "billing", foreign=[from_line]) as subscriber:
        deliveries = subscriber.receive(max_events=10, wait=20)
        assert_type(deliveries, list[ceb.Delivery])
        for delivery in deliveries:
            with delivery as event:
                assert_type(event, ceb.CloudEvent)
                assert_type(event.data_as(Order), Order)
                assert_type(event.data_bytes, bytes | None)
                if event.subject is None:
                    raise ceb.Retry(delay=5.0)
                raise ceb.Reject("no subject")
        for delivery in subscriber:
            assert_type(delivery.attempt, int)
            if delivery.lease_lost:
                continue
            delivery.extend(30)
            if delivery.attempt > 2:
                delivery.dead_letter("tried twice")
            else:
                delivery.nack(delay=1)
        try:
            subscriber.ack_many(deliveries)
        except ceb.SettleError as settle_error:
            for unsettled, why in settle_error.failed:
                assert_type(unsettled, ceb.Delivery)
                assert_type(why, ceb.BridgeError)


def from_line(raw: ceb.RawMessage) -> ceb.CloudEvent | None:
    value: Value | None = raw.attributes.get("kind")
    if value != "line":
        return None
    return ceb.CloudEvent(type="com.example.line", source="/lines", data=raw.body)


decoder: Decoder = from_line


def timed(delivery: ceb.Delivery, call_next: Callable[[ceb.Delivery], None]) -> None:
    call_next(delivery)


stores: list[Store] = [MemoryStore(most=10), SQLiteStore("done.db")]
once = idempotent(stores[0], key=lambda event: event.subject or event.id, ttl=3600)
middleware: list[Middleware] = [timed, log, timing(lambda kind, seconds, outcome: None, max_types=9), once]
unmatched: Action = "nack"
router = ceb.Router(middleware=middleware, unmatched=unmatched)
shipping = ceb.Router()


@router.on("com.example.order.created", "com.example.order.changed.*")
def bill(order: Order, delivery: ceb.Delivery) -> int:
    return order.id


@shipping.on("*")
async def ship(event: ceb.CloudEvent) -> None:
    print(event.id)


@once.batch
def bill_many(deliveries: list[ceb.Delivery]) -> None:
    print(len(deliveries))


def route(event: ceb.CloudEvent, delivery: ceb.Delivery) -> None:
    router.include(shipping)
    router.handle(event)
    router.handle(delivery)
    assert_type(bill(Order(7), delivery), int)


async def await_handler(event: ceb.CloudEvent) -> None:
    await ship(event)


def operate(broker: ceb.Broker) -> Iterator[str]:
    letters = broker.dead_letters("orders", "billing")
    for letter in letters.find(type="com.example.*", since=datetime.now(UTC), limit=5):
        assert_type(letter, ceb.DeadLetter)
        yield f"{letter.id} {letter.reason} {letter.event.type if letter.event else letter.raw.body!r}"
    assert_type(letters.replay(letters.find(), rate=10), list[ceb.Receipt])
    assert_type(letters.purge(["0123456789abcdef"]), int)
    topology: Topology = broker.topology
    assert_type(topology.plan(), list[Change])
    for change in topology.apply(orders):
        yield f"{change.action} {change.kind} {change.name}: {change.detail}"
    yield topology.export("terraform")
    yield topology.policy("consumer", orders)


def main() -> None:
    with ceb.connect(
        "sqlite:///events.db",
        topics=[orders],
        requires=["ordering", ceb.Capability.DELAY],
        create_missing=True,
        retry=ceb.RetryPolicy(attempts=None),
        timeout=10,
    ) as broker:
        assert_type(broker, ceb.Broker)
        assert_type(broker.url, str)
        assert_type(broker.capabilities, frozenset[ceb.Capability])
        publish(broker)
        consume(broker)
        print(*operate(broker))
        try:
            broker.ping(timeout=1)
        except NotFoundError as error:
            print(error.maybe_applied)
        except (ceb.LeaseLostError, ceb.UnsupportedError, ceb.DecodeError):
            raise


async def in_tasks(event: ceb.CloudEvent) -> None:
    async with ceb.aio.connect("sqlite:///events.db", topics=[orders], create_missing=True) as broker:
        assert_type(broker, AsyncBroker)
        assert_type(broker.sync, ceb.Broker)
        assert_type(await broker.publish("orders", event, delay=5, timeout=2.5), ceb.Receipt)
        assert_type(await broker.publish_many("orders", [event]), list[ceb.Receipt])
        async with broker.publisher("orders", linger=0.1) as publisher:
            future = await publisher.submit(event)
            assert_type(future, asyncio.Future[ceb.Receipt])
            assert_type(await future, ceb.Receipt)
            await publisher.flush(timeout=5)
        async with broker.subscriber("orders", "billing", foreign=[from_line]) as subscriber:
            deliveries = await subscriber.receive(max_events=10, wait=20)
            assert_type(deliveries, list[AsyncDelivery])
            await subscriber.ack_many(deliveries)
            async for delivery in subscriber:
                async with delivery as one:
                    assert_type(one, ceb.CloudEvent)
                    assert_type(one.data_as(Order), Order)
                await delivery.extend(30)
                await delivery.nack(delay=1)
        letters = broker.dead_letters("orders", "billing")
        async for letter in letters.find(limit=5):
            assert_type(letter, ceb.DeadLetter)
        assert_type(await letters.replay(letters.find(), rate=10), list[ceb.Receipt])
        assert_type(await letters.purge(["0123456789abcdef"]), int)
        assert_type(await broker.topology.plan(orders), list[Change])
        await broker.ping(timeout=1)
        async with broker.worker(grace=5).add("orders", "billing", in_task, concurrency=10) as worker:
            assert_type(worker, AsyncWorker)
            assert_type(worker.stats.handled, int)
        assert_type(await broker.worker().run(until_idle=1, signals=False), Stats)


async def in_task(order: Order) -> None:
    print(order.id)


def convert(event: ceb.CloudEvent, headers: dict[str, str], body: bytes) -> None:
    assert_type(ceb.CloudEvent.from_json(event.to_json()), ceb.CloudEvent)
    assert_type(ceb.CloudEvent.from_dict(event.to_dict()), ceb.CloudEvent)
    assert_type(ceb.CloudEvent.from_http(headers, body), ceb.CloudEvent)
    assert_type(event.to_http(structured=True), tuple[dict[str, str], bytes])
    assert_type(event.replace(subject="a"), ceb.CloudEvent)
    anything: Any = event.data
    print(anything)
