"""What a worker does when there is more, or worse, than it can take."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cloudevents_bridge import Delivery, Retry
from cloudevents_bridge.core.prefetch import SURVIVED
from cloudevents_bridge.driver import Inbound, Received, SubscriberDriver, Verb
from cloudevents_bridge_contract.bench import Bench
from cloudevents_bridge_contract.faulty import Of, Outcomes, Shim
from cloudevents_bridge_contract.handling import Runs, all_done, each_handled_once, work

MOST_HELD = 100
"""Deliveries that a worker with few free handlers may hold ready."""
MOST_BYTES = 80 * 1024 * 1024
"""Bytes of bodies that it may hold ready: 64 MiB, and what one receive may bring beyond."""


class Counting(Shim):
    """Counts what the consumer holds.

    Attributes:
        held: the deliveries that were received and not settled.
        most, most_bytes: how many they were at most, and how large.
        receives_of: when each receive began, how many it asked for, and how many it brought.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.most = self.most_bytes = 0
        self.receives_of: list[tuple[float, int, int]] = []

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        began = time.monotonic()
        got = inner.receive(max_messages, wait)
        with self.lock:
            self.receives_of.append((began, max_messages, len(got.messages)))
            self.held |= {id(message): len(message.body) for message in got.messages}
            self.most = max(self.most, len(self.held))
            self.most_bytes = max(self.most_bytes, sum(self.held.values()))
        return got

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        if verb != "extend":
            with self.lock:
                for message in messages:
                    self.held.pop(id(message), None)
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)


class WorkerLoadCases:
    def test_slow_handler_bounds_what_is_held(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(bench.many(1000))))
        gate = bench.gate()
        runs = Runs(lambda delivery: gate.wait(60))
        shim = Counting()
        worker = work(bench, topic, runs, concurrency=2, broker=bench.broker(topic, shim=shim))
        bench.eventually(lambda: runs.inside() == 2, "two handlers run")
        bench.passes(1.0)
        held = shim.most
        gate.set()
        all_done(bench, runs, events, patience=4 * bench.rig.patience)
        worker.close()
        each_handled_once(bench, runs, events)
        assert held <= MOST_HELD, f"{held} deliveries were held for two handlers that did not return"

    def test_large_events_bound_what_is_held(self, bench: Bench) -> None:
        """The worker has seen that events are handled in no time, and fetches ahead. Then they are large."""

        def handle(delivery: Delivery) -> None:
            if delivery.event.data is not None:
                gate.wait(60)

        topic = bench.topic()
        gate = bench.gate()
        runs = Runs(handle)
        shim = Counting()
        worker = work(bench, topic, runs, concurrency=2, broker=bench.broker(topic, shim=shim))
        small = [bench.event(data=None) for _ in range(bench.many(2000))]
        bench.publish(topic, *small)
        all_done(bench, runs, small, patience=2 * bench.rig.patience)
        large = bench.event(data="x" * (200 * 1024))
        for _ in range(0, bench.many(500), 50):  # of the first ones it sees how large they are
            bench.publish(topic, *(bench.own(large.replace(id=bench.event().id)) for _ in range(50)))
            bench.eventually(lambda: runs.inside() == 2, "two handlers run")
        bench.passes(1.0)
        assert shim.most_bytes <= MOST_BYTES, f"{shim.most_bytes:,} bytes were held for two handlers"
        worker.stop(grace=0.0)
        gate.set()
        worker.close()

    def test_poison_event_does_not_stop_the_others(self, bench: Bench) -> None:
        def handle(delivery: Delivery) -> None:
            if delivery.event.id == poison.id:
                raise Retry(wait, "it never works")

        wait = 0.5 + bench.rig.wakeup
        topic = bench.topic(max_attempts=3)
        poison, *others = events = bench.events(20)
        bench.publish(topic, *events)
        runs = Runs(handle)
        worker = work(bench, topic, runs)
        [letter] = bench.letters(topic, 1)
        all_done(bench, runs, others)
        worker.close()
        assert (letter.event, letter.attempts) == (poison, 3)
        assert "it never works" in f"{letter.reason} {letter.error}"
        assert [len(runs.of(event)) for event in others] == [1] * 19
        again = runs.of(poison)[1].began
        waited = [event.id for event in others if runs.of(event)[0].began > again]
        assert waited == [], f"{len(waited)} events waited for one that failed"

    def test_many_that_fail_do_not_stop_the_others(self, bench: Bench) -> None:
        def handle(delivery: Delivery) -> None:
            if delivery.event.data["bad"] and delivery.attempt == 1:
                raise Retry(wait, "not now")

        wait = 1.0 + bench.rig.wakeup
        topic = bench.topic()
        bad, good = bench.events(bench.many(150), data={"bad": True}), bench.events(20, data={"bad": False})
        bench.publish(topic, *bad)
        bench.publish(topic, *good)
        runs = Runs(handle)
        worker = work(bench, topic, runs, concurrency=2)
        all_done(bench, runs, [*bad, *good], patience=2 * bench.rig.patience)
        worker.close()
        failed = max(run.ended or 0.0 for run in runs.all if run.error is not None)
        handled = max(runs.of(event)[0].began for event in good)
        assert handled <= failed + wait, "good events waited for those that are to run again later"
        assert {len(runs.of(event)) for event in bad} == {2}

    def test_receives_begin_small(self, bench: Bench) -> None:
        """An event that kills its process must not take the attempts of its neighbours along."""
        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(bench.many(300))))
        runs = Runs()
        shim = Counting()
        work(bench, topic, runs, concurrency=32, broker=bench.broker(topic, shim=shim))
        all_done(bench, runs, events, patience=2 * bench.rig.patience)
        (start, first, _), before = shim.receives_of[0], 0
        assert first == 1, f"the first receive of a worker asked for {first}"
        for began, asked, brought in shim.receives_of:
            longer = 2 ** int((began - start) / SURVIVED)  # so often as many, for handlers that have survived so long
            assert asked <= (1 + before) * longer, f"receives were {shim.receives_of[:20]}: they grow too fast"
            before += brought
        assert max(asked for _, asked, _ in shim.receives_of) > 1, "receives do not grow with success"

    def test_keeps_up_with_a_publisher(self, bench: Bench) -> None:
        topic = bench.topic()
        events = bench.events(bench.many(1000))
        runs = Runs()
        worker = work(bench, topic, runs, concurrency=4)
        for start in range(0, len(events), 100):
            bench.publish(topic, *events[start : start + 100])
        all_done(bench, runs, events, patience=3 * bench.rig.patience)
        worker.close()
        each_handled_once(bench, runs, events)
