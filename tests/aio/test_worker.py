"""The worker on the caller's event loop: its tasks, its end, and the loop's end."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import NativeError, Scripted, event, refused
from scripted import until as until_in_thread
from tasks import LONG, Gate, cancelled, promptly, threads, until, work_off

from cloudevents_bridge import CloudEvent, Delivery, Reject, RetryPolicy, Router, Subscription, Topic
from cloudevents_bridge.aio import AsyncBroker, AsyncDelivery, AsyncWorker
from cloudevents_bridge.errors import ClosedError, ErrorCode, InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.anyio
Opened = Callable[..., AsyncBroker]
AT_ONCE = RetryPolicy(initial=0.0, maximum=0.0)


def orders(**declared: Any) -> Topic:
    return Topic("orders", subscriptions=[Subscription("billing", **{"redelivery": AT_ONCE, **declared})])


@pytest.fixture
def broker(opened: Opened) -> AsyncBroker:
    return opened(topics=[orders()])


def worker(broker: AsyncBroker, handler: Any, *, grace: float = 5.0, **options: Any) -> AsyncWorker:
    return broker.worker(grace=grace).add("orders", "billing", handler, **options)


def ids(scripted: Scripted, verb: str) -> list[str]:
    return [id for settled in scripted.settles if settled.verb == verb for id in settled.ids]


class Hanging:
    """An async handler that waits until it is let go."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.go = asyncio.Event()
        self.cancelled: list[str] = []

    async def __call__(self, event: CloudEvent) -> None:
        self.seen.append(event.id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(event.id)
            raise


# -- where handlers run


async def test_async_handlers_are_tasks_of_this_loop_and_others_run_in_threads(
    broker: AsyncBroker, scripted: Scripted
) -> None:
    here: list[tuple[object, str]] = []
    router = Router()

    @router.on("com.example.async")
    async def in_task(event: CloudEvent) -> None:
        await asyncio.sleep(0)
        here.append((asyncio.get_running_loop(), threading.current_thread().name))

    @router.on("*")
    def in_thread(event: CloudEvent) -> None:
        here.append((None, threading.current_thread().name))

    scripted.put(event("1").replace(type="com.example.async"))
    scripted.put(event("2"))
    async with worker(broker, router) as working:
        await until(lambda: working.stats.handled == 2)
    assert sorted(here, key=str) == sorted(
        [(asyncio.get_running_loop(), "MainThread"), (None, "ceb-run-orders/billing")], key=str
    )
    assert sorted(ids(scripted, "ack")) == ["1", "2"]


async def test_run_until_idle(broker: AsyncBroker, scripted: Scripted) -> None:
    seen: list[str] = []

    async def handle(event: CloudEvent) -> None:
        seen.append(event.id)

    for n in range(20):
        scripted.put(event(str(n)))
    async with asyncio.timeout(LONG):
        stats = await worker(broker, handle, concurrency=4).run(until_idle=1.0)
    assert (stats.handled, stats.failed) == (20, 0)
    assert sorted(seen, key=int) == [str(n) for n in range(20)]
    await until(lambda: threads("ceb-worker") == threads("ceb-run") == threads("ceb-loop") == [])


async def test_many_async_handlers_take_one_thread(broker: AsyncBroker, scripted: Scripted) -> None:
    handler = Hanging()
    for n in range(10):
        scripted.put(event(str(n)))
    async with worker(broker, handler, concurrency=10):
        await until(lambda: len(handler.seen) == 10)
        assert len(threads("ceb-run")) == 1
        handler.go.set()
    assert len(ids(scripted, "ack")) == 10


async def test_the_context_is_that_of_whoever_started_it(broker: AsyncBroker, scripted: Scripted) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    seen: list[str] = []

    async def handle(event: CloudEvent) -> None:
        seen.append(who.get())

    who.set("me")
    scripted.put(event())
    await worker(broker, handle).run(until_idle=0.05)
    assert seen == ["me"]


async def test_middleware_waits_for_an_async_handler(broker: AsyncBroker, scripted: Scripted) -> None:
    steps: list[tuple[str, bool]] = []

    def around(delivery: Delivery, call_next: Callable[[Delivery], None]) -> None:
        steps.append(("before", threading.current_thread() is threading.main_thread()))
        call_next(delivery)
        steps.append(("after", threading.current_thread() is threading.main_thread()))

    router = Router(middleware=[around])

    @router.on("*")
    async def handle(event: CloudEvent) -> None:
        await asyncio.sleep(0.01)
        steps.append(("handler", threading.current_thread() is threading.main_thread()))

    scripted.put(event())
    await worker(broker, router).run(until_idle=0.1)
    assert steps == [("before", False), ("handler", True), ("after", False)]


async def test_a_batch(broker: AsyncBroker, scripted: Scripted) -> None:
    batches: list[int] = []

    async def handle(deliveries: list[Delivery]) -> None:
        batches.append(len(deliveries))
        await asyncio.to_thread(deliveries[0].dead_letter, "the first of each")

    for n in range(10):
        scripted.put(event(str(n)))
    await work_off(worker(broker, handle, batch=5), scripted)
    assert sum(batches) == 10
    assert len(ids(scripted, "dead")) == len(batches)
    assert len(ids(scripted, "ack")) == 10 - len(batches)


async def test_what_an_async_handler_raises_decides(opened: Opened, scripted: Scripted) -> None:
    broker = opened(topics=[orders(max_attempts=2)])

    async def handle(event: CloudEvent) -> None:
        if event.id == "reject":
            raise Reject("never")
        if event.id == "fail":
            raise ValueError("no")

    for id in ("good", "reject", "fail"):
        scripted.put(event(id))
    stats = await work_off(worker(broker, handle), scripted)
    assert (stats.handled, stats.failed, stats.dead_lettered) == (1, 3, 2)
    assert sorted(ids(scripted, "dead")) == ["fail", "reject"]


async def test_a_lost_lease_cancels_an_async_handler(opened: Opened, scripted: Scripted) -> None:
    scripted.lease = 0.3
    scripted.on_settle = lambda settled: [refused(ErrorCode.LEASE_LOST)] if settled.verb == "extend" else None
    broker = opened(topics=[orders(lease=0.3)])
    handler = Hanging()
    scripted.put(event("1"))
    async with worker(broker, handler):
        await until(lambda: handler.cancelled == ["1"])
    assert ids(scripted, "ack") == []


async def test_handlers_may_publish(broker: AsyncBroker, scripted: Scripted) -> None:
    async def handle(event_: CloudEvent) -> None:
        await broker.publish("invoices", event(f"invoice-{event_.id}"))

    for n in range(20):
        scripted.put(event(str(n)))
    await work_off(worker(broker, handle, concurrency=20), scripted)
    assert sorted(scripted.sent_ids()) == sorted(f"invoice-{n}" for n in range(20))


# -- its end


async def test_stopping_lets_handlers_end_and_gives_the_rest_back(broker: AsyncBroker, scripted: Scripted) -> None:
    handler = Hanging()
    for n in range(5):
        scripted.put(event(str(n)))
    working = worker(broker, handler)
    running = asyncio.create_task(working.run(signals=False))
    await until(lambda: handler.seen)
    working.stop()
    await asyncio.sleep(0.02)
    assert not running.done()
    handler.go.set()
    stats = await promptly(running)
    assert stats.handled == len(ids(scripted, "ack")) == 1
    assert scripted.left() == 4


async def test_cancelling_run_stops_it_gracefully(broker: AsyncBroker, scripted: Scripted) -> None:
    handler = Hanging()
    scripted.put(event("1"))
    running = asyncio.create_task(worker(broker, handler).run(signals=False))
    await until(lambda: handler.seen)
    for _ in range(3):  # the second and third change nothing
        running.cancel()
        await asyncio.sleep(0.01)
    assert not running.done()
    handler.go.set()
    await asyncio.wait([running], timeout=LONG)
    assert running.cancelled()
    assert (ids(scripted, "ack"), handler.cancelled) == (["1"], [])
    await until(lambda: threads("ceb-worker") == [])


async def test_cancelling_run_ends_within_the_grace_period(broker: AsyncBroker, scripted: Scripted) -> None:
    handler = Hanging()
    scripted.put(event("1"))
    running = asyncio.create_task(worker(broker, handler, grace=0.1).run(signals=False))
    await until(lambda: handler.seen)
    begun = time.monotonic()
    running.cancel()
    await asyncio.wait([running], timeout=LONG)
    assert time.monotonic() - begun < 5.0
    assert running.cancelled()
    await until(lambda: handler.cancelled == ["1"])
    assert ids(scripted, "release") == ["1"]


async def test_a_timeout_around_run(broker: AsyncBroker) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await worker(broker, Hanging()).run(signals=False)


async def test_leaving_the_block_leaves_nothing(broker: AsyncBroker, scripted: Scripted) -> None:
    tasks = asyncio.all_tasks()
    seen: list[str] = []

    async def handle(event: CloudEvent) -> None:
        seen.append(event.id)

    async with worker(broker, handle) as working:
        scripted.put(event("1"))
        await until(lambda: working.stats.handled == 1 and working.stats.connected)
    assert working.closed
    assert not working.stats.connected
    await until(lambda: threads() == [])
    await until(lambda: asyncio.all_tasks() == tasks)
    await working.close()
    with pytest.raises(ClosedError):
        working.start()
    with pytest.raises(ClosedError):
        await working.run()


async def test_a_cancelled_close_still_closes(broker: AsyncBroker, scripted: Scripted) -> None:
    handler = Hanging()
    scripted.put(event("1"))
    working = worker(broker, handler)
    working.start()
    await until(lambda: handler.seen)
    await cancelled(working.close(), lambda: working.closed)
    handler.go.set()
    await until(lambda: threads("ceb-worker") == [])
    assert ids(scripted, "ack") == ["1"]


async def test_a_handler_may_stop_it(broker: AsyncBroker, scripted: Scripted) -> None:
    working = broker.worker(grace=LONG)

    async def handle(event: CloudEvent) -> None:
        working.stop()

    scripted.put(event("1"))
    stats = await promptly(working.add("orders", "billing", handle).run(signals=False))
    assert stats.handled == 1


async def test_a_handler_may_close_it(broker: AsyncBroker, scripted: Scripted) -> None:
    working = broker.worker(grace=LONG)

    async def handle(event: CloudEvent) -> None:
        await working.close()

    scripted.put(event("1"))
    stats = await promptly(working.add("orders", "billing", handle).run(signals=False))
    assert stats.handled == 1
    assert working.closed


async def test_closing_the_broker_closes_its_workers(broker: AsyncBroker, scripted: Scripted) -> None:
    handler = Hanging()
    scripted.put(event("1"))
    working = worker(broker, handler)
    running = asyncio.create_task(working.run(signals=False))
    await until(lambda: handler.seen)
    closing = asyncio.create_task(broker.close())
    await until(lambda: working.closed)
    handler.go.set()
    await promptly(closing)
    assert (await promptly(running)).handled == 1


async def test_closing_the_broker_does_not_wait_for_calls_that_come_later(
    broker: AsyncBroker, scripted: Scripted
) -> None:
    gate = Gate()

    def on_send(sent: Any, timeout: float) -> Any:
        gate.pass_through()
        return [refused()]

    async def publishing() -> None:
        while True:
            await asyncio.gather(broker.publish("orders", event()), return_exceptions=True)

    gate.open.set()
    scripted.on_send = on_send
    tasks = [asyncio.create_task(publishing()) for _ in range(4)]
    await until(lambda: scripted.sends)
    await promptly(broker.close())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_why_it_cannot_go_on_comes_out_of_run(broker: AsyncBroker, scripted: Scripted) -> None:
    def on_receive() -> None:
        raise NativeError(refused(ErrorCode.NOT_FOUND))

    scripted.on_receive = on_receive
    with pytest.raises(NotFoundError):
        await promptly(worker(broker, Hanging()).run(signals=False))


async def test_why_it_could_not_go_on_comes_out_of_close(broker: AsyncBroker, scripted: Scripted) -> None:
    def on_receive() -> None:
        raise NativeError(refused(ErrorCode.NOT_FOUND))

    scripted.on_receive = on_receive
    working = worker(broker, Hanging())
    working.start()
    await until(lambda: threads("ceb-worker") == [])
    with pytest.raises(NotFoundError):
        await working.close()
    await working.close()


async def test_what_cannot_be_is_refused(broker: AsyncBroker) -> None:
    with pytest.raises(InvalidArgumentError):
        await worker(broker, Hanging()).run(until_idle=-1)
    with pytest.raises(InvalidArgumentError):
        await broker.worker().run()
    with pytest.raises(InvalidArgumentError):
        broker.worker(grace=-1)
    with pytest.raises(TypeError, match="AsyncDelivery"):
        worker(broker, _with_async_delivery)
    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(worker(broker, Hanging()).start)


def _with_async_delivery(delivery: AsyncDelivery) -> None:
    """Annotated with what no event's data can be had as."""


async def test_it_runs_once_at_a_time_and_may_run_again(broker: AsyncBroker, scripted: Scripted) -> None:
    handler = Hanging()
    handler.go.set()
    working = worker(broker, handler)
    for n in range(2):
        scripted.put(event(str(n)))
        assert (await working.run(until_idle=0.05)).handled == n + 1
        working._worker._stop_this_run()  # too late: there is none, and the next is not meant
    working.start()
    with pytest.raises(Exception, match="runs already"):
        working.start()
    await working.close()


# -- the end of the loop


def test_a_loop_that_ends_before_the_worker_stops_it(opened: Opened, scripted: Scripted) -> None:
    """What asyncio.run has cancelled is given back and has not failed, though one attempt is all there is."""
    broker = opened(topics=[orders(max_attempts=1)])
    for n in range(10):
        scripted.put(event(str(n)))

    async def main() -> None:
        handler = Hanging()
        worker(broker, handler, concurrency=3).start()
        await until(lambda: len(handler.seen) == 3)

    asyncio.run(main())
    until_in_thread(lambda: threads("ceb-worker") == [])
    assert set(scripted.verbs()) == {"release"}
    assert scripted.left() == 10


def test_a_task_that_runs_a_worker_is_cancelled_by_the_end_of_the_loop(opened: Opened, scripted: Scripted) -> None:
    broker = opened(topics=[orders(max_attempts=1)])
    for n in range(10):
        scripted.put(event(str(n)))

    async def main() -> None:
        handler = Hanging()
        asyncio.create_task(worker(broker, handler).run())  # noqa: RUF006
        await until(lambda: handler.seen)

    asyncio.run(main())
    assert scripted.left() == 10


def test_a_loop_that_is_closed_under_a_worker_stops_it(opened: Opened, scripted: Scripted) -> None:
    broker = opened(topics=[orders(max_attempts=1)])
    handled: list[str] = []

    async def handle(event: CloudEvent) -> None:
        handled.append(event.id)

    async def main() -> AsyncWorker:
        working = worker(broker, handle)
        working.start()
        scripted.put(event("1"))
        await until(lambda: working.stats.handled == 1)
        return working

    loop = asyncio.new_event_loop()
    working = loop.run_until_complete(main())
    [watch] = asyncio.all_tasks(loop)
    watch._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what the test is about
    loop.close()
    for n in range(10):
        scripted.put(event(str(n)))
    until_in_thread(lambda: threads("ceb-worker") == [])
    assert handled == ["1"]
    assert ids(scripted, "dead") == []
    assert scripted.left() == 10
    assert working.stats.handled == 1
    coroutine: Any = watch.get_coro()
    coroutine.close()


def test_one_worker_in_one_loop_after_the_other(broker: AsyncBroker, scripted: Scripted) -> None:
    loops: list[object] = []

    async def handle(event: CloudEvent) -> None:
        loops.append(asyncio.get_running_loop())

    working = worker(broker, handle)
    for n in range(2):
        scripted.put(event(str(n)))
        assert asyncio.run(working.run(until_idle=0.05)).handled == n + 1
    assert len(set(loops)) == 2


# -- signals

PROGRAM = """
    import asyncio, sys
    import cloudevents_bridge as ceb

    topics = [ceb.Topic("orders", subscriptions=["billing"])]

    async def handle(event):
        print("begun", flush=True)
        await asyncio.sleep({seconds})
        print("ended", flush=True)

    async def main():
        async with ceb.aio.connect(sys.argv[1], topics=topics, create_missing=True) as broker:
            await broker.publish("orders", ceb.CloudEvent(type="com.example.a", source="/a"))
            worker = broker.worker(grace=30.0).add("orders", "billing", handle)
            print("stopped", (await worker.run()).handled, flush=True)

    {run}
"""
RUNS = {
    "asyncio": "asyncio.run(main())",
    "uvloop": "import uvloop; asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())",
}


def _program(tmp_path: Path, seconds: float, loop: str) -> subprocess.Popen[str]:
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    source = textwrap.dedent(PROGRAM.format(seconds=seconds, run=RUNS[loop]))
    url = f"sqlite:///{tmp_path}/events.db"
    program = subprocess.Popen([sys.executable, "-c", source, url], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "begun\n"
    return program


@pytest.mark.parametrize("loop", RUNS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_gracefully(tmp_path: Path, number: signal.Signals, loop: str) -> None:
    with _program(tmp_path, 0.3, loop) as program:
        program.send_signal(number)
        out, _ = program.communicate(timeout=30)
    assert (program.returncode, out) == (0, "ended\nstopped 1\n")


@pytest.mark.parametrize("loop", RUNS)
def test_the_second_interrupt_is_immediate(tmp_path: Path, loop: str) -> None:
    with _program(tmp_path, 60, loop) as program:
        program.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert program.poll() is None
        begun = time.monotonic()
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert program.returncode == -signal.SIGINT
    assert out == ""
