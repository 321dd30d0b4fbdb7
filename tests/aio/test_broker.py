"""The connection: one for tasks and threads; and the same names as without asyncio."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from typing import Any

import pytest
from scripted import Scripted, event
from tasks import LONG, Gate, cancelled, promptly, threads, until

import cloudevents_bridge as ceb
from cloudevents_bridge import aio
from cloudevents_bridge.aio import AsyncBroker
from cloudevents_bridge.errors import ClosedError, ConfigurationError, UnsupportedError
from cloudevents_bridge.testing import FakeBroker
from cloudevents_bridge.types import Topology

pytestmark = pytest.mark.anyio
Opened = Any


async def test_one_connection_for_both(broker: AsyncBroker, scripted: Scripted) -> None:
    await broker.publish("orders", event("1"))
    await asyncio.to_thread(broker.sync.publish, "orders", event("2"))
    assert scripted.calls["connect"] == 1
    assert scripted.sent_ids() == ["1", "2"]
    assert broker.url == broker.sync.url == "scripted://here"
    assert broker.capabilities == scripted.capabilities
    assert broker.native is scripted
    assert repr(broker) == "<AsyncBroker scripted://here>"


async def test_over_a_broker(opened: Opened, scripted: Scripted) -> None:
    sync = opened().sync
    other = AsyncBroker(sync)
    assert other.sync is sync
    await other.ping()
    assert scripted.calls["ping"] == 1
    await other.close()
    with pytest.raises(ClosedError):
        sync.publish("orders", event())


def test_connect_is_no_coroutine_and_needs_no_loop(opened: Opened) -> None:
    before = threading.active_count()
    broker = opened(timeout=3.0)
    broker.publisher("orders")
    broker.subscriber("orders", "billing")
    broker.dead_letters("orders", "billing")
    assert threading.active_count() == before
    assert broker.sync._opener.config.timeout == 3.0


def test_connect_refuses_what_connect_refuses(opened: Opened) -> None:
    with pytest.raises(UnsupportedError, match="filter"):
        opened(requires=["filter"])
    with pytest.raises(ConfigurationError):
        opened(timeout=-1)
    with pytest.raises(ConfigurationError):
        opened(what=1)


async def test_a_call_without_a_loop_says_so(broker: AsyncBroker) -> None:
    def call() -> None:
        broker.subscriber("orders", "billing").receive().send(None)

    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(call)


async def test_topology(broker: AsyncBroker, scripted: Scripted) -> None:
    topic = ceb.Topic("orders", subscriptions=["billing"])
    assert len(await broker.topology.plan(topic)) == 2
    assert len(await broker.topology.apply(topic)) == 2
    assert await broker.topology.plan(topic) == []
    assert "topic orders" in await broker.topology.policy("publisher", topic)
    with pytest.raises(UnsupportedError):
        await broker.topology.export("terraform", topic)
    assert [change.name for change in await broker.topology.delete(topic)] == ["orders"]
    assert "topic orders" not in scripted.exists


async def test_the_block_closes(opened: Opened, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudevents_bridge.aio.threads.IDLE", LONG)
    async with opened() as broker:
        publisher = broker.publisher("orders", linger=LONG)
        future = await publisher.submit(event("1"))
        waiting = asyncio.create_task(broker.subscriber("orders", "billing").receive(wait=LONG))
        await until(lambda: scripted.receiving)
    assert (await promptly(future)).event_id == "1"
    assert await promptly(waiting) == []
    assert all(each.closed for each in scripted.opened)
    await until(lambda: threads() == [])
    await broker.close()
    for use in (broker.ping(), publisher.publish(event()), broker.publish("orders", event())):
        with pytest.raises(ClosedError):
            await use
    await until(lambda: threads() == [])


async def test_closing_the_broker_underneath_ends_the_threads(
    broker: AsyncBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudevents_bridge.aio.threads.IDLE", LONG)
    await broker.ping()
    assert threads() == ["ceb-aio-call"]
    broker.sync.close()
    await until(lambda: threads() == [])


async def test_close_waits_for_the_calls_under_way(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    await cancelled(broker.publish("orders", event("1")), lambda: gate.waiting)
    closing = asyncio.create_task(broker.close())
    await until(lambda: threads("ceb-aio-close"))
    await asyncio.sleep(0.02)
    assert not closing.done()
    gate.open.set()
    await promptly(closing)
    assert scripted.sent_ids() == ["1"]


async def test_close_does_not_wait_for_ever(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    await cancelled(broker.publish("orders", event("1")), lambda: gate.waiting)
    await promptly(broker.close(timeout=0.1))
    gate.open.set()


async def test_a_cancelled_close_still_closes(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_settles(scripted, "release")
    scripted.put(event("1"))
    await broker.subscriber("orders", "billing").receive()
    await cancelled(broker.close(), lambda: gate.waiting)
    again = asyncio.create_task(broker.close())
    await asyncio.sleep(0.02)
    assert not again.done(), "the second close did not wait for the first"
    gate.open.set()
    await promptly(again)
    assert all(each.closed for each in scripted.opened)
    await until(lambda: threads() == [])


async def test_the_fake_broker_has_one(scripted: Scripted) -> None:
    with FakeBroker() as fake:
        assert fake.aio is fake.aio
        assert fake.aio.sync is fake.broker
        await fake.aio.publish("orders", event("1"))
        fake.assert_published("orders")
        async with fake.aio.subscriber("orders", "billing") as subscriber:
            async for delivery in subscriber:
                async with delivery as one:
                    assert one.id == "1"
                break
        await fake.aio.close()


# -- the same names

PAIRS: list[tuple[Any, Any]] = [
    (ceb.Broker, aio.AsyncBroker),
    (ceb.Publisher, aio.AsyncPublisher),
    (ceb.Subscriber, aio.AsyncSubscriber),
    (ceb.Delivery, aio.AsyncDelivery),
    (ceb.DeadLetters, aio.AsyncDeadLetters),
    (Topology, aio.AsyncTopology),
]
NO_IO = {"publisher", "subscriber", "dead_letters", "worker", "find"}
"""Methods that are no coroutines; `find` is an asynchronous iterator."""


def public(kind: Any) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_") and callable(value)}


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS, ids=lambda kind: kind.__name__)
def test_the_names_and_the_parameters_are_the_same(sync: Any, asynchronous: Any) -> None:
    assert public(sync).keys() == public(asynchronous).keys()
    for name, method in public(asynchronous).items():
        mine, theirs = inspect.signature(method).parameters, inspect.signature(getattr(sync, name)).parameters
        assert [(p.name, p.kind, p.default) for p in mine.values()] == [
            (p.name, p.kind, p.default) for p in theirs.values()
        ], name
        assert inspect.iscoroutinefunction(method) != (name in NO_IO), name
        assert inspect.getdoc(method), name


def test_connect_takes_what_connect_takes() -> None:
    mine, theirs = inspect.signature(aio.connect).parameters, inspect.signature(ceb.connect).parameters
    assert [(p.name, p.kind, p.default) for p in mine.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]
    assert not inspect.iscoroutinefunction(aio.connect)


def test_it_is_the_first_name_and_imported_when_it_is_asked_for() -> None:
    assert ceb.__all__[0] == "aio"
    assert ceb.aio is aio
    program = (
        "import sys, cloudevents_bridge as ceb\n"
        "assert 'asyncio' not in sys.modules\n"
        "assert ceb.aio.connect\n"
        "assert 'asyncio' in sys.modules\n"
        "try:\n"
        "    ceb.nonsense\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "module 'cloudevents_bridge' has no attribute 'nonsense'\n"
