"""Settling from tasks: the words of a delivery, the block, and what a cancelled settle does."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest
from scripted import Scripted, event, refused
from tasks import LONG, Gate, cancelled, promptly, threads, until

from cloudevents_bridge import BridgeError, LeaseLostError, Reject, Retry, SettleError
from cloudevents_bridge.aio import AsyncBroker, AsyncDelivery, AsyncSubscriber
from cloudevents_bridge.aio.shell import SENDS, SETTLES
from cloudevents_bridge.errors import ErrorCode, InvalidArgumentError

pytestmark = pytest.mark.anyio


@pytest.fixture
def subscriber(broker: AsyncBroker, scripted: Scripted) -> AsyncSubscriber:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, nack_delay=900.0)
    return broker.subscriber("orders", "billing")


@pytest.fixture
async def delivery(subscriber: AsyncSubscriber, scripted: Scripted) -> AsyncDelivery:
    scripted.put(event("1"))
    [delivery] = await subscriber.receive(wait=LONG)
    return delivery


def settled(scripted: Scripted) -> list[tuple[str, list[str]]]:
    return [(each.verb, each.ids) for each in scripted.settles]


async def test_ack(delivery: AsyncDelivery, scripted: Scripted) -> None:
    await delivery.ack()
    await delivery.ack()
    assert settled(scripted) == [("ack", ["1"])]
    with pytest.raises(BridgeError) as caught:
        await delivery.nack()
    assert caught.value.code == ErrorCode.FAILED_PRECONDITION


async def test_nack(delivery: AsyncDelivery, scripted: Scripted) -> None:
    await delivery.nack(delay=0)
    assert settled(scripted) == [("nack", ["1"])]


async def test_dead_letter(delivery: AsyncDelivery, scripted: Scripted) -> None:
    await delivery.dead_letter("no good")
    assert settled(scripted) == [("dead", ["1"])]
    assert "no good" in scripted.settles[0].reason


async def test_extend(delivery: AsyncDelivery, scripted: Scripted) -> None:
    await delivery.extend(5.0)
    assert (scripted.settles[0].verb, scripted.settles[0].seconds) == ("extend", 5.0)
    with pytest.raises(InvalidArgumentError):
        await delivery.extend(-1)


async def test_give_back(delivery: AsyncDelivery, scripted: Scripted) -> None:
    await delivery.give_back()
    assert settled(scripted) == [("release", ["1"])]


async def test_a_lost_lease_is_an_error(delivery: AsyncDelivery, scripted: Scripted) -> None:
    scripted.on_settle = lambda settled: [refused(ErrorCode.LEASE_LOST)]
    with pytest.raises(LeaseLostError):
        await delivery.ack()
    assert delivery.lease_lost


async def test_ack_many(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    for n in range(5):
        scripted.put(event(str(n)))
    deliveries = await subscriber.receive()
    scripted.on_settle = lambda settled: [refused()] * len(settled.ids) if "3" in settled.ids else None
    await subscriber.ack_many(deliveries[:3])
    with pytest.raises(SettleError) as caught:
        await subscriber.ack_many(deliveries)
    assert [failed for failed, _ in caught.value.failed] == [each.sync for each in deliveries[3:]]


async def test_a_delivery_can_be_settled_in_a_thread(delivery: AsyncDelivery, scripted: Scripted) -> None:
    await asyncio.to_thread(delivery.sync.ack)
    assert settled(scripted) == [("ack", ["1"])]


# -- the block


async def test_the_block_acks(delivery: AsyncDelivery, scripted: Scripted) -> None:
    async with delivery as one:
        assert one == delivery.event
        assert scripted.verbs() == []
    assert settled(scripted) == [("ack", ["1"])]


async def test_a_block_that_settles_is_left_alone(delivery: AsyncDelivery, scripted: Scripted) -> None:
    with pytest.raises(ZeroDivisionError):
        async with delivery:
            await delivery.dead_letter("inside")
            raise ZeroDivisionError
    assert scripted.verbs() == ["dead"]


@pytest.mark.parametrize(
    ("raised", "verb"),
    [
        (ValueError("no"), "nack"),
        (Retry(delay=0), "nack"),
        (Reject("never"), "dead"),
        (KeyboardInterrupt(), "release"),
        (SystemExit(3), "release"),
        (asyncio.CancelledError(), "release"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_what_the_block_raises_decides_and_comes_out(
    delivery: AsyncDelivery, scripted: Scripted, raised: BaseException, verb: str
) -> None:
    caught: BaseException | None = None
    try:
        async with delivery:
            raise raised
    except BaseException as error:  # noqa: BLE001
        caught = error
    assert caught is raised
    assert scripted.verbs() == [verb]


async def test_an_ack_that_fails_comes_out_of_the_block(delivery: AsyncDelivery, scripted: Scripted) -> None:
    scripted.on_settle = lambda settled: [refused()]
    with pytest.raises(BridgeError):
        async with delivery:
            pass


async def test_a_failure_to_give_back_does_not_hide_the_error(
    delivery: AsyncDelivery, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on_settle = lambda settled: [refused()]
    with pytest.raises(ZeroDivisionError):
        async with delivery:
            raise ZeroDivisionError
    assert "could not be settled" in caplog.text


# -- cancellation


async def test_a_cancelled_ack_returns_at_once_and_is_made(delivery: AsyncDelivery, scripted: Scripted) -> None:
    gate = Gate().hold_settles(scripted, "ack")
    await cancelled(delivery.ack(), lambda: gate.waiting)
    gate.open.set()
    await until(lambda: not scripted.out)


async def test_a_cancelled_ack_that_waits_for_a_thread_is_made(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    gate = Gate().hold_settles(scripted, "ack")
    for n in range(SETTLES + 3):
        scripted.put(event(str(n)))
    deliveries = await subscriber.receive(wait=LONG)
    assert len(deliveries) == SETTLES + 3
    acks = [asyncio.create_task(delivery.ack()) for delivery in deliveries]
    await until(lambda: gate.waiting == SETTLES)
    assert len(threads("ceb-aio-settle")) == SETTLES
    for task in acks:
        task.cancel()
    await asyncio.wait(acks, timeout=LONG)
    assert all(task.cancelled() for task in acks)
    gate.open.set()
    await until(lambda: not scripted.out)


async def test_a_task_cancelled_in_the_block_twice_gives_back_all_the_same(
    delivery: AsyncDelivery, scripted: Scripted
) -> None:
    gate = Gate().hold_settles(scripted, "release")
    inside = asyncio.Event()

    async def handle() -> None:
        async with delivery:
            inside.set()
            await asyncio.sleep(LONG)

    task = asyncio.create_task(handle())
    await inside.wait()
    task.cancel()
    await until(lambda: gate.waiting)
    task.cancel()
    await asyncio.wait([task], timeout=LONG)
    assert task.cancelled()
    gate.open.set()
    await until(lambda: not scripted.out)
    assert scripted.verbs() == ["release"]


async def test_a_timeout_inside_the_block_is_a_failure_and_around_it_is_none(
    subscriber: AsyncSubscriber, scripted: Scripted
) -> None:
    scripted.put(event("1"))
    [delivery] = await subscriber.receive(wait=LONG)
    with pytest.raises(TimeoutError):
        async with delivery:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(LONG)
    assert scripted.verbs() == ["nack"]
    [delivery] = await subscriber.receive(wait=LONG)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            async with delivery:
                await asyncio.sleep(LONG)
    assert scripted.verbs() == ["nack", "release"]


# -- threads


async def test_nothing_keeps_an_ack_waiting(broker: AsyncBroker, delivery: AsyncDelivery, scripted: Scripted) -> None:
    """Idle polls, publishes and flushes without an answer have threads of their own."""
    gate = Gate().hold_sends(scripted)
    idle = [asyncio.create_task(broker.subscriber("orders", f"idle-{n}").receive(wait=LONG)) for n in range(20)]
    publishing = [asyncio.create_task(broker.publish("orders", event(str(n)))) for n in range(2 * SENDS)]
    publisher = broker.publisher("orders")
    await publisher.submit(event("x"))
    flushing = [asyncio.create_task(publisher.flush()) for _ in range(10)]
    await until(lambda: scripted.receiving == 20 and gate.waiting == SENDS + 1)
    await promptly(delivery.ack())
    gate.open.set()
    await asyncio.gather(*publishing, *flushing)
    await broker.close()
    assert [await each for each in idle] == [[]] * 20


async def test_settles_run_in_their_own_threads(delivery: AsyncDelivery, scripted: Scripted) -> None:
    ran: list[str] = []
    scripted.on_settle = lambda settled: ran.append(threading.current_thread().name)
    await delivery.ack()
    assert ran == ["ceb-aio-settle"]
