"""Programs that cases start in processes of their own: `python -m cloudevents_bridge_contract.programs NAME`.

The first line on standard input says where to work; what happened comes back on standard output, a JSON value a line.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from cloudevents_bridge import BridgeError, Broker, CloudEvent, Delivery, Topic, connect
from cloudevents_bridge_contract import intasks
from cloudevents_bridge_contract.crossing import packed, unpacked
from cloudevents_bridge_contract.rig import Rig


class Task(NamedTuple):
    """What a program is told."""

    url: str
    options: dict[str, Any]
    topics: list[dict[str, Any]]
    events: list[CloudEvent]
    settings: dict[str, Any]
    in_tasks: bool

    @classmethod
    def of(cls, rig: Rig, url: str, topic: Topic, events: list[CloudEvent], settings: Any) -> Task:
        return cls(url, dict(rig.options), packed([topic]), events, settings, rig.in_tasks)

    @property
    def topic(self) -> Topic:
        return unpacked(self.topics)[0]

    def connect(self) -> Broker:
        if self.in_tasks:
            return intasks.connect(intasks.Loop(), self.url, topics=[self.topic], **self.options)
        return connect(self.url, topics=[self.topic], **self.options)


class Program:
    """A running program."""

    def __init__(self, name: str, task: Task) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.tell(base64.b64encode(pickle.dumps(task)).decode())

    @classmethod
    @contextmanager
    def started(cls, name: str, task: Task) -> Iterator[Program]:
        self = cls(name, task)
        try:
            yield self
        finally:
            self.kill()
            self.process.communicate()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it, and what it has forked, as `kill -9` does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def said(self, timeout: float) -> Any:
        """The next thing it says."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(timeout, self.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, f"the program ended without a word, {self._trouble()}"
        return json.loads(line)

    def heard(self, timeout: float) -> list[Any]:
        """All that it says until it ends."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(timeout, self.kill)
        watchdog.start()
        try:
            said = self.process.stdout.read()
            self.process.wait()
        finally:
            watchdog.cancel()
        return [json.loads(line) for line in said.splitlines()]

    def ended(self, timeout: float) -> tuple[int, str]:
        """Its exit code, and what it complained of."""
        try:
            _, trouble = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program did not end within {timeout:g} s") from None
        return self.process.returncode, trouble.decode()

    def _trouble(self) -> str:
        code, trouble = self.ended(5)
        return f"exit code {code}: {trouble[-2000:]}"


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def leave_with_submits_pending(task: Task) -> None:
    """Submit, and end without flushing."""
    publisher = task.connect().publisher(task.topic.name, linger=5.0)
    for event in task.events:
        publisher.submit(event)
    say(len(task.events))


def fork_with_submits_pending(task: Task) -> None:
    """Use a broker, fork, and use it in parent and child."""
    broker = task.connect()
    publisher = broker.publisher(task.topic.name, linger=0.5)
    subscriber = broker.subscriber(task.topic.name, task.topic.subscriptions[0].name)
    first, buffered, in_child, in_parent = task.events
    publisher.publish(first)
    [mine] = subscriber.receive(1, wait=10)
    publisher.submit(buffered)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        report: dict[str, Any] = {}
        try:
            publisher.flush()  # of what the child submitted: nothing
            publisher.publish(in_child)
            report["published"] = True
            try:
                mine.ack()
                report["parent's delivery"] = "acked"
            except BridgeError as error:
                report["parent's delivery"] = str(error.code)
            received = subscriber.receive(1, wait=10)
            report["received"] = [d.event.id for d in received]
            subscriber.ack_many(received)
            broker.close()
        except BaseException as error:  # noqa: BLE001  the parent tells it
            report["error"] = repr(error)
        os.write(writer, json.dumps(report).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        say(json.loads(pipe.read()))
    mine.ack()
    publisher.publish(in_parent)
    broker.close()
    say("closed")


def fall_asleep_with_a_delivery(task: Task) -> None:
    """Take one delivery, wait to be told, then ack it. Meanwhile somebody stops the process, or moves the clock."""
    shift = task.settings["clock"]
    broker = task.connect()
    subscriber = broker.subscriber(task.topic.name, task.topic.subscriptions[0].name)
    [delivery] = subscriber.receive(1, wait=10)
    _move_clock(shift)
    say(delivery.event.id)
    sys.stdin.readline()
    report: dict[str, Any] = {"lease_lost": delivery.lease_lost}
    try:
        delivery.ack()
        report["ack"] = "done"
    except BridgeError as error:
        report["ack"] = str(error.code)
    say(report)
    broker.close()


def _move_clock(shift: float) -> None:
    """The wall clock, as this project's modules see it. What lies below them may ask the system, past Python: it would
    see two clocks at once, which no machine has.
    """
    real, real_ns = time.time, time.time_ns

    def ours() -> bool:
        return str(sys._getframe(2).f_globals.get("__name__")).startswith("cloudevents_bridge")

    time.time = lambda: real() + (shift if ours() else 0)
    time.time_ns = lambda: real_ns() + (int(shift * 1e9) if ours() else 0)


def die_with_deliveries(task: Task) -> None:
    """Take deliveries and wait to be killed."""
    subscriber = task.connect().subscriber(task.topic.name, task.topic.subscriptions[0].name)
    say([d.event.id for d in subscriber.receive(100, wait=10)])
    sys.stdin.readline()


def work(task: Task) -> None:
    """Run a worker until it is stopped, or idle. What a handler does its event says: `wait` to be told to go on, and
    then go on `for` some seconds, or `exit` at once.
    """

    def handle(delivery: Delivery) -> None:
        say(["began", delivery.event.id, delivery.attempt])
        do = delivery.event.data.get("do")
        if do == "wait":
            sys.stdin.readline()
            time.sleep(delivery.event.data.get("for", 0.0))
        elif do == "exit":
            os._exit(9)
        say(["done", delivery.event.id, delivery.attempt])

    settings = task.settings
    with task.connect() as broker:
        worker = broker.worker(grace=20.0)
        worker.add(task.topic.name, task.topic.subscriptions[0].name, handle, **settings.get("add", {}))
        stats = worker.run(until_idle=settings.get("until_idle"))
    say(["ended", stats.handled, stats.dead_lettered])


def fork_beside_a_worker(task: Task) -> None:
    """Fork while a handler runs. The child closes its copies; the handler, and what comes after, is the parent's."""
    entered, gate = threading.Event(), threading.Event()
    handled: list[list[str]] = []
    parent = os.getpid()

    def handle(delivery: Delivery) -> None:
        entered.set()
        gate.wait(20)
        handled.append(["parent" if os.getpid() == parent else "child", delivery.event.id])

    broker = task.connect()
    worker = broker.worker().add(task.topic.name, task.topic.subscriptions[0].name, handle)
    worker.start()
    entered.wait(20)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        try:
            worker.close(timeout=5)
            broker.close()
            report = "closed"
        except BaseException as error:  # noqa: BLE001  the parent tells it
            report = repr(error)
        os.write(writer, report.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        say({"child": pipe.read().decode()})
    gate.set()
    until = time.monotonic() + 20
    while worker.stats.handled < len(task.events) and time.monotonic() < until:
        time.sleep(0.01)
    broker.close()
    say(handled)


PROGRAMS: dict[str, Callable[[Task], None]] = {
    each.__name__: each
    for each in (
        leave_with_submits_pending,
        fork_with_submits_pending,
        fall_asleep_with_a_delivery,
        die_with_deliveries,
        work,
        fork_beside_a_worker,
    )
}

if __name__ == "__main__":
    # under its real name, so that what is pickled is known on both sides
    from cloudevents_bridge_contract import programs

    programs.PROGRAMS[sys.argv[1]](pickle.loads(base64.b64decode(sys.stdin.readline())))
