"""What a worker makes of its handlers' returns and exceptions."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import mean

import pytest

from cloudevents_bridge import Capability, Delivery, Reject, Retry, RetryPolicy
from cloudevents_bridge_contract.bench import Bench, keys
from cloudevents_bridge_contract.faulty import NoDelay
from cloudevents_bridge_contract.handling import HOW, Runs, all_done, each_handled_once, running, work, worker_of


class WorkerCases:
    @HOW
    def test_handler_that_returns_acks(self, bench: Bench, how: str) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, *(events := bench.events(20)))
        runs = Runs()
        worker = work(bench, topic, runs.handler(how))
        all_done(bench, runs, events)
        worker.close()
        each_handled_once(bench, runs, events)
        assert {run.event.id: run.event for run in runs.all} == {event.id: event for event in events}
        assert {run.attempt for run in runs.all} == {1}
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "its handler returned")
        assert bench.letters(topic, 0) == []

    def test_nothing_is_acked_before_its_handler_returns(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(3)))
        gate = bench.gate()
        runs = Runs(lambda delivery: gate.wait(60))
        worker = work(bench, topic, runs, concurrency=3, grace=0.1)
        bench.eventually(lambda: runs.inside() == 3, "three handlers run")
        worker.close()
        arrived = bench.gather(bench.subscriber(topic), 3)
        assert sorted(keys(arrived)) == sorted(keys(events)), "what no handler had finished is gone"

    @HOW
    def test_failed_run_is_repeated_with_a_growing_delay(self, bench: Bench, how: str) -> None:
        def fail_thrice(delivery: Delivery) -> None:
            if delivery.attempt < 4:
                raise ValueError("not yet")

        policy = RetryPolicy(attempts=None, initial=0.2, maximum=10.0, factor=4.0)
        topic = bench.topic(max_attempts=9, redelivery=policy)
        bench.publish(topic, *(events := bench.events(20)))
        runs = Runs(fail_thrice)
        work(bench, topic, runs.handler(how), concurrency=20)
        all_done(bench, runs, events, patience=2 * bench.rig.patience)
        delays: list[list[float]] = [[], [], []]
        for event in events:
            of_event = runs.of(event)
            assert [run.attempt for run in of_event] == [1, 2, 3, 4]
            for number in range(3):
                delays[number].append(of_event[number + 1].began - (of_event[number].ended or 0.0))
        means = [mean(each) for each in delays]
        step = bench.rig.delay_step  # as much shorter may be what was asked for
        # A busy machine is late, by the same for all: what was asked for has 4 and 16 times the first.
        growing = means[0] > 0.02 and 1.5 * (means[0] - step) < means[2] and means[1] - step < means[2]
        growing = growing and 1.2 * means[0] < means[2]
        assert growing, f"the delays after failed runs were {means} s, on average"

    @HOW
    def test_retry_waits_as_long_as_it_says(self, bench: Bench, how: str) -> None:
        def wait(delivery: Delivery) -> None:
            if delivery.attempt == 1:
                raise Retry(delivery.event.data["delay"], "not yet")

        topic = bench.topic(redelivery=RetryPolicy(attempts=None, initial=60.0, maximum=60.0))
        bench.publish(topic, *(events := [bench.event(data={"delay": delay}) for delay in (0.0, 0.8)]))
        runs = Runs(wait)
        work(bench, topic, runs.handler(how))
        all_done(bench, runs, events)
        for event in events:
            first, second = runs.of(event)
            waited = second.began - (first.ended or 0.0)
            delay = event.data["delay"]
            assert delay - 0.05 <= waited <= delay + 1.0 + bench.rig.wakeup, f"Retry({delay}) waited {waited:.2f} s"
            assert second.attempt == 2

    @HOW
    def test_retry_that_the_broker_cannot_delay_is_held(self, bench: Bench, how: str) -> None:
        def wait(delivery: Delivery) -> None:
            if delivery.attempt < 3:
                raise Retry(0.5, "not yet")

        topic = bench.topic()
        bench.publish(topic, event := bench.event())
        runs = Runs(wait)
        work(bench, topic, runs.handler(how), broker=bench.broker(topic, shim=NoDelay()))
        all_done(bench, runs, [event])
        assert [run.attempt for run in runs.all] == [1, 2, 3]
        for earlier, later in pairwise(runs.all):
            waited = later.began - (earlier.ended or 0.0)
            assert 0.45 <= waited <= 1.5 + bench.rig.wakeup, f"Retry(0.5) waited {waited:.2f} s"

    def test_retry_longer_than_the_lease_is_no_hot_loop(self, bench: Bench) -> None:
        """Neither can the broker delay it, nor can its lease be extended: it waits for as long as that lasts."""

        class Helpless(NoDelay):
            def capabilities(self, declared: frozenset[Capability]) -> frozenset[Capability]:
                return declared - {Capability.EXTEND}

        def wait(delivery: Delivery) -> None:
            if delivery.attempt == 1:
                raise Retry(600.0, "not yet")

        topic = bench.topic(lease=(lease := max(2.0, bench.lease)))
        bench.publish(topic, event := bench.event())
        runs = Runs(wait)
        work(bench, topic, runs, broker=bench.broker(topic, shim=Helpless()))
        all_done(bench, runs, [event], patience=lease + bench.rig.patience)
        first, second = runs.all
        assert second.attempt == 2
        waited = second.began - (first.ended or 0.0)
        assert waited >= lease / 2, f"with a lease of {lease:g} s, Retry(600) waited {waited:.2f} s"

    @HOW
    def test_reject_dead_letters_at_once(self, bench: Bench, how: str) -> None:
        def reject(delivery: Delivery) -> None:
            if delivery.event.id == bad.id:
                raise Reject("of no use")

        topic = bench.topic()
        good, bad = bench.event(), bench.event()
        bench.publish(topic, bad, good)
        runs = Runs(reject)
        work(bench, topic, runs.handler(how))
        all_done(bench, runs, [good])
        [letter] = bench.letters(topic, 1)
        assert (letter.event, letter.reason, letter.attempts) == (bad, "of no use", 1)
        assert len(runs.of(bad)) == 1, "it was rejected and ran again"

    def test_last_failed_run_dead_letters(self, bench: Bench) -> None:
        def fail(delivery: Delivery) -> None:
            raise ValueError("cannot be handled")

        topic = bench.topic(max_attempts=3)
        bench.publish(topic, event := bench.event())
        runs = Runs(fail)
        work(bench, topic, runs)
        [letter] = bench.letters(topic, 1)
        assert [run.attempt for run in runs.all] == [1, 2, 3]
        assert (letter.event, letter.attempts) == (event, 3)
        assert "3" in letter.reason, f"the reason does not say how often it failed: {letter.reason}"
        assert letter.error is not None
        assert "cannot be handled" in letter.error, f"the error is lost: {letter.error}"

    @HOW
    def test_handler_slower_than_the_lease_is_not_run_twice(self, bench: Bench, how: str) -> None:
        lease = max(1.0, bench.lease)
        topic = bench.topic(lease=lease)
        bench.publish(topic, event := bench.event())
        if Capability.EXTEND not in bench.capabilities:
            delivery = bench.one(bench.subscriber(topic), event)
            bench.requires(Capability.EXTEND, lambda: delivery.extend(lease))
        runs = Runs(lambda delivery: asyncio.sleep(3 * lease) if how == "async" else time.sleep(3 * lease))
        workers = [work(bench, topic, runs.handler(how)) for _ in range(2)]
        all_done(bench, runs, [event], patience=3 * lease + bench.rig.patience)
        assert not runs.all[0].delivery.lease_lost
        for worker in workers:
            worker.close()
        each_handled_once(bench, runs, [event])
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "its handler returned")

    @HOW
    @pytest.mark.parametrize("concurrency", [1, 4])
    def test_concurrency_is_reached_and_never_exceeded(self, bench: Bench, how: str, concurrency: int) -> None:
        def meet(delivery: Delivery) -> object:
            if how == "async":
                return meet_on_the_loop()
            while runs.most < concurrency and time.monotonic() < deadline:
                time.sleep(0.005)
            return None

        async def meet_on_the_loop() -> None:
            while runs.most < concurrency and time.monotonic() < deadline:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.005)

        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(40)))
        deadline = time.monotonic() + bench.rig.patience
        runs = Runs(meet)
        work(bench, topic, runs.handler(how), concurrency=concurrency)
        all_done(bench, runs, events, patience=2 * bench.rig.patience)
        assert runs.most == concurrency, f"{runs.most} handlers ran at once where concurrency is {concurrency}"

    def test_handler_may_settle_itself(self, bench: Bench) -> None:
        def settle(delivery: Delivery) -> None:
            if delivery.event.id == acked.id:
                delivery.ack()
                raise RuntimeError("after the ack")
            if delivery.event.id == nacked.id and delivery.attempt == 1:
                delivery.nack(delay=0)
            if delivery.event.id == dead.id:
                delivery.dead_letter("by hand")

        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        acked, nacked, dead, after = events = bench.events(4)
        bench.publish(topic, *events)
        runs = Runs(settle)
        worker = work(bench, topic, runs)
        bench.eventually(lambda: len(runs.of(nacked)) == 2 and after.id in runs.done(), "the nacked one runs again")
        [letter] = bench.letters(topic, 1)
        worker.close()
        assert (letter.event, letter.reason) == (dead, "by hand")
        assert [len(runs.of(event)) for event in events] == [1, 2, 1, 1]
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "each was settled by its handler or after it")

    def test_runs_until_idle(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(20)))
        runs = Runs()
        began = time.monotonic()
        stats = running(bench, worker_of(bench, topic, runs), until_idle=1.0).within(bench.rig.patience)
        last = max(run.ended or 0.0 for run in runs.all)
        assert time.monotonic() - last >= 0.95, "it was not idle for a second"
        assert time.monotonic() - began < bench.rig.patience
        each_handled_once(bench, runs, events)
        assert stats.handled == 20

    def test_running_handler_is_not_idle(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, event := bench.event())
        gate = bench.gate()
        runs = Runs(lambda delivery: gate.wait(60))
        ended = running(bench, worker_of(bench, topic, runs), until_idle=0.2)
        bench.eventually(lambda: runs.inside() == 1, "the handler runs")
        ended.not_within(0.8)
        gate.set()
        assert ended.within(bench.rig.patience).handled == 1
        each_handled_once(bench, runs, [event])

    def test_stats_count(self, bench: Bench) -> None:
        def work_on(delivery: Delivery) -> None:
            if delivery.event.id == rejected.id:
                raise Reject("of no use")
            if delivery.event.id == failing.id and delivery.attempt == 1:
                raise ValueError("once")
            if delivery.event.id == waiting.id:
                gate.wait(60)

        topic = bench.topic()
        rejected, failing, waiting, *others = events = bench.events(6)
        gate = bench.gate()
        runs = Runs(work_on)
        worker = work(bench, topic, runs, concurrency=2)
        before = worker.stats
        assert (before.handled, before.failed, before.dead_lettered, before.last_event) == (0, 0, 0, None)
        bench.publish(topic, *events)
        all_done(bench, runs, [failing, *others])
        bench.eventually(lambda: worker.stats.handled == 4, "four are counted as handled")
        bench.eventually(lambda: worker.stats.dead_lettered == 1, "one is counted as dead-lettered")
        bench.eventually(lambda: worker.stats.in_flight == 1, "one is in flight")
        stats = worker.stats
        assert stats.failed in (1, 2), f"one run failed and one was rejected: {stats}"
        assert stats.connected
        assert stats.last_event is not None
        assert timedelta(0) <= datetime.now(UTC) - stats.last_event < timedelta(minutes=1)
        gate.set()
        bench.eventually(lambda: worker.stats.handled == 5 and worker.stats.in_flight == 0, "the last one is counted")
