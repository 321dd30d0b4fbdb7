"""Events through connections that fail, and a broker that goes and comes back: what is lost, and what is said falsely.

What fails, and how, is the caller's.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from cloudevents_bridge import BridgeError, Broker, CloudEvent, PublishError, Receipt, RetryPolicy, Topic, Worker
from cloudevents_bridge_contract.emulators.process import Server, wait_until

PATIENT = RetryPolicy(attempts=10, initial=0.02, maximum=0.5)
"""Of the broker whose publishes nearly all come through."""
HASTY = RetryPolicy(attempts=1)
"""Of the one that does not try again, for outcomes that are not good."""
_MARGIN = 0.5


class Outcome(NamedTuple):
    """Of one run. `lost`, `false` and `overtaken` must be 0.

    Attributes:
        accepted, refused, unknown: events by what the publisher was told.
        lost: accepted, and never handled.
        false: refused, and handled all the same.
        overtaken: first runs of an event after one of its key that was published later.
        duplicates: runs beyond the first of an event.
        faults: how often each was made.
    """

    accepted: int
    refused: int
    unknown: int
    lost: int
    false: int
    overtaken: int
    duplicates: int
    faults: Counter[str]


def run(
    topic: Topic,
    patient: Broker,
    hasty: Broker,
    count: int,
    *,
    seed: int,
    faults: Counter[str],
    part: int = 200,
    keys: int = 0,
    deadline: float = 100.0,
) -> Outcome:
    """Publish `count` events, and handle them by a worker of the first subscription.

    Args:
        patient, hasty: opened with `PATIENT` and `HASTY`, through what fails.
        faults: counted by what makes them.
        part: events in one publish.
        keys: ordering keys that the events have in turn; 0: none.
        deadline: seconds after the last publish within which what was accepted must have been handled.
    """
    told: dict[str, Receipt | BridgeError] = {}
    seen: Counter[str] = Counter()
    lock = threading.Lock()
    latest = 0.0

    def handle(event: CloudEvent) -> None:
        nonlocal latest
        with lock:
            seen[event.id] += 1
            latest = time.monotonic()

    pick = random.Random(seed)
    reader = topic.subscriptions[0]
    with patient.worker().add(topic.name, reader.name, handle, concurrency=4):
        for start in range(0, count, part):
            numbers = range(start, min(start + part, count))
            events = [_event(n, str(n % keys) if keys else None) for n in numbers]
            broker = hasty if pick.random() < 0.2 else patient
            try:
                outcomes: list[Receipt | BridgeError] = list(broker.publish_many(topic.name, events))
            except PublishError as error:
                outcomes = error.outcomes
            told |= {event.id: outcome for event, outcome in zip(events, outcomes, strict=True)}
        accepted = {id for id, outcome in told.items() if isinstance(outcome, Receipt)}
        wait_until(lambda: accepted <= seen.keys(), deadline)
        published = time.monotonic()
        # What was refused must not come either, and what a broken connection had comes when its lease ends.
        wait_until(lambda: time.monotonic() > max(published, latest) + reader.lease + _MARGIN, deadline)
    unknown = {id for id, outcome in told.items() if isinstance(outcome, BridgeError) and outcome.maybe_applied}
    refused = told.keys() - accepted - unknown
    return Outcome(
        len(accepted),
        len(refused),
        len(unknown),
        len(accepted - seen.keys()),
        len(refused & seen.keys()),
        _overtaken(seen, keys),
        sum(seen.values()) - len(seen),
        faults,
    )


def _event(number: int, key: str | None) -> CloudEvent:
    return CloudEvent(type="t", source="/s", id=str(number), data="x" * 100, partitionkey=key)


def _overtaken(seen: Iterable[str], keys: int) -> int:
    """How many of them, in the order of their first runs, come after a later one of their key."""
    latest: dict[int, int] = {}
    overtaken = 0
    for number in map(int, seen) if keys else ():
        key = number % keys
        overtaken += number < latest.get(key, -1)
        latest[key] = max(number, latest.get(key, -1))
    return overtaken


@contextmanager
def repeatedly(disturb: Callable[[], None], pause: float) -> Iterator[None]:
    """Disturb until the block ends, with `pause` seconds between."""
    ended = threading.Event()

    def work() -> None:
        disturb()
        while not ended.wait(pause):
            disturb()

    thread = threading.Thread(target=work, name="storm")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def resumes(topic: Topic, broker: Broker, server: Server) -> None:
    """A worker goes on where the broker was away, and forgot everything: the topology is applied again beside it."""
    seen: list[str] = []

    def until(wanted: str) -> None:
        assert wait_until(lambda: wanted in seen, 60), f"{wanted} was not handled"

    def noticed(worker: Worker, *, connected: bool) -> None:
        assert wait_until(lambda: worker.stats.connected == connected, 30), "nobody noticed"

    def publish(id: str, timeout: float | None = None) -> None:
        broker.publish(topic.name, CloudEvent(type="t", source="/s", id=id), timeout=timeout)

    broker.topology.apply()
    with broker.worker().add(topic.name, topic.subscriptions[0].name, lambda event: seen.append(event.id)) as worker:
        publish("before")
        until("before")
        server.stop()
        noticed(worker, connected=False)
        with pytest.raises(BridgeError, match="reached"):
            publish("meanwhile", timeout=0.5)
        server.restart()
        broker.topology.apply()
        publish("after")
        until("after")
        noticed(worker, connected=True)
    assert seen == ["before", "after"]


def main(description: str | None, runs: dict[str, Callable[[int, int], Outcome]]) -> int:
    """Try it at full size. `runs`: by name, with the count of events and the seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("events", type=int, nargs="?", default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--on", choices=runs, default=next(iter(runs)))
    given = parser.parse_args()
    print(f"seed {given.seed}")
    began = time.monotonic()
    outcome = runs[given.on](given.events, given.seed)
    print(f"{outcome}\n{time.monotonic() - began:.0f} s")
    return 1 if outcome.lost or outcome.false or outcome.overtaken else 0
