"""What brokers and libraries are known to get wrong, with a worker consuming."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec
import pytest

from cloudevents_bridge import Capability, CloudEvent, Delivery, Reject
from cloudevents_bridge.driver import Outbound, PublisherDriver, SendTraits
from cloudevents_bridge_contract.bench import ONCE, QUICK, Bench, keys, native_place
from cloudevents_bridge_contract.faulty import InjectedError, Outcomes, Shim, To, unknown
from cloudevents_bridge_contract.handling import Backlog, Runs, all_done, each_handled_once, fetch_ahead, work
from cloudevents_bridge_contract.outcomes import NotRun
from cloudevents_bridge_contract.suite.life import start_program
from cloudevents_bridge_contract.suite.order_worker import expect_handled_in_order, expect_order
from cloudevents_bridge_contract.suite.traps import extending
from cloudevents_bridge_contract.suite.traps_dead_letters import (
    REASON,
    Dying,
    NoDeadPlace,
    NoDeadSettle,
    at_the_limit,
)


def reject(delivery: Delivery) -> None:
    raise Reject("the case wants it dead")


class WorkerTrapCases:
    def test_head_that_fails_for_ever_dies_alone(self, bench: Bench) -> None:
        """Ten events of one key, and the first never works: it alone dies, the nine run once, the key goes on."""

        def handle(delivery: Delivery) -> None:
            if delivery.event.id == events[0].id:
                raise ValueError("always")

        topic = bench.topic(ordered=True, max_attempts=3)
        events = [bench.event(partitionkey="one") for _ in range(10)]
        runs = Runs(handle)
        shim = Backlog()
        worker = work(bench, topic, runs, concurrency=4, broker=bench.broker(topic, shim=shim))
        fetch_ahead(bench, topic, runs, shim, events)
        all_done(bench, runs, events[1:])
        [letter] = bench.letters(topic, 1)
        assert (letter.event, letter.attempts) == (events[0], 3)
        assert [run.attempt for run in runs.of(events[0])] == [1, 2, 3]
        for event in events[1:]:
            assert [run.attempt for run in runs.of(event)] == [1], "an event spent attempts behind one that failed"
        dead = max(run.ended or 0.0 for run in runs.of(events[0]))
        assert min(runs.of(event)[0].began for event in events[1:]) >= dead, "the failing event was overtaken"
        bench.publish(topic, later := bench.event(partitionkey="one"))
        all_done(bench, runs, [later])
        worker.close()
        expect_order(runs, [*events, later])

    def test_replay_of_what_a_worker_rejected(self, bench: Bench) -> None:
        """Within the deduplication window, where there is one: it is delivered, and then the dead letter goes."""

        def handle(delivery: Delivery) -> None:
            if not replayed.is_set():
                raise Reject("the case wants it dead")

        native = Capability.DEDUPLICATION if Capability.DEDUPLICATION in bench.capabilities else None
        topic = bench.topic(2, native_for=native)
        bench.publish(topic, event := bench.event(data={"\u00fc": [1, None]}, extensions={"myextension": 7}))
        replayed = threading.Event()
        runs, other = Runs(handle), Runs()
        workers = [work(bench, topic, runs), work(bench, topic, other, 1)]
        letters = bench.letters(topic, 1)
        all_done(bench, other, [event])
        replayed.set()
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        bench.requires(Capability.REPLAY, lambda: place.replay(letters))
        place.replay(letters)
        all_done(bench, runs, [event])
        assert bench.letters(topic, 0) == []
        for worker in workers:
            worker.close()
        assert [run.event for run in runs.all] == [event, event]
        assert runs.all[1].attempt == 1, "a replay begins anew"
        each_handled_once(bench, other, [event])

    def test_worker_sees_a_late_send_in_its_place(self, bench: Bench) -> None:
        """A send takes effect after its time-out was raised and its retry was accepted: first runs stay in order."""

        class Late(Shim):
            def __init__(self) -> None:
                super().__init__()
                self.late: list[threading.Thread] = []
                self.go = threading.Event()

            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, keys="one_each", sends=4)

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                with self.lock:
                    first = not self.late and any(b"second" in m.body for m in batch)
                    if first:
                        self.late.append(threading.Thread(target=self._apply, args=(inner, list(batch))))
                if not first:
                    return inner.send(batch, timeout=timeout)
                self.late[0].start()
                raise InjectedError(unknown("the request timed out"))

            def _apply(self, inner: PublisherDriver, batch: list[Outbound]) -> None:
                self.go.wait(2.0)
                inner.send(batch, timeout=5)

        topic = bench.topic(ordered=True)
        words = ["first", "second", "third", "fourth"]
        events = [bench.event(partitionkey="one", data={"word": word}) for word in words]
        runs = Runs()
        worker = work(bench, topic, runs, concurrency=3)
        shim = Late()
        bench.broker(topic, shim=shim, retry=QUICK).publish_many(topic.name, events)
        all_done(bench, runs, events)
        shim.go.set()
        shim.late[0].join()
        bench.publish(topic, last := bench.event(partitionkey="one"))
        all_done(bench, runs, [last])
        worker.close()
        expect_order(runs, [*events, last])

    @pytest.mark.parametrize("how", ["reject", "max_attempts"])
    def test_worker_without_a_dead_letter_place_loses_nothing(self, bench: Bench, how: str) -> None:
        def handle(delivery: Delivery) -> None:
            if delivery.event.id == bad.id:
                raise Reject("of no use") if how == "reject" else ValueError("of no use")

        topic = bench.topic(max_attempts=2, lease=(lease := max(1.0, bench.lease)))
        bad, good = bench.events(2)
        bench.publish(topic, bad, good)
        runs = Runs(handle)
        worker = work(bench, topic, runs, broker=bench.broker(topic, shim=NoDeadPlace(), retry=ONCE))
        all_done(bench, runs, [good])
        bench.eventually(lambda: len(runs.of(bad)) >= (1 if how == "reject" else 2), "its runs are spent")
        bench.passes(1.0)
        worker.close()
        assert len(runs.of(bad)) < 50, f"what cannot be dead-lettered ran {len(runs.of(bad))} times in about a second"
        # Where there is a dead-letter place after all, it may count as one that ended its consumers by now.
        subscriber = bench.subscriber(topic)
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)

        def found() -> bool:
            came = [delivery.event for delivery in subscriber.receive(1, wait=lease / 2)]
            return bad in [*came, *(letter.event for letter in place.find())]

        bench.eventually(found, "it is there, alive or dead", patience=2 * lease + bench.rig.patience)

    @pytest.mark.parametrize("shim", [Shim, NoDeadSettle], ids=["native", "copied"])
    def test_largest_event_rejected_with_a_long_reason(self, bench: Bench, shim: type[Shim]) -> None:
        def handle(delivery: Delivery) -> None:
            if delivery.event.id == event.id:
                raise Reject(REASON)

        topic = bench.topic()
        small, event, tight = at_the_limit(bench, topic, shim)
        runs = Runs(handle)
        worker = work(bench, topic, runs, broker=bench.broker(topic, shim=tight, retry=ONCE))
        all_done(bench, runs, [small])
        [letter] = bench.letters(topic, 1)
        worker.close()
        assert letter.event == event
        native = bench.driver().open_subscriber(native_place(topic, 0)).traits.dead
        if native and shim is Shim:  # in a copy there is no room for it
            assert letter.reason[:20] == REASON[:20], "nothing of the reason was kept"

    def test_worker_killed_between_the_copy_and_the_ack(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, event := bench.event())
        first = Runs(reject)
        dying = work(bench, topic, first, grace=0.1, broker=bench.broker(topic, shim=Dying(), retry=ONCE))
        bench.eventually(lambda: first.all and first.all[0].ended, "the event is rejected")
        assert [letter.event for letter in bench.letters(topic, 1)] == [event], "it is not there after the copy"
        dying.close()
        second = Runs(reject)
        worker = work(bench, topic, second, broker=bench.broker(topic, shim=NoDeadSettle()))
        bench.eventually(lambda: worker.stats.dead_lettered == 1, "it dies again", patience=lease + bench.rig.patience)
        [letter] = bench.letters(topic, 1)
        worker.close()
        assert letter.event == event
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        place.purge([letter.id])
        assert bench.letters(topic, 0) == [], "its twin came up when it was purged"

    def test_worker_stopped_past_its_lease(self, bench: Bench) -> None:
        """SIGSTOP, a second consumer takes the event over, SIGCONT: what the first handler returns counts no more."""
        if not hasattr(signal, "SIGSTOP"):
            raise NotRun("no process can be stopped here")
        lease = max(1.0, bench.lease)
        topic = bench.topic(lease=lease)
        bench.publish(topic, event := bench.event(data={"do": "wait"}))
        with start_program(bench, "work", topic, until_idle=0.5) as program:
            assert program.said(bench.rig.patience) == ["began", event.id, 1]
            program.process.send_signal(signal.SIGSTOP)
            subscriber = bench.subscriber(topic)
            taken = bench.one(subscriber, event, patience=lease + bench.rig.patience)
            assert taken.attempt == 2
            program.process.send_signal(signal.SIGCONT)
            until = time.monotonic() + bench.rig.patience
            program.tell("go on")
            said: list[list[object]] = []
            with extending(bench, taken, lease):
                while not said or said[-1][0] != "ended":
                    said.append(program.said(max(until - time.monotonic(), 0.1)))
            assert said == [["done", event.id, 1], ["ended", 0, 0]], "a lost lease was counted as handled"
            if Capability.EXTEND in bench.capabilities:
                taken.extend(lease)
            taken.nack(delay=0)
        again = bench.one(subscriber, event)
        assert again.attempt == 3, "the stopped worker settled what another consumer had in hand"
        again.ack()
        assert bench.letters(topic, 0) == []

    @pytest.mark.parametrize("concurrency", [1, 4])
    def test_event_that_ends_its_process_dies_alone(self, bench: Bench, concurrency: int) -> None:
        """One event among fifty ends the process that handles it, and a supervisor starts another: it dies within
        3 x max_attempts + 1 starts, the others are handled and none of them dies.
        """
        lease = max(1.0, bench.lease)
        topic = bench.topic(lease=lease, max_attempts=2)
        events = [bench.event(data={"do": "exit" if number == 20 else ""}) for number in range(50)]
        bench.publish(topic, *events)
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        starts = 0
        done: Counter[str] = Counter()
        attempts: dict[str, int] = defaultdict(int)
        while not list(place.find()):
            starts += 1
            assert starts <= 3 * 2 + 1, f"it is not dead after {starts - 1} starts"
            add = {"concurrency": concurrency}
            with start_program(bench, "work", topic, add=add, until_idle=lease + 1.0) as program:
                for word, event, attempt in program.heard(4 * lease + bench.rig.patience + 20):
                    if word == "began":
                        attempts[event] = max(attempts[event], attempt)
                    done[event] += word == "done"
        [letter] = bench.letters(topic, 1)
        assert letter.event == events[20]
        missing = {event.id for event in events} - {event for event, times in done.items() if times} - {events[20].id}
        left = keys(bench.gather(bench.subscriber(topic), len(missing), patience=lease + bench.rig.patience))
        assert set(left) == missing
        assert letter.attempts >= 2
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "the others were handled")

    def test_rejecting_and_retrying_keys_side_by_side(self, bench: Bench) -> None:
        """Handlers that reject, fail and work, over several keys and two workers: each key goes its own way."""

        def handle(delivery: Delivery) -> None:
            number = numbers[delivery.event.id]
            if number % 11 == 5:
                raise Reject("of no use")
            if number % 7 == 3 and delivery.attempt == 1:
                raise ValueError("once")

        topic = bench.topic(ordered=True)
        events = [bench.event(partitionkey=f"key-{n % 5}") for n in range(bench.many(110))]
        numbers = {event.id: number for number, event in enumerate(events)}
        dead = [event for number, event in enumerate(events) if number % 11 == 5]
        bench.publish(topic, *events)
        runs = Runs(handle)
        workers = [work(bench, topic, runs, concurrency=3) for _ in range(2)]
        alive = [event for event in events if event not in dead]
        all_done(bench, runs, alive, patience=3 * bench.rig.patience)
        letters = bench.letters(topic, len(dead))
        for worker in workers:
            worker.close()
        assert {letter.event.id for letter in letters if letter.event} == set(keys(dead))
        expect_order(runs, events)
        expect_handled_in_order(_runs_of(runs, alive), alive)


def _runs_of(runs: Runs, events: Sequence[CloudEvent]) -> Runs:
    """The runs of some events only."""
    wanted = set(keys(events))
    chosen = Runs()
    chosen.all = [run for run in runs.all if run.event.id in wanted]
    return chosen
