"""Opening, sharing, breaking, forking and closing."""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import pytest

from cloudevents_bridge import BridgeError, Broker, CloudEvent, PublishError, RetryPolicy, Topic
from cloudevents_bridge.errors import ClosedError, ErrorCode, NotFoundError
from cloudevents_bridge_contract.bench import Bench, keys, native_place, together
from cloudevents_bridge_contract.outcomes import NotRun
from cloudevents_bridge_contract.programs import Program, Task

LEFT = (2, 3)
"""What `_use_everything` leaves in each of its two subscriptions."""


def _use_everything(bench: Bench, topic: Topic, broker: Broker) -> None:
    broker.ping()
    publisher = broker.publisher(topic.name)
    publisher.publish_many(bench.events(3))
    publisher.submit(bench.event())
    publisher.flush()
    subscriber = broker.subscriber(topic.name, topic.subscriptions[0].name)
    for number, delivery in enumerate(bench.gather(subscriber, 4, ack=False)):
        if number < 2:
            delivery.ack()
    for delivery in broker.subscriber(topic.name, topic.subscriptions[1].name):
        delivery.dead_letter("the case wants it dead")
        break
    list(broker.dead_letters(topic.name, topic.subscriptions[1].name).find())
    assert subscriber.receive(wait=0) == []


class LifeCases:
    def test_connecting_does_no_io(self, bench: Bench) -> None:
        before = _threads()
        with bench.rig.broker(bench.url, topics=[bench.declare()]) as broker:
            broker.publisher(bench.name("none"))
            broker.subscriber(bench.name("none"), "alpha")
            broker.dead_letters(bench.name("none"), "alpha")
            assert _threads() <= before, "an unused connection has threads"

    def test_ping(self, bench: Bench) -> None:
        broker = bench.broker(bench.topic())
        broker.ping()
        broker.close()
        with pytest.raises(ClosedError):
            broker.ping()

    def test_closing_leaves_nothing(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        topic = bench.topic(2)
        draining = bench.broker(topic)
        draining.ping()
        with bench.rig.broker(bench.url, topics=[topic]) as broker:
            _use_everything(bench, topic, broker)  # whatever is made once per process is there now
        for each, left in zip(topic.subscriptions, LEFT, strict=True):
            with draining.subscriber(topic.name, each.name) as subscriber:
                bench.gather(subscriber, left)
        threads, files = _threads(), _open_files()
        with bench.rig.broker(bench.url, topics=[topic]) as broker:
            _use_everything(bench, topic, broker)
        bench.eventually(lambda: _threads() <= threads, "the threads end")
        with suppress(AssertionError):
            bench.eventually(lambda: not _more(files, _open_files()), "files and sockets are closed")
        assert _more(files, _open_files()) == [], "files or sockets were left open"
        assert list(tmp_path.iterdir()) == [], "a temporary file was left"

    def test_closing_twice(self, bench: Bench) -> None:
        topic = bench.topic(2)
        broker = bench.rig.broker(bench.url, topics=[topic])
        publisher = broker.publisher(topic.name)
        subscriber = broker.subscriber(topic.name, topic.subscriptions[0].name)
        publisher.publish(bench.event())
        subscriber.receive(wait=0)
        for thing in (publisher, subscriber, broker, publisher, subscriber, broker):
            thing.close()
            thing.close()
        unused = bench.rig.broker(bench.url)
        unused.close()
        unused.close()

    def test_closing_the_broker_closes_what_it_gave(self, bench: Bench) -> None:
        topic = bench.topic()
        broker = bench.rig.broker(bench.url, topics=[topic])
        publisher = broker.publisher(topic.name)
        subscriber = broker.subscriber(topic.name, topic.subscriptions[0].name)
        submitted = [publisher.submit(bench.event()) for _ in range(10)]
        held = bench.one(subscriber)
        broker.close()
        assert all(f.done() and f.exception() is None for f in submitted), "close lost events that were submitted"
        uses: list[Callable[[], object]] = [
            lambda: publisher.publish(bench.event()),
            lambda: subscriber.receive(wait=0),
            lambda: broker.publish(topic.name, bench.event()),
            lambda: broker.dead_letters(topic.name, topic.subscriptions[0].name).find().__next__(),
        ]
        for use in uses:
            with pytest.raises(ClosedError):
                use()
        with pytest.raises(BridgeError):
            held.ack()
        bench.gather(bench.subscriber(topic), 10)

    def test_unsettled_deliveries_are_given_back_on_close(self, bench: Bench) -> None:
        topic = bench.topic(lease=bench.rig.patience * 4)
        bench.publish(topic, *(events := bench.events(5)))
        with bench.rig.broker(bench.url, topics=[topic]) as broker:
            subscriber = broker.subscriber(topic.name, topic.subscriptions[0].name)
            bench.gather(subscriber, 5, ack=False)
        arrived = bench.gather(bench.subscriber(topic), 5)
        assert sorted(keys(arrived)) == sorted(keys(events))
        free = bench.driver().open_subscriber(native_place(topic, 0)).traits.free_release
        assert {d.attempt for d in arrived} == {1 if free else 2}, "closing spent attempts"

    def test_threads_are_those_documented(self, bench: Bench) -> None:
        topic = bench.topic(2)
        before = len(_threads())
        broker = bench.broker(topic)
        broker.publish(topic.name, bench.event())
        for _ in range(30):
            broker.publisher(topic.name).publish(bench.event())
        several = bench.driver().open_publisher(native_place(topic)).traits.sends > 1
        allowed = bench.rig.threads_to_send + (8 if several else 0)
        assert len(_threads()) - before <= allowed, "publishing one by one started threads"
        broker.publisher(topic.name).submit(bench.event()).result(timeout=bench.rig.patience)
        allowed += 1
        assert len(_threads()) - before <= allowed, "submit started more than its one thread"
        for index in range(2):
            subscriber = bench.subscriber(topic, index, broker=broker)
            bench.gather(subscriber, 32)
            allowed += 1 + bench.rig.threads_to_receive
            assert len(_threads()) - before <= allowed, "a subscriber started more than its one thread"

    def test_one_broker_in_many_threads(self, bench: Bench) -> None:
        topic = bench.topic()
        broker = bench.broker(topic)
        subscriber = bench.subscriber(topic, broker=broker)
        each = max(bench.many(160) // 8, 1)
        events = [bench.events(each) for _ in range(8)]
        deadline = time.monotonic() + bench.rig.patience
        lock = threading.Lock()
        got: list[str] = []

        def publish(batch: list[CloudEvent]) -> None:
            for event in batch:
                broker.publish(topic.name, event)

        def consume() -> None:
            while len(set(got)) < 8 * each and time.monotonic() < deadline:
                deliveries = subscriber.receive(5, wait=0.3)
                with lock:
                    got.extend(keys(deliveries))
                subscriber.ack_many(deliveries)

        publishing: list[Callable[[], None]] = [partial(publish, batch) for batch in events]
        together([*publishing, *[consume] * 4])
        bench.each_once(got, [event.id for batch in events for event in batch])

    def test_connections_break(self, bench: Bench) -> None:
        topic = bench.topic()
        retry = RetryPolicy(attempts=20, initial=0.05, maximum=0.5)
        publisher = bench.publishing(topic, retry=retry)
        consumer = bench.broker(topic, retry=retry)
        subscriber = bench.subscriber(topic, broker=consumer)
        publisher.publish(topic.name, bench.event())
        bench.gather(subscriber, 1)
        for _ in range(3):
            bench.rig.break_connections()
            publisher.publish_many(topic.name, events := bench.events(5))
            arrived = bench.gather(subscriber, 5)
            assert sorted(keys(arrived)) == sorted(keys(events))

    def test_errors_cross_processes(self, bench: Bench) -> None:
        topic = bench.declare(0)
        broker = bench.broker(topic, create_missing=False)
        with pytest.raises(NotFoundError) as one:
            broker.publish(topic.name, bench.event())
        with pytest.raises(PublishError) as many:
            broker.publish_many(topic.name, events := bench.events(2))
        copy = pickle.loads(pickle.dumps(one.value))
        assert (type(copy), str(copy), copy.code, copy.broker) == (
            NotFoundError,
            str(one.value),
            ErrorCode.NOT_FOUND,
            one.value.broker,
        )
        several = pickle.loads(pickle.dumps(many.value))
        assert [(e.id, error.code) for e, error in several.failed] == [(e.id, ErrorCode.NOT_FOUND) for e in events]

    @pytest.mark.parametrize("data", [None, {"a": 1}, b"\x00\xff", b"", "text"], ids=range(5))
    def test_events_cross_processes(self, bench: Bench, data: object) -> None:
        event = bench.event(data=data, extensions={"n": 7}, datacontenttype="text/plain" if data == "text" else None)
        copy = pickle.loads(pickle.dumps(event))
        assert (copy, copy.data, copy.data_bytes) == (event, event.data, event.data_bytes)
        topic = bench.topic()
        bench.publish(topic, copy)
        bench.one(bench.subscriber(topic), event).ack()

    def test_consumer_that_is_killed_loses_nothing(self, bench: Bench) -> None:
        topic = bench.topic(lease=max(1.0, bench.lease))
        bench.publish(topic, *(events := bench.events(10)))
        with start_program(bench, "die_with_deliveries", topic) as program:
            taken = program.said(bench.rig.patience)
            assert taken
            program.kill()
            program.process.wait()
        arrived = bench.gather(bench.subscriber(topic), 10, patience=1 + bench.lease + bench.rig.patience)
        assert sorted(keys(arrived)) == sorted(keys(events))

    def test_program_that_ends_with_submits_pending_loses_nothing(self, bench: Bench) -> None:
        topic = bench.topic()
        events = bench.events(50)
        with start_program(bench, "leave_with_submits_pending", topic, events) as program:
            assert program.said(bench.rig.patience) == 50
            code, complaint = program.ended(bench.rig.patience + 10)
        assert (code, complaint) == (0, "")
        bench.gather(bench.subscriber(topic), 50)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: there is no fork here")
    def test_fork(self, bench: Bench) -> None:
        topic = bench.topic()
        events = bench.events(4)
        first, buffered, in_child, in_parent = events
        with start_program(bench, "fork_with_submits_pending", topic, events) as program:
            report = program.said(2 * bench.rig.patience)
            assert "error" not in report, report
            assert report["published"]
            assert report["parent's delivery"] == ErrorCode.CLOSED, "the child settled the parent's delivery"
            [received] = report["received"]
            assert received in {buffered.id, in_child.id}
            assert program.said(bench.rig.patience) == "closed"
            code, complaint = program.ended(bench.rig.patience)
        assert (code, complaint) == (0, "")
        rest = {buffered.id, in_child.id, in_parent.id} - {received}
        assert set(keys(bench.gather(bench.subscriber(topic), 2))) == rest, f"{first.id} was acked by the parent"
        bench.nothing(bench.subscriber(topic), 0.3, "the child sent what the parent had buffered")


def start_program(
    bench: Bench, name: str, topic: Topic, events: list[CloudEvent] | None = None, **settings: object
) -> AbstractContextManager[Program]:
    if not bench.rig.crosses_processes:
        raise NotRun("the broker lives in one process")
    return Program.started(name, Task.of(bench.rig, bench.url, topic, events or [], settings))


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def _more(before: list[str], now: list[str]) -> list[str]:
    """What is open now and was not before."""
    return list((Counter(now) - Counter(before)).elements())


def _open_files() -> list[str]:
    """What this process has open, where the system tells."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return []
    found = []
    for each in folder.iterdir():
        try:
            found.append(str(each.readlink()))
        except OSError:
            continue  # it was the listing itself
    return found
