"""Dead letters from tasks: in turn, given back, and a replay that ends when its task does."""

from __future__ import annotations

import asyncio
import time

import pytest
from scripted import Scripted, Settled, event
from tasks import Gate, cancelled, promptly, threads, until

from cloudevents_bridge import DeadLetter
from cloudevents_bridge.aio import AsyncBroker, AsyncDeadLetters
from cloudevents_bridge.driver import DEAD_LETTER
from cloudevents_bridge.errors import InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.anyio
PLACE = "dead letters of orders/billing"


@pytest.fixture
def letters(broker: AsyncBroker, scripted: Scripted) -> AsyncDeadLetters:
    for n in range(5):
        scripted.put(event(str(n)), place=PLACE, attributes={DEAD_LETTER: '{"reason":"no"}'})
    return broker.dead_letters("orders", "billing")


async def listed(letters: AsyncDeadLetters) -> list[DeadLetter]:
    return [letter async for letter in letters.find()]


async def test_find(letters: AsyncDeadLetters, scripted: Scripted) -> None:
    found = await listed(letters)
    assert [letter.event and letter.event.id for letter in found] == ["0", "1", "2", "3", "4"]
    assert scripted.left(PLACE) == 5
    assert len([letter async for letter in letters.find(limit=2)]) == 2
    assert [letter async for letter in letters.find(type="other")] == []


async def test_there_is_one_for_each_subscription(broker: AsyncBroker, letters: AsyncDeadLetters) -> None:
    assert broker.dead_letters("orders", "billing") is letters
    assert broker.dead_letters("orders", "shipping") is not letters


async def test_leaving_a_listing_gives_the_letters_back(letters: AsyncDeadLetters, scripted: Scripted) -> None:
    async for _ in letters.find():
        break
    await until(lambda: scripted.left(PLACE) == 5)


async def test_a_cancelled_listing_gives_the_letters_back(letters: AsyncDeadLetters, scripted: Scripted) -> None:
    gate = Gate()
    held = scripted.on_receive

    def on_receive() -> None:
        scripted.changed.release()
        gate.pass_through()
        scripted.changed.acquire()

    scripted.on_receive = on_receive
    await cancelled(listed(letters), lambda: gate.waiting)
    scripted.on_receive = held
    gate.open.set()
    await until(lambda: scripted.calls["release"])
    await until(lambda: scripted.left(PLACE) == 5)


async def test_replay(letters: AsyncDeadLetters, scripted: Scripted) -> None:
    found = await listed(letters)
    receipts = await letters.replay([found[0], found[1].id])
    assert {receipt.event_id for receipt in receipts} == {"0", "1"}
    assert len(await letters.replay(letters.find(limit=2))) == 2
    assert scripted.left(PLACE) == 1
    assert scripted.left() == 4
    with pytest.raises(NotFoundError):
        await letters.replay([found[0]])
    with pytest.raises(InvalidArgumentError, match="one letter"):
        await letters.replay(found[4])  # type: ignore[arg-type]


async def test_what_a_listing_has_in_hand_can_be_replayed_meanwhile(
    letters: AsyncDeadLetters, scripted: Scripted
) -> None:
    async for letter in letters.find():
        await letters.replay([letter])
    assert scripted.left(PLACE) == 0
    assert scripted.left() == 5


async def test_a_cancelled_replay_ends_with_the_letter_in_hand(letters: AsyncDeadLetters, scripted: Scripted) -> None:
    found = await listed(letters)
    begun = time.monotonic()
    await cancelled(letters.replay(found, rate=0.05), lambda: scripted.left() == 1)
    await until(lambda: scripted.left(PLACE) == 4)
    assert time.monotonic() - begun < 15
    assert len(await promptly(letters.replay(letters.find()))) == 4


async def test_purge(letters: AsyncDeadLetters, scripted: Scripted) -> None:
    found = await listed(letters)
    assert await letters.purge(found[:3]) == 3
    assert await letters.purge(letters.find()) == 2
    assert scripted.left(PLACE) == 0
    assert await letters.purge([]) == 0


async def test_what_waits_for_its_turn_takes_no_thread(letters: AsyncDeadLetters, scripted: Scripted) -> None:
    gate = Gate()

    def on_settle(settled: Settled) -> None:
        if settled.verb == "ack":
            gate.pass_through()

    found = await listed(letters)
    scripted.on_settle = on_settle
    first = asyncio.create_task(letters.purge(found[:1]))
    await until(lambda: gate.waiting)
    waiting = [asyncio.create_task(letters.purge([each])) for each in found[1:]]
    await asyncio.sleep(0.02)
    assert len(threads("ceb-aio-call")) <= 2
    waiting[0].cancel()
    await until(waiting[0].cancelled)  # before its turn comes
    gate.open.set()
    assert await promptly(first) == 1
    assert [await each for each in waiting[1:]] == [1] * len(waiting[1:])
    assert scripted.left(PLACE) == 1
