"""Receiving in tasks: waiting takes no thread, cancellation is prompt, and what came is never dropped."""

from __future__ import annotations

import asyncio
import math
import random

import msgspec
import pytest
from scripted import NativeError, Scripted, event, refused
from tasks import LONG, Gate, cancelled, promptly, threads, until

from cloudevents_bridge import CloudEvent, RawMessage
from cloudevents_bridge.aio import AsyncBroker, AsyncDelivery, AsyncSubscriber
from cloudevents_bridge.errors import ClosedError, ErrorCode, InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.anyio


@pytest.fixture
def subscriber(broker: AsyncBroker) -> AsyncSubscriber:
    return broker.subscriber("orders", "billing")


def ids(deliveries: list[AsyncDelivery]) -> list[str]:
    return [delivery.event.id for delivery in deliveries]


async def test_what_is_there_comes_at_once(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    for n in range(3):
        scripted.put(event(str(n)))
    deliveries = await promptly(subscriber.receive(2, wait=LONG))
    assert ids(deliveries) == ["0", "1"]
    [first, _] = deliveries
    assert (first.topic, first.subscription, first.attempt, first.lease_lost) == ("orders", "billing", 1, False)
    assert first.native == "native-1"
    assert repr(first).startswith("<AsyncDelivery of CloudEvent(")
    assert (subscriber.topic, subscriber.subscription) == ("orders", "billing")


async def test_without_waiting(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    assert await promptly(subscriber.receive(wait=0)) == []
    scripted.put(event("1"))
    assert ids(await subscriber.receive(wait=0)) == ["1"]


async def test_waiting_ends(subscriber: AsyncSubscriber) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await promptly(subscriber.receive(wait=0.1)) == []
    assert loop.time() - begun >= 0.09


@pytest.mark.parametrize("wait", [LONG, math.inf])
async def test_an_event_that_comes_ends_the_wait(subscriber: AsyncSubscriber, scripted: Scripted, wait: float) -> None:
    waiting = asyncio.create_task(subscriber.receive(wait=wait))
    await until(lambda: scripted.receiving)
    scripted.put(event("1"))
    assert ids(await promptly(waiting)) == ["1"]


async def test_a_long_wait_is_several_polls_and_none_for_nobody(
    subscriber: AsyncSubscriber, scripted: Scripted
) -> None:
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, wait=(0.0, 0.01))
    await cancelled(subscriber.receive(wait=LONG), lambda: scripted.calls["receive"] > 3)
    await until(lambda: not scripted.receiving)
    calls = scripted.calls["receive"]
    await asyncio.sleep(0.05)
    assert scripted.calls["receive"] <= calls + 1


@pytest.mark.parametrize("wait", [-1.0, math.nan])
async def test_a_wait_that_is_none(subscriber: AsyncSubscriber, wait: float) -> None:
    with pytest.raises(InvalidArgumentError, match="wait"):
        await subscriber.receive(wait=wait)
    with pytest.raises(InvalidArgumentError, match="max_events"):
        await subscriber.receive(0)


async def test_errors_come_out_and_the_next_try_is_fresh(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    said = [refused(ErrorCode.NOT_FOUND)]

    def on_receive() -> None:
        if said:
            raise NativeError(said.pop())

    scripted.on_receive = on_receive
    with pytest.raises(NotFoundError):
        await promptly(subscriber.receive(wait=LONG))
    scripted.put(event("1"))
    assert ids(await promptly(subscriber.receive(wait=LONG))) == ["1"]


async def test_foreign_decoders_are_asked(broker: AsyncBroker, scripted: Scripted) -> None:
    def take(raw: RawMessage) -> CloudEvent | None:
        return event(raw.body.decode())

    scripted.put(b"17")
    subscriber = broker.subscriber("orders", "billing", foreign=[take])
    assert ids(await subscriber.receive()) == ["17"]


# -- threads


async def test_a_task_that_waits_takes_no_thread(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    waiting = [asyncio.create_task(subscriber.receive(1, wait=LONG)) for _ in range(100)]
    await until(lambda: scripted.receiving)
    assert threads() == ["ceb-receive-orders/billing"]
    for n in range(100):
        scripted.put(event(str(n)))
    received = await asyncio.gather(*waiting)
    assert sorted(int(d.event.id) for each in received for d in each) == list(range(100))
    assert threads() == ["ceb-receive-orders/billing"]


async def test_idle_subscribers_leave_the_threads_to_others(broker: AsyncBroker, scripted: Scripted) -> None:
    idle = [broker.subscriber("orders", f"idle-{n}") for n in range(64)]
    waiting = [asyncio.create_task(each.receive(wait=LONG)) for each in idle]
    await until(lambda: scripted.receiving == 64)
    assert len(threads("ceb-receive")) == len(threads()) == 64
    scripted.put(event("1"))
    [delivery] = await promptly(broker.subscriber("orders", "billing").receive())
    await promptly(delivery.ack())
    await promptly(broker.publish("orders", event("2")))
    await promptly(broker.close())
    assert [await each for each in waiting] == [[]] * 64


async def test_tasks_and_threads_share_what_comes(broker: AsyncBroker, scripted: Scripted) -> None:
    subscriber = broker.subscriber("orders", "billing")
    in_task = asyncio.create_task(subscriber.receive(1, wait=LONG))
    in_thread = asyncio.create_task(asyncio.to_thread(subscriber._subscriber.receive, 1, wait=LONG))
    await until(lambda: scripted.receiving)
    scripted.put(event("1"))
    scripted.put(event("2"))
    [one], [two] = await promptly(asyncio.gather(in_task, in_thread))
    assert {one.event.id, two.event.id} == {"1", "2"}


# -- cancellation


async def test_a_cancelled_receive_leaves_its_result_to_the_next(
    subscriber: AsyncSubscriber, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudevents_bridge.fetcher.KEPT", LONG)
    await cancelled(subscriber.receive(wait=LONG), lambda: scripted.receiving)
    scripted.put(event("1"))
    assert ids(await promptly(subscriber.receive(wait=LONG))) == ["1"]
    assert scripted.calls["receive"] == 1
    assert scripted.verbs() == []


async def test_a_cancelled_receive_gives_its_result_back(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    await cancelled(subscriber.receive(wait=LONG), lambda: scripted.receiving)
    scripted.put(event("1"))
    await until(lambda: scripted.verbs() == ["release"])
    assert scripted.left() == 1


async def test_asyncio_timeout_ends_a_receive(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await subscriber.receive(wait=LONG)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(subscriber.receive(wait=LONG), 0.02)
    scripted.put(event("1"))
    assert ids(await promptly(subscriber.receive(wait=LONG))) == ["1"]


async def test_cancelled_at_any_moment_it_loses_nothing(broker: AsyncBroker, scripted: Scripted) -> None:
    subscriber = broker.subscriber("orders", "billing")
    rng = random.Random(11)
    total = 300
    got: list[str] = []

    async def put() -> None:
        for n in range(total):
            scripted.put(event(str(n)))
            await asyncio.sleep(rng.choice([0, 0, 0.001]))

    putting = asyncio.create_task(put())
    while not putting.done():
        task = asyncio.create_task(subscriber.receive(5, wait=LONG))
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(rng.choice([0, 0.0002]))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            got += ids(task.result())
    while len(got) < total:
        got += ids(await promptly(subscriber.receive(10, wait=LONG)))
    assert sorted(got, key=int) == [str(n) for n in range(total)]


# -- closing


async def test_close_ends_a_receive_that_waits_and_gives_back(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    scripted.put(event("1"))
    [held] = await subscriber.receive()
    waiting = asyncio.create_task(subscriber.receive(wait=LONG))
    await until(lambda: scripted.receiving)
    await promptly(subscriber.close())
    assert await promptly(waiting) == []
    assert scripted.verbs() == ["release"]
    assert subscriber.closed
    with pytest.raises(ClosedError):
        await subscriber.receive()
    with pytest.raises(ClosedError):
        await held.ack()
    await subscriber.close()


async def test_a_cancelled_close_still_closes(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    scripted.put(event("1"))
    await subscriber.receive()
    await cancelled(subscriber.close(), lambda: True)
    await until(lambda: scripted.verbs() == ["release"])
    await until(lambda: threads("ceb-receive") == [])


async def test_a_second_close_waits_for_the_first(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    gate = Gate().hold_settles(scripted, "release")
    scripted.put(event("1"))
    await subscriber.receive()
    await cancelled(subscriber.close(), lambda: gate.waiting)
    again = asyncio.create_task(subscriber.close())
    await asyncio.sleep(0.02)
    assert not again.done()
    gate.open.set()
    await promptly(again)
    assert not scripted.out


async def test_leaving_the_block_closes(broker: AsyncBroker, scripted: Scripted) -> None:
    scripted.put(event("1"))
    async with broker.subscriber("orders", "billing") as subscriber:
        assert ids(await subscriber.receive()) == ["1"]
    assert scripted.verbs() == ["release"]


# -- iterating


async def test_an_iteration_hands_out_one_at_a_time(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    for n in range(3):
        scripted.put(event(str(n)))
    seen = []
    async for delivery in subscriber:
        assert len(scripted.out) == 1
        seen.append(delivery.event.id)
        await delivery.ack()
        if len(seen) == 3:
            break
    assert seen == ["0", "1", "2"]


async def test_an_iteration_keeps_the_lease_of_the_one_in_hand(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    scripted.lease = 1.0
    scripted.put(event("1"))
    async for delivery in subscriber:
        await until(lambda: scripted.calls["extend"] >= 3)
        assert not delivery.lease_lost
        await delivery.ack()
        break
    assert scripted.verbs()[-1] == "ack"


async def test_leaving_an_iteration_keeps_no_lease(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    scripted.lease = 0.2
    scripted.put(event("1"))
    async for left in subscriber:  # noqa: B007
        break
    await until(lambda: left.lease_lost)
    assert scripted.calls["extend"] <= 1


async def test_an_iteration_ends_when_it_is_closed(subscriber: AsyncSubscriber, scripted: Scripted) -> None:
    async def iterate() -> list[str]:
        seen = []
        async for delivery in subscriber:
            async with delivery as one:
                seen.append(one.id)
        return seen

    scripted.put(event("1"))
    iterating = asyncio.create_task(iterate())
    await until(lambda: scripted.verbs() == ["ack"] and scripted.receiving)
    await subscriber.close()
    assert await promptly(iterating) == ["1"]
    assert [each async for each in subscriber] == []


async def test_an_iteration_ends_when_the_broker_closes(broker: AsyncBroker, scripted: Scripted) -> None:
    async def iterate() -> list[AsyncDelivery]:
        return [delivery async for delivery in broker.subscriber("orders", "billing")]

    iterating = asyncio.create_task(iterate())
    await until(lambda: scripted.receiving)
    await promptly(broker.close())
    assert await promptly(iterating) == []


async def test_a_cancelled_iteration_gives_the_one_in_hand_back(
    subscriber: AsyncSubscriber, scripted: Scripted
) -> None:
    inside = asyncio.Event()

    async def iterate() -> None:
        async for delivery in subscriber:
            async with delivery:
                inside.set()
                await asyncio.sleep(LONG)

    scripted.put(event("1"))
    await cancelled(iterate(), inside.is_set)
    await until(lambda: scripted.verbs() == ["release"])
