"""Event loops: several in one process, one that ends with calls pending, other libraries' cancellation, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from scripted import Scripted, event
from scripted import until as until_in_thread
from tasks import LONG, Gate, cancelled, promptly, threads, until

import cloudevents_bridge as ceb
from cloudevents_bridge import Delivery
from cloudevents_bridge.aio import AsyncBroker, connect
from cloudevents_bridge.aio.loops import Mailbox
from cloudevents_bridge.aio.shell import Shell

uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")


async def use(broker: AsyncBroker, id: str) -> str:
    """Publish, submit, receive and settle."""
    subscriber = broker.subscriber("orders", "billing")
    await broker.publish("orders", event(f"{id}-published"))
    await (await broker.publisher("orders").submit(event(f"{id}-submitted")))
    receiving = asyncio.create_task(subscriber.receive(1, wait=LONG))
    [delivery] = await promptly(receiving)
    async with delivery as one:
        pass
    await promptly(subscriber.close())
    return one.id


def test_one_loop_after_the_other(broker: AsyncBroker, scripted: Scripted) -> None:
    """As a fixture that lives longer than its tests' loops is used."""
    for n in range(3):
        scripted.put(event(str(n)))
        assert asyncio.run(use(broker, str(n))) == str(n)
    assert len(scripted.sends) == 6
    asyncio.run(broker.close())
    assert all(each.closed for each in scripted.opened)


def test_one_subscriber_in_one_loop_after_the_other(broker: AsyncBroker, scripted: Scripted) -> None:
    subscriber = broker.subscriber("orders", "billing")
    for n in range(3):
        scripted.put(event(str(n)))
        [delivery] = asyncio.run(subscriber.receive(wait=LONG))
        asyncio.run(delivery.ack())
    assert scripted.verbs() == ["ack"] * 3


def test_one_runner_for_setting_up_testing_and_tearing_down(broker: AsyncBroker, scripted: Scripted) -> None:
    """As pytest-asyncio does it."""
    with asyncio.Runner() as runner:
        scripted.put(event("1"))
        [delivery] = runner.run(broker.subscriber("orders", "billing").receive())
        runner.run(delivery.ack())
        runner.run(broker.close())
    assert scripted.verbs() == ["ack"]


def test_two_loops_at_once(broker: AsyncBroker, scripted: Scripted) -> None:
    answers: list[str] = []
    for n in range(20):
        scripted.put(event(str(n)))

    async def work(name: str) -> None:
        answers.extend([await use(broker, f"{name}-{n}") for n in range(10)])

    running = [threading.Thread(target=asyncio.run, args=[work(name)]) for name in ("a", "b")]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(LONG)
    assert sorted(answers, key=int) == [str(n) for n in range(20)]
    assert len(scripted.sent_ids()) == 40


def test_a_receive_in_each_of_two_loops(broker: AsyncBroker, scripted: Scripted) -> None:
    subscriber = broker.subscriber("orders", "billing")
    got: list[str] = []

    async def receive() -> None:
        [delivery] = await subscriber.receive(1, wait=LONG)
        got.append(delivery.event.id)

    running = [threading.Thread(target=asyncio.run, args=[receive()]) for _ in range(2)]
    for thread in running:
        thread.start()
    until_in_thread(lambda: scripted.receiving)
    scripted.put(event("1"))
    scripted.put(event("2"))
    for thread in running:
        thread.join(LONG)
    assert sorted(got) == ["1", "2"]
    assert len(threads()) == 1


def test_a_loop_that_ends_with_calls_pending(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    loop = asyncio.new_event_loop()
    publishing = loop.create_task(broker.publish("orders", event("1")))
    receiving = loop.create_task(broker.subscriber("orders", "billing").receive(wait=LONG))

    async def wait() -> None:
        await until(lambda: gate.waiting and scripted.receiving)

    loop.run_until_complete(wait())
    loop.close()
    gate.open.set()
    until_in_thread(lambda: not gate.waiting)
    assert scripted.sent_ids() == ["1"]
    scripted.put(event("2"))  # for which nobody waits any more
    until_in_thread(lambda: scripted.verbs() == ["release"])
    pending: list[Any] = [publishing, receiving]
    for task in pending:
        task._log_destroy_pending = False  # it is what the test is about
        task.get_coro().close()
    del publishing, receiving, pending, task
    gc.collect()
    assert asyncio.run(use(broker, "after")) == "2"


def test_asyncio_run_ends_at_once_with_calls_pending(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)

    async def main() -> None:
        asyncio.create_task(broker.publish("orders", event("1")))  # noqa: RUF006
        asyncio.create_task(broker.subscriber("orders", "billing").receive(wait=LONG))  # noqa: RUF006
        await until(lambda: gate.waiting and scripted.receiving)

    running = threading.Thread(target=asyncio.run, args=[main()])
    running.start()
    running.join(5.0)
    assert not running.is_alive()
    gate.open.set()


def test_the_mailbox_of_a_closed_loop_takes_nothing() -> None:
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    assert mailbox.post(lambda: None)
    loop.close()
    assert not mailbox.post(lambda: None)
    assert not mailbox.post(lambda: None)


@pytest.mark.anyio
async def test_a_mailbox_wakes_the_loop_once_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    woken = 0
    real = loop.call_soon_threadsafe

    def counting(*args: Any, **options: Any) -> Any:
        nonlocal woken
        woken += 1
        return real(*args, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
    mailbox = Mailbox(loop)
    seen: list[int] = []
    for n in range(100):
        mailbox.post(lambda n=n: seen.append(n))  # type: ignore[misc]
    await until(lambda: len(seen) == 100)
    assert seen == list(range(100))
    assert woken == 1


@pytest.mark.anyio
async def test_an_error_is_gone_when_it_was_handled() -> None:
    errors: list[weakref.ref[MarkedError]] = []

    class MarkedError(Exception):
        def __init__(self) -> None:
            errors.append(weakref.ref(self))

    def fail() -> None:
        raise MarkedError

    shell = Shell("scripted://here")
    gc.collect()
    gc.disable()
    try:
        with suppress(MarkedError):
            await shell.run(shell.calls, fail)
        with suppress(MarkedError):
            await shell.run_within(LONG, shell.calls, lambda left: fail(), "it")
        await until(lambda: [each() for each in errors] == [None, None])
    finally:
        gc.enable()
    shell.close()


# -- other event loops and libraries


def test_uvloop(broker: AsyncBroker, scripted: Scripted) -> None:
    scripted.put(event("1"))

    async def main() -> str:
        await cancelled(broker.subscriber("orders", "other").receive(wait=LONG), lambda: scripted.receiving)
        return await use(broker, "x")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == "1"
        runner.run(broker.close())


@pytest.mark.anyio
async def test_a_cancelled_scope_of_anyio(broker: AsyncBroker, scripted: Scripted) -> None:
    """Where every await is cancelled again until the scope ends, what is to be settled is settled all the same."""
    gate = Gate().hold_settles(scripted, "release")
    scripted.put(event("1"))
    [delivery] = await broker.subscriber("orders", "billing").receive()
    inside = asyncio.Event()

    async def handle() -> None:
        async with delivery:
            inside.set()
            await anyio.sleep(LONG)

    async with anyio.create_task_group() as group:
        group.start_soon(handle)
        await inside.wait()
        group.cancel_scope.cancel()
    await until(lambda: gate.waiting)
    gate.open.set()
    await until(lambda: not scripted.out)


@pytest.mark.anyio
async def test_a_close_in_a_cancelled_scope_of_anyio(broker: AsyncBroker, scripted: Scripted) -> None:
    await broker.ping()
    with anyio.CancelScope() as scope:
        async with broker:
            scope.cancel()
            await anyio.sleep(LONG)
    assert scope.cancelled_caught
    await until(lambda: all(each.closed for each in scripted.opened))


@pytest.mark.anyio
async def test_a_timeout_of_anyio(broker: AsyncBroker, scripted: Scripted) -> None:
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.02):
            await broker.subscriber("orders", "billing").receive(wait=LONG)


# -- the end of a program

INTERRUPTED = """
import asyncio, os, signal, sys, threading
import cloudevents_bridge as ceb
from cloudevents_bridge import aio

async def main():
    topics = [ceb.Topic("orders", subscriptions=["billing"])]
    async with aio.connect(sys.argv[1], topics=topics, create_missing=True) as broker:
        await broker.publish("orders", ceb.CloudEvent(type="com.example.a", source="/a", id="1"))
        async with broker.subscriber("orders", "billing") as subscriber:
            async for delivery in subscriber:
                async with delivery:
                    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
                    await asyncio.sleep(60)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_gives_back_and_comes_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
    assert [delivery.attempt for delivery in _received(url)] == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_has_a_connection_and_threads_of_its_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    broker = connect(url, topics=[ceb.Topic("orders", subscriptions=["billing"])], create_missing=True)
    asyncio.run(broker.publish("orders", event("parent")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if not child:
        code = 1
        try:
            asyncio.run(_publish(broker, "child"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0

    asyncio.run(_publish(broker, "parent again"))
    assert sorted(each.event.id for each in _received(url)) == ["child", "parent", "parent again"]


async def _publish(broker: AsyncBroker, id: str) -> None:
    await broker.publish("orders", event(id))
    await broker.close()


def _received(url: str) -> list[Delivery]:
    with ceb.connect(url) as broker:
        return broker.subscriber("orders", "billing").receive(wait=5.0)
