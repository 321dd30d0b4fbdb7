"""Order per key with workers: what runs, what waits, and what a failed run holds."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence

from cloudevents_bridge import CloudEvent, Delivery, Reject, Retry
from cloudevents_bridge.driver import Fault, Inbound, Verb
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_contract.bench import Bench, together
from cloudevents_bridge_contract.faulty import refused
from cloudevents_bridge_contract.handling import (
    GRACE,
    Backlog,
    Runs,
    all_done,
    each_handled_once,
    fetch_ahead,
    running,
    work,
    worker_of,
)
from cloudevents_bridge_contract.suite.life import start_program
from cloudevents_bridge_contract.suite.worker_trouble import Settles


def keyed(bench: Bench, count: int, key_count: int) -> list[CloudEvent]:
    return [bench.event(partitionkey=f"key-{n % key_count}") for n in range(count)]


def expect_order(runs: Runs, events: Sequence[CloudEvent]) -> None:
    """First runs of each key came in the order of publishing, and no two of a key ran at one time."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for event in events:
        wanted[event.partitionkey or ""].append(event.id)
    for key, order in runs.first_runs(wanted).items():
        assert order == wanted[key], f"key {key}: published {wanted[key]}, first run {order}"
    assert runs.clashes == [], f"two events of a key ran at one time: {sorted(set(runs.clashes))}"


def expect_handled_in_order(runs: Runs, events: Sequence[CloudEvent]) -> None:
    """Of each key, no event ran before the one before it had been handled."""
    expect_order(runs, events)
    handled: dict[str, set[str]] = defaultdict(set)
    before: dict[str, list[str]] = defaultdict(list)
    earlier: dict[str, set[str]] = {}
    for event in events:
        earlier[event.id] = set(before[event.partitionkey or ""])
        before[event.partitionkey or ""].append(event.id)
    moments = sorted(
        [(run.began, 0, run) for run in runs.all] + [(run.ended or 0.0, 1, run) for run in runs.all],
        key=lambda moment: moment[:2],
    )
    for _, ended, run in moments:
        key = run.event.partitionkey or ""
        if ended and run.error is None:
            handled[key].add(run.event.id)
        elif not ended:
            missing = earlier[run.event.id] - handled[key]
            assert not missing, f"{run.event.id} of {key} ran while {sorted(missing)}, before it, had not been handled"


class OrderWorkerCases:
    def test_order_per_key_with_concurrent_workers(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        events = keyed(bench, bench.many(1000), 20)
        runs = Runs()
        workers = [work(bench, topic, runs, concurrency=4) for _ in range(3)]
        publisher = bench.publisher(topic)

        def publish() -> None:
            for start in range(0, len(events), 250):
                publisher.publish_many(events[start : start + 250])

        together([publish, lambda: all_done(bench, runs, events, patience=3 * bench.rig.patience)])
        for worker in workers:
            worker.close()
        expect_order(runs, events)
        each_handled_once(bench, runs, events)

    def test_keys_run_side_by_side(self, bench: Bench) -> None:
        """One at a time of a key, and as many keys at once as there are handlers."""

        def meet(delivery: Delivery) -> None:
            while runs.most < 4 and time.monotonic() < deadline:
                time.sleep(0.005)

        topic = bench.topic(ordered=True)
        events = keyed(bench, 48, 6)
        bench.publish(topic, *events)
        deadline = time.monotonic() + bench.rig.patience
        runs = Runs(meet)
        work(bench, topic, runs, concurrency=4)
        all_done(bench, runs, events, patience=2 * bench.rig.patience)
        assert runs.most == 4, f"{runs.most} of six keys ran at once where concurrency is 4"
        expect_handled_in_order(runs, events)

    def test_events_without_a_key_run_side_by_side(self, bench: Bench) -> None:
        def meet(delivery: Delivery) -> None:
            while runs.most < 4 and time.monotonic() < deadline:
                time.sleep(0.005)

        topic = bench.topic(ordered=True)
        bench.publish(topic, *(events := bench.events(20)))
        deadline = time.monotonic() + bench.rig.patience
        runs = Runs(meet)
        work(bench, topic, runs, concurrency=4)
        all_done(bench, runs, events, patience=2 * bench.rig.patience)
        assert runs.most == 4, f"{runs.most} events without a key ran at once where concurrency is 4"

    def test_failed_key_holds_only_its_own_in_a_worker(self, bench: Bench) -> None:
        def handle(delivery: Delivery) -> None:
            if delivery.event.id == blocked[0].id and delivery.attempt == 1:
                raise Retry(wait, "not now")

        wait = 1.0 + bench.rig.wakeup
        topic = bench.topic(ordered=True)
        blocked = [bench.event(partitionkey="blocked") for _ in range(5)]
        free = keyed(bench, 40, 4)
        events = [blocked[0], *free[:20], *blocked[1:], *free[20:]]
        bench.publish(topic, *events)
        runs = Runs(handle)
        worker = work(bench, topic, runs, concurrency=2)
        all_done(bench, runs, events)
        worker.close()
        expect_handled_in_order(runs, events)
        first, second = runs.of(blocked[0])
        assert second.began - (first.ended or 0.0) >= wait - 0.05, "the retry came before its time"
        late = [event.id for event in free if runs.of(event)[0].began > second.began]
        assert late == [], f"{len(late)} events of other keys waited for the one that failed"
        for event in [*blocked[1:], *free]:
            assert [run.attempt for run in runs.of(event)] == [1], "an event spent an attempt waiting for its key"

    def test_retries_neither_overtake_nor_are_overtaken(self, bench: Bench) -> None:
        rng = random.Random(11)
        failing: dict[str, int] = {}

        def handle(delivery: Delivery) -> None:
            if delivery.attempt <= failing[delivery.event.id]:
                if delivery.attempt == 1:
                    raise ValueError("not yet")
                raise Retry(0.01, "not yet")

        topic = bench.topic(ordered=True)
        events = keyed(bench, bench.many(60), 6)
        failing |= {event.id: rng.choice([0, 0, 1, 2]) for event in events}
        runs = Runs(handle)
        shim = Backlog()
        workers = [work(bench, topic, runs, concurrency=3, broker=bench.broker(topic, shim=shim)) for _ in range(2)]
        fetch_ahead(bench, topic, runs, shim, events)
        all_done(bench, runs, events, patience=3 * bench.rig.patience)
        for worker in workers:
            worker.close()
        expect_handled_in_order(runs, events)
        assert {event.id: len(runs.of(event)) - 1 for event in events} == failing

    def test_rejected_head_lets_its_key_go_on(self, bench: Bench) -> None:
        def handle(delivery: Delivery) -> None:
            if delivery.event.id in {dead[0].id, dead[1].id}:
                raise Reject("of no use")

        topic = bench.topic(ordered=True)
        events = [bench.event(partitionkey="one") for _ in range(6)]
        dead = events[0], events[3]
        bench.publish(topic, *events)
        runs = Runs(handle)
        worker = work(bench, topic, runs, concurrency=3)
        all_done(bench, runs, [event for event in events if event not in dead])
        letters = bench.letters(topic, 2)
        worker.close()
        assert {letter.event.id for letter in letters if letter.event} == {event.id for event in dead}
        expect_order(runs, events)
        assert {run.attempt for run in runs.all} == {1}

    def test_lost_lease_of_the_head_drops_its_key(self, bench: Bench) -> None:
        """What was fetched behind a head whose lease is lost may not run before it: the head comes first again."""
        ran = threading.Event()  # attempts do not tell: the broker itself knows of no lease that was lost

        class Loses(Backlog, Settles):
            def instead(self, verb: Verb, message: Inbound) -> Fault | None:
                lost = verb == "extend" and not ran.is_set() and b'"head"' in message.body
                return refused(ErrorCode.LEASE_LOST) if lost else None

        def handle(delivery: Delivery) -> None:
            if delivery.event.id == events[0].id and not ran.is_set():
                bench.eventually(lambda: delivery.lease_lost, "the lease is lost", patience=lease + bench.rig.patience)
                ran.set()

        lease = max(1.0, bench.lease)
        topic = bench.topic(ordered=True, lease=lease)
        events = [bench.event(partitionkey="one", data=word) for word in ("head", "second", "third", "fourth")]
        runs = Runs(handle)
        shim = Loses()
        worker = work(bench, topic, runs, concurrency=2, broker=bench.broker(topic, shim=shim))
        fetch_ahead(bench, topic, runs, shim, events)
        all_done(bench, runs, events, patience=3 * lease + bench.rig.patience)
        bench.eventually(lambda: len(runs.of(events[0])) == 2, "the head runs again", patience=lease + GRACE)
        worker.close()
        expect_order(runs, events)
        second = runs.of(events[0])[1].began
        early = [event.id for event in events[1:] if runs.of(event)[0].began < second]
        assert early == [], "an event ran although the one before it had lost its lease"

    def test_order_survives_restarts_of_the_worker(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        events = keyed(bench, bench.many(200), 8)
        bench.publish(topic, *events)
        runs = Runs(lambda delivery: time.sleep(0.001))
        for target in (20, 60, 100):
            worker = worker_of(bench, topic, runs, concurrency=4)
            ended = running(bench, worker)
            goal = min(target, len(events) // 2)
            bench.eventually(lambda goal=goal: len(runs.done()) >= goal, "a part is handled")  # type: ignore[misc]
            worker.stop()
            ended.within(bench.rig.patience)
        last = work(bench, topic, runs, concurrency=4)
        all_done(bench, runs, events, patience=2 * bench.rig.patience)
        last.close()
        expect_handled_in_order(runs, events)
        each_handled_once(bench, runs, events)

    def test_order_survives_a_worker_that_is_killed(self, bench: Bench) -> None:
        lease = max(1.0, bench.lease)
        topic = bench.topic(ordered=True, lease=lease)
        words = ["", "wait", "", ""]
        events = [bench.event(partitionkey=f"key-{n % 3}", data={"do": words[n // 3]}) for n in range(12)]
        bench.publish(topic, *events)
        done: list[str] = []
        began: list[str] = []
        with start_program(bench, "work", topic, add={"concurrency": 3}) as program:
            while len(began) < 6:
                word, event, _ = program.said(bench.rig.patience)
                (done if word == "done" else began).append(event)
            program.kill()
            program.process.wait()
        assert sorted(began) == sorted(event.id for event in events[:6]), "an event did not wait for its key"
        runs = Runs()
        left = [event for event in events if event.id not in done]
        worker = work(bench, topic, runs, concurrency=3)
        all_done(bench, runs, left, patience=lease + bench.rig.patience)
        worker.close()
        again = {run.event.id for run in runs.all} & set(done)
        expect_order(runs, [event for event in events if event.id not in done or event.id in again])

    def test_batches_keep_their_keys_in_order(self, bench: Bench) -> None:
        def handle(deliveries: list[Delivery]) -> None:
            with runs.noting(*deliveries), lock:
                batches.append(len(deliveries))
            time.sleep(0.002)

        topic = bench.topic(ordered=True)
        events = keyed(bench, bench.many(120), 6)
        bench.publish(topic, *events)
        runs, lock, batches = Runs(), threading.Lock(), list[int]()
        worker = work(bench, topic, handle, batch=5, concurrency=2)
        all_done(bench, runs, events, patience=2 * bench.rig.patience)
        worker.close()
        assert max(batches) <= 5
        expect_order(runs, events)
        each_handled_once(bench, runs, events)

    def test_chain_of_workers_keeps_the_order(self, bench: Bench) -> None:
        """A handler publishes what follows from its event: publishing and settling go on side by side, key by key."""

        def pass_on(delivery: Delivery) -> None:
            followed = bench.event(partitionkey=delivery.event.partitionkey, data=delivery.event.id)
            with lock:
                published.append(followed)
            broker.publish(second.name, followed)

        first, second = bench.topic(ordered=True), bench.topic(ordered=True)
        broker = bench.broker(first, second)
        events = keyed(bench, bench.many(100), 5)
        published: list[CloudEvent] = []
        lock = threading.Lock()
        one, other = Runs(pass_on), Runs()
        worker = worker_of(bench, first, one, concurrency=3, broker=broker)
        worker.add(second.name, second.subscriptions[0].name, other, concurrency=3).start()
        bench.publish(first, *events)
        all_done(bench, one, events, patience=2 * bench.rig.patience)
        all_done(bench, other, published, patience=2 * bench.rig.patience)
        worker.close()
        expect_handled_in_order(one, events)
        expect_order(other, published)
        origin: dict[str, list[str]] = defaultdict(list)
        for run in other.all:
            origin[run.event.partitionkey or ""].append(run.event.data)
        for key, ids in origin.items():
            assert ids == [event.id for event in events if event.partitionkey == key]
