"""What a worker runs: functions of the data, batches, routers, several subscriptions, dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pytest

from cloudevents_bridge import CloudEvent, Delivery, RawMessage, Reject, Router, Topic
from cloudevents_bridge_contract.bench import Bench, keys
from cloudevents_bridge_contract.handling import HOW, Runs, all_done, each_handled_once, work, worker_of

STEM = "com.example.contract"


@dataclass
class Numbered:
    """What the data of a case's event is."""

    number: int


class WorkerHandlerCases:
    @HOW
    def test_parameters_are_filled_by_annotation(self, bench: Bench, how: str) -> None:
        got: list[tuple[Numbered, str, int]] = []

        def handle(order: Numbered, delivery: Delivery) -> None:
            got.append((order, delivery.event.id, delivery.attempt))

        async def handle_on_the_loop(order: Numbered, delivery: Delivery) -> None:
            handle(order, delivery)

        topic = bench.topic()
        good, bad = bench.event(data={"number": 7}), bench.event(data={"number": "seven"})
        bench.publish(topic, bad, good)
        work(bench, topic, handle if how == "def" else handle_on_the_loop)
        bench.eventually(lambda: got, "the good event is handled")
        assert got == [(Numbered(7), good.id, 1)]
        [letter] = bench.letters(topic, 1)
        assert (letter.event, letter.attempts) == (bad, 1), "data that is not what the handler takes is a Reject"

    def test_undecodable_message_among_good_events(self, bench: Bench) -> None:
        topic = bench.topic()
        good = bench.events(10)
        bench.publish(topic, *good[:5])
        bench.put(topic, b"\xff not an event", {"content-type": "application/cloudevents+json"})
        bench.publish(topic, *good[5:])
        runs = Runs()
        worker = work(bench, topic, runs)
        all_done(bench, runs, good)
        [letter] = bench.letters(topic, 1)
        worker.close()
        assert (letter.event, letter.raw.body) == (None, b"\xff not an event")
        each_handled_once(bench, runs, good)
        assert {run.attempt for run in runs.all} == {1}, "a message that cannot be decoded spent the others' attempts"

    def test_worker_decodes_foreign_messages_when_asked(self, bench: Bench) -> None:
        def orders(raw: RawMessage) -> CloudEvent | None:
            if not raw.body.startswith(b"order "):
                return None
            return CloudEvent(type=STEM, source=bench.source, id=raw.body.decode(), time=None, data={"raw": 1})

        topic = bench.topic()
        bench.put(topic, b"order 7", {})
        wanted = bench.own(orders(RawMessage(b"order 7", {}, None)))  # type: ignore[arg-type]
        runs = Runs()
        work(bench, topic, runs, foreign=[orders])
        all_done(bench, runs, [wanted])
        assert [run.event for run in runs.all] == [wanted]

    def test_several_subscriptions_in_one_worker(self, bench: Bench) -> None:
        one, other = bench.topic(2), bench.topic()
        mine, yours = bench.events(10), bench.events(10)
        gate = bench.gate()
        stuck, free, third = Runs(lambda delivery: gate.wait(60)), Runs(), Runs()
        worker = worker_of(bench, one, stuck, broker=bench.broker(one, other))
        worker.add(one.name, one.subscriptions[1].name, free).add(other.name, other.subscriptions[0].name, third)
        worker.start()
        bench.publish(one, *mine)
        bench.publish(other, *yours)
        all_done(bench, free, mine)
        all_done(bench, third, yours)
        assert stuck.done() == []
        gate.set()
        all_done(bench, stuck, mine)
        worker.close()
        for runs, events in ((stuck, mine), (free, mine), (third, yours)):
            each_handled_once(bench, runs, events)

    def test_batch_handler_gets_lists(self, bench: Bench) -> None:
        sizes: list[int] = []

        def handle(deliveries: list[Delivery]) -> None:
            sizes.append(len(deliveries))
            with runs.noting(*deliveries):
                time.sleep(0.01)

        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, *(events := bench.events(60)))
        runs = Runs()
        worker = work(bench, topic, handle, batch=10)
        all_done(bench, runs, events)
        worker.close()
        each_handled_once(bench, runs, events)
        assert 1 < max(sizes) <= 10, f"the batches were {sizes}"
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "its batch returned")

    def test_batch_handler_settles_some_itself(self, bench: Bench) -> None:
        def handle(deliveries: list[Delivery]) -> None:
            with runs.noting(*deliveries):
                for delivery in deliveries:
                    if delivery.event.id == nacked.id and delivery.attempt == 1:
                        delivery.nack(delay=0)
                    if delivery.event.id == dead.id:
                        delivery.dead_letter("by hand")

        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        _, nacked, dead, last = events = bench.events(4)
        bench.publish(topic, *events)
        runs = Runs()
        worker = work(bench, topic, handle, batch=4)
        bench.eventually(lambda: len(runs.of(nacked)) == 2 and last.id in runs.done(), "the nacked one runs again")
        [letter] = bench.letters(topic, 1)
        worker.close()
        assert (letter.event, letter.reason) == (dead, "by hand")
        assert [len(runs.of(event)) for event in events] == [1, 2, 1, 1]
        bench.nothing(bench.subscriber(topic), 1.5 * lease, "what the batch did not settle is acked")

    def test_batch_that_fails_is_given_back(self, bench: Bench) -> None:
        def handle(deliveries: list[Delivery]) -> None:
            with runs.noting(*deliveries):
                if any(delivery.attempt == 1 for delivery in deliveries):
                    for delivery in deliveries:
                        if delivery.event.id == settled.id:
                            delivery.ack()
                    raise ValueError("the whole batch")

        topic = bench.topic(max_attempts=50)
        settled, *others = events = bench.events(6)
        bench.publish(topic, *events)
        runs = Runs()
        worker = work(bench, topic, handle, batch=6)
        all_done(bench, runs, others)
        worker.close()
        assert len(runs.of(settled)) == 1, "it was acked before its batch failed, and ran again"
        for event in others:
            assert [run.attempt for run in runs.of(event)] == [n + 1 for n in range(len(runs.of(event)))]
        bench.nothing(bench.subscriber(topic), 0.3, "all were handled")

    @HOW
    def test_router_picks_the_most_specific(self, bench: Bench, how: str) -> None:
        exact, prefix, rest = Runs(), Runs(), Runs()
        router = Router()
        router.on(f"{STEM}.order.created")(exact.handler(how))
        router.on(f"{STEM}.order.*", f"{STEM}.refund.*")(prefix.handler(how))
        router.on("*")(rest.handler(how))
        topic = bench.topic()
        kinds = ["order.created", "order.created.again", "order.paid", "refund.x", "ordering", "order"]
        events = [bench.event(type=f"{STEM}.{kind}") for kind in kinds]
        bench.publish(topic, *events)
        work(bench, topic, router)
        all_done(bench, exact, events[:1])
        all_done(bench, prefix, events[1:4])
        all_done(bench, rest, events[4:])
        for runs, wanted in ((exact, events[:1]), (prefix, events[1:4]), (rest, events[4:])):
            each_handled_once(bench, runs, wanted)

    @pytest.mark.parametrize("policy", ["dead_letter", "nack", "ack"])
    def test_type_without_a_handler(self, bench: Bench, policy: Literal["dead_letter", "nack", "ack"]) -> None:
        topic = bench.topic(max_attempts=2)
        bench.publish(topic, odd := bench.event(type=f"{STEM}.odd"), known := bench.event())
        runs = Runs()
        router = Router(unmatched=policy)
        router.on(STEM)(runs)
        worker = work(bench, topic, router)
        all_done(bench, runs, [known])
        if policy == "ack":
            bench.eventually(lambda: worker.stats.handled == 2, "the odd one is acked")
            worker.close()
            bench.nothing(bench.subscriber(topic), 0.3, "its type is acked where no handler takes it")
            assert bench.letters(topic, 0) == []
            return
        [letter] = bench.letters(topic, 1)
        assert (letter.event, letter.attempts) == (odd, 2 if policy == "nack" else 1)
        said = f"{letter.reason} {letter.error}"
        assert odd.type in said, f"the dead letter does not say which type nobody takes: {said}"

    @HOW
    def test_middleware_goes_around_the_handler(self, bench: Bench, how: str) -> None:
        steps: list[str] = []

        def named(name: str) -> Callable[[Delivery, Callable[[Delivery], None]], None]:
            def middleware(delivery: Delivery, call_next: Callable[[Delivery], None]) -> None:
                steps.append(f"{name} in")
                try:
                    call_next(delivery)
                except Reject:
                    steps.append(f"{name} rejected")
                    raise
                steps.append(f"{name} out")

            return middleware

        def handle(delivery: Delivery) -> None:
            steps.append("handler")
            if delivery.event.id == bad.id:
                raise Reject("of no use")

        topic = bench.topic(ordered=False)
        good, bad = bench.events(2)
        runs = Runs(handle)
        router = Router(middleware=[named("outer"), named("inner")])
        router.on("*")(runs.handler(how))
        work(bench, topic, router)
        bench.publish(topic, good)
        all_done(bench, runs, [good])
        bench.eventually(lambda: "outer out" in steps, "the middleware ends")
        assert steps == ["outer in", "inner in", "handler", "inner out", "outer out"]
        steps.clear()
        bench.publish(topic, bad)
        assert [letter.event for letter in bench.letters(topic, 1)] == [bad]
        assert steps == ["outer in", "inner in", "handler", "inner rejected", "outer rejected"]

    def test_dead_letters_are_run_on_request(self, bench: Bench) -> None:
        def handle(delivery: Delivery) -> None:
            if delivery.event.id == hopeless.id:
                raise ValueError("dead it stays")

        topic = bench.topic()
        hopeless, *others = events = bench.events(4)
        _let_die(bench, topic, events)
        runs = Runs(handle)
        worker = work(bench, topic, runs, dead_letters=True)
        all_done(bench, runs, others)
        bench.eventually(lambda: runs.of(hopeless), "the hopeless one is tried")
        worker.close()
        assert {run.event.id: run.event for run in runs.all} == {event.id: event for event in events}
        for event in others:
            assert len(runs.of(event)) == 1
        [letter] = bench.letters(topic, 1)
        assert letter.event == hopeless, "a dead letter that failed once more is gone"
        bench.nothing(bench.subscriber(topic), 0.2, "the dead letters were run, not replayed")

    def test_dead_letters_are_left_alone_without(self, bench: Bench) -> None:
        topic = bench.topic()
        _let_die(bench, topic, dead := bench.events(2))
        bench.publish(topic, event := bench.event())
        runs = Runs()
        worker = work(bench, topic, runs)
        all_done(bench, runs, [event])
        worker.close()
        each_handled_once(bench, runs, [event])
        assert {letter.event.id for letter in bench.letters(topic, 2) if letter.event} == set(keys(dead))


def _let_die(bench: Bench, topic: Topic, events: list[CloudEvent]) -> None:
    bench.publish(topic, *events)
    with bench.subscriber(topic) as subscriber:
        for delivery in bench.gather(subscriber, len(events), ack=False):
            delivery.dead_letter("the case wants it dead")
    bench.letters(topic, len(events))
