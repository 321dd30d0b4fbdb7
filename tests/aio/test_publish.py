"""Publishing from tasks: the same outcomes, no blocked loop, prompt cancellation, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import time
from collections.abc import Sequence

import pytest
from scripted import Outcome, Scripted, Sent, busy, event, refused
from tasks import LONG, PROMPT, Gate, cancelled, promptly, threads, until

from cloudevents_bridge import BridgeError, PublishError
from cloudevents_bridge.aio import AsyncBroker, AsyncPublisher
from cloudevents_bridge.aio.shell import SENDS
from cloudevents_bridge.driver import Done
from cloudevents_bridge.errors import (
    ClosedError,
    DeadlineExceededError,
    ErrorCode,
    InvalidArgumentError,
    PermissionDeniedError,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def publisher(broker: AsyncBroker) -> AsyncPublisher:
    return broker.publisher("orders")


async def test_publish_gives_the_receipt(broker: AsyncBroker, publisher: AsyncPublisher, scripted: Scripted) -> None:
    assert (await publisher.publish(event("1"))).event_id == "1"
    assert (await broker.publish("orders", event("2"))).native_id == "2"
    assert scripted.sent_ids() == ["1", "2"]
    assert publisher.topic == "orders"


async def test_publish_many_keeps_the_order(broker: AsyncBroker, publisher: AsyncPublisher, scripted: Scripted) -> None:
    receipts = await publisher.publish_many(event(str(n)) for n in range(25))
    assert [r.event_id for r in receipts] == [str(n) for n in range(25)]
    assert len(await broker.publish_many("orders", [event("x")])) == 1
    assert await publisher.publish_many([]) == []
    assert scripted.calls["send"] == 4


async def test_errors_come_out(publisher: AsyncPublisher, scripted: Scripted) -> None:
    scripted.on_send = lambda sent, timeout: [refused() if m.body.count(b'"bad"') else Done("x") for m in sent.batch]
    with pytest.raises(PermissionDeniedError):
        await publisher.publish(event("bad"))
    with pytest.raises(PublishError) as caught:
        await publisher.publish_many([event("1"), event("bad"), event("2")])
    assert [e.id for e, _ in caught.value.failed] == ["bad"]
    nothing: list[object] = [None]
    with pytest.raises(InvalidArgumentError, match="item 0"):
        await publisher.publish_many(nothing)  # type: ignore[arg-type]


async def test_the_loop_goes_on_while_the_broker_does_not_answer(publisher: AsyncPublisher, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    publishing = [asyncio.create_task(publisher.publish(event(str(n)))) for n in range(3)]
    await until(lambda: gate.waiting == 3)
    await promptly(asyncio.sleep(0.001))
    assert not any(task.done() for task in publishing)
    gate.open.set()
    assert [r.event_id for r in await asyncio.gather(*publishing)] == ["0", "1", "2"]


async def test_no_more_threads_publish_than_documented(publisher: AsyncPublisher, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    publishing = [asyncio.create_task(publisher.publish(event(str(n)))) for n in range(50)]
    await until(lambda: gate.waiting == SENDS)
    assert threads() == ["ceb-aio-send"] * SENDS
    gate.open.set()
    assert len(await asyncio.gather(*publishing)) == 50
    assert len(scripted.sends) == 50


async def test_the_context_of_the_task_is_that_of_the_thread(publisher: AsyncPublisher, scripted: Scripted) -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")
    seen: list[str] = []

    def on_send(sent: Sent, timeout: float) -> Sequence[Outcome]:
        seen.append(trace.get())
        return [Done("x")]

    scripted.on_send = on_send
    trace.set("mine")
    await publisher.publish(event())
    assert seen == ["mine"]


# -- time-outs and cancellation


async def test_a_cancelled_publish_returns_at_once_and_goes_on_in_its_thread(
    publisher: AsyncPublisher, scripted: Scripted
) -> None:
    gate = Gate().hold_sends(scripted)
    await cancelled(publisher.publish(event("1")), lambda: gate.waiting)
    gate.open.set()
    await until(lambda: not gate.waiting)
    assert scripted.sent_ids() == ["1"]


async def test_asyncio_timeout_ends_a_publish(publisher: AsyncPublisher, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await publisher.publish(event("1"))
    assert time.monotonic() - begun < PROMPT
    gate.open.set()


async def test_a_cancelled_publish_that_waits_for_a_thread_is_not_made(
    publisher: AsyncPublisher, scripted: Scripted
) -> None:
    gate = Gate().hold_sends(scripted)
    begun = [asyncio.create_task(publisher.publish(event(str(n)))) for n in range(SENDS)]
    await until(lambda: gate.waiting == SENDS)
    late = asyncio.create_task(publisher.publish(event("late")))
    await asyncio.sleep(0.01)
    late.cancel()
    await asyncio.wait([late], timeout=PROMPT)
    assert late.cancelled()
    gate.open.set()
    await asyncio.gather(*begun)
    await publisher.publish(event("after"))
    assert "late" not in scripted.sent_ids()


async def test_a_publish_that_gets_no_thread_in_time_says_so(publisher: AsyncPublisher, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    begun = [asyncio.create_task(publisher.publish(event(str(n)))) for n in range(SENDS)]
    await until(lambda: gate.waiting == SENDS)
    with pytest.raises(DeadlineExceededError, match=r"publish to topic orders .* was not begun") as caught:
        await promptly(publisher.publish(event("late"), timeout=0.05))
    assert not caught.value.maybe_applied
    gate.open.set()
    await asyncio.gather(*begun)
    assert "late" not in scripted.sent_ids()


async def test_the_time_out_counts_the_wait_for_a_thread(publisher: AsyncPublisher, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    left: list[float] = []
    held = scripted.on_send
    begun = [asyncio.create_task(publisher.publish(event(str(n)))) for n in range(SENDS)]
    await until(lambda: gate.waiting == SENDS)

    def on_send(sent: Sent, timeout: float) -> Sequence[Outcome]:
        left.append(timeout)
        return held(sent, timeout)

    scripted.on_send = on_send
    late = asyncio.create_task(publisher.publish(event("late"), timeout=LONG))
    await asyncio.sleep(0.1)
    gate.open.set()
    await asyncio.gather(*begun, late)
    assert left[0] <= LONG - 0.1


async def test_a_failure_that_nobody_waits_for_is_logged(
    publisher: AsyncPublisher, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    def on_send(sent: Sent, timeout: float) -> Sequence[Outcome]:
        gate.pass_through()
        return [refused()]

    scripted.on_send = on_send
    await cancelled(publisher.publish(event("1")), lambda: gate.waiting)
    gate.open.set()
    await until(lambda: "nobody waits for any more failed" in caplog.text)
    assert "publish to topic orders" in caplog.text
    assert "Traceback" not in caplog.text


# -- submit


async def test_submit_gives_a_future(publisher: AsyncPublisher, scripted: Scripted) -> None:
    future = await publisher.submit(event("1"))
    assert isinstance(future, asyncio.Future)
    assert (await promptly(future)).event_id == "1"
    assert threads() == ["ceb-publish-orders"]
    assert scripted.sent_ids() == ["1"]


async def test_submitted_events_are_batched(publisher: AsyncPublisher, scripted: Scripted) -> None:
    futures = [await publisher.submit(event(str(n))) for n in range(500)]
    await publisher.flush()
    assert [(await future).event_id for future in futures] == [str(n) for n in range(500)]
    assert scripted.calls["send"] <= 100


async def test_other_tasks_have_a_turn_while_one_submits(publisher: AsyncPublisher) -> None:
    turns = 0
    ended = False

    async def other() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for n in range(1000):
        await publisher.submit(event(str(n)))
    ended = True
    await task
    assert turns >= 10
    await publisher.flush()


async def test_a_full_buffer_holds_the_task_and_takes_no_thread(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    publisher = broker.publisher("orders", max_buffered=3)
    submitting = [asyncio.create_task(publisher.submit(event(str(n)))) for n in range(40)]
    await until(lambda: gate.waiting)
    await asyncio.sleep(0.02)
    assert sum(task.done() for task in submitting) == 3
    assert threads("ceb-aio") == []
    gate.open.set()
    futures = await promptly(asyncio.gather(*submitting))
    assert len(await promptly(asyncio.gather(*futures))) == 40


async def test_a_full_buffer_raises_where_that_was_asked_for(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    publisher = broker.publisher("orders", max_buffered=3, on_full="raise")
    for n in range(3):
        await publisher.submit(event(str(n)))
    with pytest.raises(BridgeError) as caught:
        await publisher.submit(event("4"))
    assert caught.value.code == ErrorCode.RESOURCE_EXHAUSTED
    gate.open.set()
    await publisher.flush()


async def test_a_cancelled_submit_is_not_made(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    publisher = broker.publisher("orders", max_buffered=1)
    await publisher.submit(event("1"))
    await until(lambda: gate.waiting)
    await cancelled(publisher.submit(event("2")), lambda: True)
    gate.open.set()
    await publisher.flush()
    assert scripted.sent_ids() == ["1"]


async def test_closing_lets_go_of_a_submit_that_waits(broker: AsyncBroker, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    publisher = broker.publisher("orders", max_buffered=1)
    await publisher.submit(event("1"))
    waiting = asyncio.create_task(publisher.submit(event("2")))
    await until(lambda: gate.waiting)
    with pytest.raises(PublishError):
        await broker.close(timeout=0.05)
    with pytest.raises(ClosedError):
        await promptly(waiting)
    gate.open.set()


async def test_cancelling_the_future_takes_the_event_back(broker: AsyncBroker, scripted: Scripted) -> None:
    publisher = broker.publisher("orders", linger=LONG)
    kept, taken_back = await publisher.submit(event("1")), await publisher.submit(event("2"))
    taken_back.cancel()
    await asyncio.sleep(0)  # its callbacks run
    await publisher.flush()
    assert (await promptly(kept)).event_id == "1"
    assert scripted.sent_ids() == ["1"]


async def test_a_failed_submit_is_told_by_its_future_and_by_flush_only(
    publisher: AsyncPublisher, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on_send = lambda sent, timeout: [refused()] * len(sent.batch)
    future = await publisher.submit(event("1"))
    await publisher.submit(event("2"))  # nobody looks at its future
    with pytest.raises(PublishError) as caught:
        await publisher.flush()
    assert [e.id for e, _ in caught.value.failed] == ["1", "2"]
    with pytest.raises(PermissionDeniedError):
        await future
    del future
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_flush_is_cancelled_promptly(publisher: AsyncPublisher, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    future = await publisher.submit(event("1"))
    await cancelled(publisher.flush(), lambda: threads("ceb-aio-call"))
    gate.open.set()
    assert (await promptly(future)).event_id == "1"


async def test_flush_in_no_time_says_so(publisher: AsyncPublisher, scripted: Scripted) -> None:
    gate = Gate().hold_sends(scripted)
    await publisher.submit(event("1"))
    with pytest.raises(DeadlineExceededError):
        await promptly(publisher.flush(timeout=0.05))
    gate.open.set()


# -- closing


async def test_close_flushes_and_tells(broker: AsyncBroker, scripted: Scripted) -> None:
    async with broker.publisher("orders", linger=LONG) as publisher:
        future = await publisher.submit(event("1"))
    assert (await promptly(future)).event_id == "1"
    assert publisher.closed
    await publisher.close()
    with pytest.raises(ClosedError):
        await publisher.publish(event("2"))
    scripted.on_send = lambda sent, timeout: [refused()]
    other = broker.publisher("orders")
    await other.submit(event("3"))
    with pytest.raises(PublishError):
        await other.close()
    await other.close()


async def test_a_cancelled_close_closes_and_its_error_is_the_next_ones(
    broker: AsyncBroker, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    def on_send(sent: Sent, timeout: float) -> Sequence[Outcome]:
        gate.pass_through()
        return [refused()]

    scripted.on_send = on_send
    publisher = broker.publisher("orders")
    await publisher.submit(event("1"))
    await cancelled(publisher.close(), lambda: gate.waiting and publisher.closed)
    gate.open.set()
    with pytest.raises(PublishError):
        await promptly(publisher.close())
    await publisher.close()
    assert caplog.get_records("call")[-1].levelno == logging.WARNING
    assert "went on after it was cancelled" in caplog.text


async def test_busy_is_tried_again(publisher: AsyncPublisher, scripted: Scripted) -> None:
    said: list[Outcome] = [busy(), busy()]
    scripted.on_send = lambda sent, timeout: [said.pop() if said else Done("x")]
    assert (await publisher.publish(event("1"))).native_id == "x"
