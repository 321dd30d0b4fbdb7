"""Starting, stopping and ending a worker."""

from __future__ import annotations

import os
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
from scripted import NativeError, Scripted, busy, event, refused, until

from cloudevents_bridge import Broker, CloudEvent, Delivery, Reject, RetryPolicy, Subscription, Topic, Worker, connect
from cloudevents_bridge.driver import Received
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    ErrorCode,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)

Opened = Callable[..., Broker]
SLACK = 1.0
"""Seconds that a busy machine may be late by, where a promise is in seconds."""
ORDERS = Topic("orders", subscriptions=[Subscription("billing", redelivery=RetryPolicy(initial=0.0, maximum=0.0))])


@pytest.fixture
def broker(opened: Opened) -> Broker:
    return opened(topics=[ORDERS])


class Gate:
    """A handler that waits."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.seen: list[str] = []

    def __call__(self, event: CloudEvent) -> None:
        self.seen.append(event.id)
        self.entered.release()
        assert self.opened.wait(10.0)

    def wait(self) -> None:
        assert self.entered.acquire(timeout=10.0)


def worker(broker: Broker, handler: Any, *, grace: float = 5.0, **options: Any) -> Worker:
    return broker.worker(grace=grace).add("orders", "billing", handler, **options)


def stop(working: Worker) -> None:
    """Have it stop, while handlers go on."""
    working.stop()
    until(lambda: all(consumer._inbox.stopping for consumer in working._consumers))


def test_it_works_beside_the_program(broker: Broker, scripted: Scripted) -> None:
    seen: list[str] = []
    with worker(broker, lambda event: seen.append(event.id)) as working:
        scripted.put(event("1"))
        until(lambda: scripted.verbs() == ["ack"])
        until(lambda: working.stats.connected)
    assert seen == ["1"]
    assert not working.stats.connected


def test_stop_lets_the_handler_end_and_gives_the_rest_back(broker: Broker, scripted: Scripted) -> None:
    gate = Gate()
    with worker(broker, gate) as working:
        for n in range(5):
            scripted.put(event(str(n)))
        gate.wait()
        stop(working)
        gate.opened.set()
    assert gate.seen == ["0"]
    assert [id for settled in scripted.settles if settled.verb == "ack" for id in settled.ids] == ["0"]
    assert {settled.verb for settled in scripted.settles} <= {"ack", "release"}
    assert scripted.left() == 4


def test_what_was_fetched_ahead_is_released_at_once(broker: Broker, scripted: Scripted) -> None:
    gate = Gate()
    seen = 0

    def handle(event: CloudEvent) -> None:
        nonlocal seen
        seen += 1
        if seen > 100:  # enough that some are fetched ahead
            gate(event)

    for n in range(2000):
        scripted.put(event(str(n)))
    with worker(broker, handle) as working:
        gate.wait()
        until(lambda: working._consumers[0]._inbox._lanes.ready)
        working.stop()
        until(lambda: "release" in scripted.verbs())
        assert working.stats.in_flight == 1
        gate.opened.set()
    assert not scripted.out
    assert {settled.verb for settled in scripted.settles} == {"ack", "release"}
    handled = [id for settled in scripted.settles if settled.verb == "ack" for id in settled.ids]
    assert len(handled) + scripted.left() == 2000
    assert len(handled) == len(set(handled)) == working.stats.handled


@pytest.mark.parametrize("grace", [0.0, 0.3])
def test_a_handler_that_hangs_is_left_behind_within_grace_and_a_second(
    broker: Broker, scripted: Scripted, grace: float, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    working = worker(broker, gate, grace=grace)
    working.start()
    scripted.put(event("17"))
    gate.wait()
    begun = time.monotonic()
    working.close()
    assert time.monotonic() - begun < grace + 1.0 + SLACK
    assert scripted.verbs() == ["release"]
    assert "event 17" in caplog.text
    gate.opened.set()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("ceb-run")])
    assert scripted.verbs() == ["release"]


def test_an_async_handler_that_hangs_is_cancelled(broker: Broker, scripted: Scripted) -> None:
    import asyncio

    entered, cancelled = threading.Event(), threading.Event()

    async def handle(event: CloudEvent) -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with worker(broker, handle, grace=0.1):
        scripted.put(event())
        assert entered.wait(10)
    assert cancelled.is_set()
    assert scripted.verbs() == ["release"]


def test_a_failure_while_it_stops_is_no_dead_letter(broker: Broker, scripted: Scripted) -> None:
    gate = threading.Event()
    entered = threading.Event()

    def handle(event: CloudEvent) -> None:
        entered.set()
        gate.wait(10)
        raise ValueError

    with worker(broker, handle) as working:
        scripted.put(event(), attempt=5)
        assert entered.wait(10)
        stop(working)
        gate.set()
    assert scripted.verbs() == ["release"]


def test_reject_while_it_stops_is_the_handlers_own_word(broker: Broker, scripted: Scripted) -> None:
    gate, entered = threading.Event(), threading.Event()

    def handle(event: CloudEvent) -> None:
        entered.set()
        gate.wait(10)
        raise Reject("bad")

    with worker(broker, handle) as working:
        scripted.put(event())
        assert entered.wait(10)
        stop(working)
        gate.set()
    assert scripted.verbs() == ["dead"]


def test_a_handler_may_stop_it(broker: Broker, scripted: Scripted) -> None:
    working = broker.worker()

    def handle(event: CloudEvent) -> None:
        working.stop()

    scripted.put(event())
    stats = working.add("orders", "billing", handle).run()
    assert stats.handled == 1
    assert scripted.verbs() == ["ack"]


def test_a_handler_may_close_it(broker: Broker, scripted: Scripted) -> None:
    working = broker.worker()

    def handle(event: CloudEvent) -> None:
        working.close()

    scripted.put(event())
    assert working.add("orders", "billing", handle).run().handled == 1
    assert scripted.verbs() == ["ack"]


def test_an_async_handler_may_close_it(broker: Broker, scripted: Scripted) -> None:
    working = broker.worker(grace=30.0)

    async def handle(event: CloudEvent) -> None:
        working.close()

    scripted.put(event("1"))
    working.add("orders", "billing", handle)
    begun = time.monotonic()
    assert working.run(signals=False).handled == 1
    assert time.monotonic() - begun < 15.0


def test_until_idle_ends_when_nothing_has_come_for_so_long(broker: Broker, scripted: Scripted) -> None:
    def handle(event: CloudEvent) -> None:
        time.sleep(0.01)
        if event.id != "3":
            scripted.put(event.replace(id=str(int(event.id) + 1)))

    scripted.put(event("1"))
    begun = time.monotonic()
    stats = worker(broker, handle).run(until_idle=1.0)
    assert stats.handled == 3
    assert time.monotonic() - begun >= 1.0


def test_a_broker_that_is_down_is_not_idle(
    broker: Broker, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    down = threading.Event()
    down.set()

    def receive() -> None:
        if down.is_set():
            raise NativeError(busy())

    scripted.on_receive = receive
    seen: list[str] = []
    working = worker(broker, lambda event: seen.append(event.id))
    thread = threading.Thread(target=lambda: working.run(until_idle=0.05))
    thread.start()
    until(lambda: scripted.calls["receive"] > 20)
    assert thread.is_alive()
    assert not working.stats.connected
    scripted.put(event("1"))
    down.clear()
    thread.join(10)
    assert seen == ["1"]
    assert len([r for r in caplog.records if "trying again until it works" in r.message]) == 1
    assert len([r for r in caplog.records if "works again" in r.message]) == 1


def test_a_missing_subscription_stops_the_worker_and_comes_out_of_run(broker: Broker, scripted: Scripted) -> None:
    def receive() -> None:
        raise NativeError(refused(ErrorCode.NOT_FOUND))

    scripted.on_receive = receive
    with pytest.raises(NotFoundError, match="orders/billing"):
        worker(broker, print).run()


def test_credentials_that_never_worked_come_out_of_close(broker: Broker, scripted: Scripted) -> None:
    def receive() -> None:
        raise NativeError(refused(ErrorCode.PERMISSION_DENIED))

    scripted.on_receive = receive
    with pytest.raises(PermissionDeniedError), worker(broker, print) as working:
        until(lambda: not working._running)


def test_credentials_that_fail_later_are_tried_for_ten_minutes(
    broker: Broker, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = threading.Event()

    def receive() -> None:
        if fails.is_set():
            raise NativeError(refused(ErrorCode.UNAUTHENTICATED))

    scripted.on_receive = receive
    working = worker(broker, print)
    working.start()
    until(lambda: working.stats.connected)
    fails.set()
    scripted.put(event("wake"))
    before = scripted.calls["receive"]
    until(lambda: scripted.calls["receive"] > before + 10)
    monkeypatch.setattr("cloudevents_bridge.core.contact.PATIENCE", 0.0)
    with pytest.raises(BridgeError) as caught:
        until(lambda: not working._running)
        working.close()
    assert caught.value.code is ErrorCode.UNAUTHENTICATED


def test_a_handler_that_ends_the_program_ends_the_worker(broker: Broker, scripted: Scripted) -> None:
    def handle(event: CloudEvent) -> None:
        raise SystemExit(3)

    scripted.put(event())
    with pytest.raises(SystemExit) as caught:
        worker(broker, handle).run()
    assert caught.value.code == 3
    assert scripted.verbs() == ["release"]


def test_a_stop_before_it_runs_is_not_lost(broker: Broker, scripted: Scripted) -> None:
    scripted.put(event())
    working = worker(broker, lambda event: None)
    working.stop()
    assert working.run().handled == 0
    assert working.run(until_idle=0.05).handled == 1


def test_it_may_run_again_and_counts_on(broker: Broker, scripted: Scripted) -> None:
    working = worker(broker, lambda event: None)
    for n in range(2):
        scripted.put(event(str(n)))
        assert working.run(until_idle=0.05).handled == n + 1


def test_what_cannot_be_is_refused(broker: Broker) -> None:
    with pytest.raises(InvalidArgumentError, match="nothing to do"):
        broker.worker().run()
    with pytest.raises(InvalidArgumentError, match="grace is -1"):
        broker.worker(grace=-1)
    working = worker(broker, print)
    with pytest.raises(InvalidArgumentError, match="until_idle"):
        working.run(until_idle=-1)
    with working:
        with pytest.raises(BridgeError, match="runs already"):
            working.run()
        with pytest.raises(BridgeError, match="before it is started"):
            working.add("orders", "billing", print)
    with pytest.raises(ClosedError):
        working.start()


def test_closing_the_broker_closes_its_workers(opened: Opened, scripted: Scripted) -> None:
    broker = opened(topics=[ORDERS])
    working = worker(broker, lambda event: None)
    working.start()
    broker.close()
    assert working.closed
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("ceb-")])


def test_a_handler_publishes_while_the_broker_closes(opened: Opened, scripted: Scripted) -> None:
    broker = opened(topics=[ORDERS])
    gate = Gate()
    publisher = broker.publisher("invoices", linger=30.0)

    def handle(event_: CloudEvent) -> None:
        gate(event_)
        publisher.submit(event("submitted"))
        broker.publish("invoices", event("published"))

    worker(broker, handle).start()
    scripted.put(event("1"))
    gate.wait()
    closing = threading.Thread(target=broker.close)
    closing.start()
    until(lambda: broker._consuming[0].closed)
    gate.opened.set()
    closing.join(15.0)
    assert scripted.verbs() == ["ack"]
    assert sorted(scripted.sent_ids()) == ["published", "submitted"]


def test_all_consumers_are_stopped_before_one_is_waited_for(
    opened: Opened, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: set[object] = set()
    all_stopped = threading.Event()
    in_time: list[bool] = []

    def receive(self: Any, most: int, wait: float) -> Received:
        scripted.receiving += 1
        in_time.append(all_stopped.wait(10.0))
        return Received()

    def stop(self: Any) -> None:
        stopped.add(self)
        if len(stopped) == 3:
            all_stopped.set()

    monkeypatch.setattr("scripted.ScriptedSubscriber.receive", receive)
    monkeypatch.setattr("scripted.ScriptedSubscriber.stop", stop)
    broker = opened()
    waiting = [
        threading.Thread(target=broker.subscriber("orders", name).receive, kwargs={"wait": 30.0})
        for name in ("billing", "shipping")
    ]
    for thread in waiting:
        thread.start()
    working = broker.worker().add("orders", "stock", print)
    working.start()
    until(lambda: scripted.receiving == 3)
    broker.close()
    for thread in waiting:
        thread.join(15.0)
    assert in_time == [True] * 3


def test_several_subscriptions_share_one_worker(opened: Opened, scripted: Scripted) -> None:
    topic = Topic("orders", subscriptions=["billing", "shipping"])
    seen: list[tuple[str, str]] = []

    def handle(delivery: Delivery) -> None:
        seen.append((delivery.subscription, delivery.event.id))

    scripted.put(event("1"), place="subscription orders/billing")
    scripted.put(event("1"), place="subscription orders/shipping")
    working = opened(topics=[topic]).worker()
    working.add("orders", "billing", handle).add("orders", "shipping", handle)
    assert working.run(until_idle=0.05).handled == 2
    assert sorted(seen) == [("billing", "1"), ("shipping", "1")]


def test_dead_letters_are_handled_and_removed_or_stay(opened: Opened, scripted: Scripted) -> None:
    for n in range(3):
        scripted.put(event(str(n)), place="dead letters of orders/billing", attempt=30)
    seen: list[str] = []

    def handle(event: CloudEvent) -> None:
        seen.append(event.id)
        if event.id == "1":
            raise Reject("still bad")

    broker = opened(topics=[ORDERS])
    with broker.worker().add("orders", "billing", handle, dead_letters=True) as working:
        until(lambda: seen.count("1") >= 2 and working.stats.handled >= 2)
    assert scripted.calls["dead"] == 0
    assert working.stats.dead_lettered == 0
    assert len(scripted.letters()) == 1


def test_concurrency_is_reached_and_not_exceeded(broker: Broker, scripted: Scripted) -> None:
    gate = Gate()
    with worker(broker, gate, concurrency=5):
        for n in range(20):
            scripted.put(event(str(n)))
        for _ in range(5):
            gate.wait()
        assert not gate.entered.acquire(timeout=0.05)
        gate.opened.set()
        until(lambda: len(gate.seen) == 20)


PROGRAM = """
    import signal, sys, threading
    import cloudevents_bridge as ceb

    topics = [ceb.Topic("orders", subscriptions=["billing"])]
    broker = ceb.connect(sys.argv[1], topics=topics, create_missing=True)
    broker.publish("orders", ceb.CloudEvent(type="com.example.order", source="/shop"))
    gate = threading.Event()

    def handle(event):
        print("handling", flush=True)
        gate.wait({seconds})

    worker = broker.worker(grace=20).add("orders", "billing", handle)
    try:
        stats = worker.run()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    else:
        print("handled", stats.handled, flush=True)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""


def _program(tmp_path: Path, seconds: float) -> subprocess.Popen[str]:
    code = textwrap.dedent(PROGRAM.replace("{seconds}", str(seconds)))
    url = f"sqlite:///{tmp_path}/events.db"
    process = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "handling\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    process = _program(tmp_path, 0.5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert output == "handled 1\n"
    assert process.returncode == 0


UNHEARD = """
    import asyncio, os, signal, sys, threading, time
    import cloudevents_bridge as ceb
    from cloudevents_bridge import aio

    def end(worker):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        while not worker.stats.connected:
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    def begin(worker):
        worker.add("orders", "billing", print)
        threading.Thread(target=end, args=[worker], daemon=True).start()
        return worker

    async def work():
        broker = aio.connect(sys.argv[1], topics=topics, create_missing=True)
        await begin(broker.worker()).run()

    topics = [ceb.Topic("orders", subscriptions=["billing"])]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if sys.argv[2] == "tasks":
        asyncio.run(work())
    else:
        begin(ceb.connect(sys.argv[1], topics=topics, create_missing=True).worker()).run()
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no thread can leave a signal to another here")
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_signal_that_wakes_nobody_is_heard(tmp_path: Path, kind: str) -> None:
    """Python handles signals in the main thread. One that came just before it began to wait does not wake it; nor does
    one that another thread took, as here.
    """
    command = [sys.executable, "-c", textwrap.dedent(UNHEARD), f"sqlite:///{tmp_path}/events.db", kind]
    subprocess.run(command, timeout=20, check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_just_before_it_waits_is_heeded(tmp_path: Path, number: signal.Signals) -> None:
    """Then it does not end the wait. `interrupt_main` makes it so, every time."""
    code = textwrap.dedent(PROGRAM).replace(
        'print("handling", flush=True)', f"import _thread; _thread.interrupt_main({int(number)}); print('handling')"
    )
    url = f"sqlite:///{tmp_path}/events.db"
    done = subprocess.run(
        [sys.executable, "-c", code.replace("{seconds}", "0.5"), url], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "handling\nhandled 1\n", done.stderr


def test_the_second_interrupt_is_immediate(tmp_path: Path) -> None:
    process = _program(tmp_path, 60)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < 10:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    output, _ = process.communicate(timeout=20)
    assert output == "interrupted\n"
    assert time.monotonic() - begun < 10
    with connect(f"sqlite:///{tmp_path}/events.db") as broker, broker.subscriber("orders", "billing") as subscriber:
        [delivery] = subscriber.receive(wait=5)
        assert delivery.attempt == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_has_no_worker_and_can_start_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    seen = tmp_path / "seen"
    with connect(url, topics=[Topic("orders", subscriptions=["billing"])], create_missing=True) as broker:
        working = broker.worker().add("orders", "billing", lambda event: seen.write_text(f"{os.getpid()}"))
        working.start()
        until(lambda: working.stats.connected)
        working.stop()
        until(lambda: not working._running)
        child = os.fork()
        if child == 0:
            try:
                broker.publish("orders", event("1"))
                os._exit(0 if working.run(until_idle=0.1).handled == 1 else 1)
            except BaseException:  # noqa: BLE001 - the child must not run the parent's tests
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert seen.read_text() == str(child)
