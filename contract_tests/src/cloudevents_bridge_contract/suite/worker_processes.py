"""Workers in processes of their own, that are told to stop, or die; and connections that break under them."""

from __future__ import annotations

import signal
import time

import pytest

from cloudevents_bridge import CloudEvent
from cloudevents_bridge_contract.bench import Bench
from cloudevents_bridge_contract.handling import Runs, all_done, work
from cloudevents_bridge_contract.outcomes import NotRun
from cloudevents_bridge_contract.suite.life import start_program
from cloudevents_bridge_contract.suite.worker_stop import LONG, comes_back


class WorkerProcessCases:
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
    def test_signal_stops_gracefully(self, bench: Bench, name: str) -> None:
        topic = bench.topic(lease=LONG * bench.rig.patience)
        bench.publish(topic, *(events := [bench.event(data={"do": "wait", "for": 0.5}) for _ in range(5)]))
        began: list[str] = []
        done: list[str] = []
        with start_program(bench, "work", topic) as program:
            while (said := program.said(bench.rig.patience))[0] != "ended":
                word, event, _ = said
                (began if word == "began" else done).append(event)
                if word == "began":
                    if len(began) == 1:
                        program.process.send_signal(_signal(name))
                    program.tell("go on")
            assert program.process.wait(timeout=bench.rig.patience) == 0
        assert began == done, "a handler that ran was not finished"
        assert said == ["ended", len(done), 0]
        assert len(done) < len(events), "it went on as if nobody had told it to stop"
        comes_back(bench, topic, [event for event in events if event.id not in done])

    def test_second_interrupt_is_immediate(self, bench: Bench) -> None:
        topic = bench.topic(lease=max(1.0, bench.lease))
        bench.publish(topic, event := bench.event(data={"do": "wait"}))
        with start_program(bench, "work", topic) as program:
            assert program.said(bench.rig.patience) == ["began", event.id, 1]
            program.process.send_signal(signal.SIGINT)
            bench.nothing(bench.subscriber(topic), 0.5, "its handler has a grace to finish in")
            began = time.monotonic()
            program.process.send_signal(signal.SIGINT)
            program.process.wait(timeout=bench.rig.patience)
            assert time.monotonic() - began < 5.0, "the second interrupt waited for the handler"
            assert program.process.returncode != 0
        bench.one(bench.subscriber(topic), event, patience=max(1.0, bench.lease) + bench.rig.patience).ack()

    def test_process_that_is_killed_loses_nothing(self, bench: Bench) -> None:
        lease = max(1.0, bench.lease)
        topic = bench.topic(lease=lease)
        events = [bench.event(data={"do": "wait" if number % 3 == 2 else ""}) for number in range(12)]
        bench.publish(topic, *events)
        with start_program(bench, "work", topic, add={"concurrency": 3}) as program:
            stuck: set[str] = set()
            done: set[str] = set()
            while len(stuck - done) < 3:
                word, event, _ = program.said(bench.rig.patience)
                (done if word == "done" else stuck).add(event)
            program.kill()
            done |= {event for word, event, _ in program.heard(bench.rig.patience) if word == "done"}
        runs = Runs()
        waiting = {event.id for event in events} - done
        work(bench, topic, runs, concurrency=3)
        bench.eventually(
            lambda: waiting <= set(runs.done()),
            "what the killed process had in hand is handled",
            patience=lease + bench.rig.patience,
        )
        assert {run.event.id for run in runs.all} >= stuck - done

    def test_connections_break_while_handlers_run(self, bench: Bench) -> None:
        topic = bench.topic()
        runs = Runs(lambda delivery: time.sleep(0.05))
        worker = work(bench, topic, runs, concurrency=3)
        published: list[CloudEvent] = []
        for _ in range(3):
            bench.rig.break_connections()
            bench.publish(topic, *(events := bench.events(20)))
            published += events
            goes_on = len(published) - 20
            bench.eventually(lambda goes_on=goes_on: len(runs.all) > goes_on, "the worker goes on")  # type: ignore[misc]
        all_done(bench, runs, published, patience=3 * bench.rig.patience)
        worker.close()
        bench.nothing(bench.subscriber(topic), 0.3, "all were handled")
        assert bench.letters(topic, 0) == []


def _signal(name: str) -> signal.Signals:
    try:
        return signal.Signals[name]
    except KeyError:
        raise NotRun(f"there is no {name} here") from None
