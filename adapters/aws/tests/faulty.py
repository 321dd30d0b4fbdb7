"""Events over connections that reset, lose, cut and delay answers, and a service that fails and throttles.

`python adapters/aws/tests/faulty.py 20000` tries it at full size; the tests do so with fewer.
"""

from __future__ import annotations

import argparse
import os
import random
import threading
import time
import uuid
from collections import Counter
from typing import NamedTuple

from cloudevents_bridge import BridgeError, CloudEvent, PublishError, Receipt, RetryPolicy, Subscription, Topic, connect
from cloudevents_bridge_contract.emulators.faults import Answer, FaultyProxy
from cloudevents_bridge_contract.emulators.ministack import ministack

URL = "aws://eu-west-1?account=000000000000&endpoint=http://127.0.0.1:"
THROTTLED = Answer(
    400,
    {"x-amzn-query-error": "RequestThrottled;Sender", "Content-Type": "application/x-amz-json-1.0"},
    b"<ErrorResponse><Error><Code>Throttling</Code><Message>slower</Message></Error></ErrorResponse>",
)
PATIENT = RetryPolicy(attempts=10, initial=0.02, maximum=0.5)
HASTY = RetryPolicy(attempts=1)
_PART = 200


class Outcome(NamedTuple):
    """Of one run. `lost` and `false` must be 0.

    Attributes:
        accepted, refused, unknown: events by what the publisher was told.
        lost: accepted, and never handled.
        false: refused, and handled all the same.
        duplicates: runs beyond the first of an event.
        faults: how often each was made.
    """

    accepted: int
    refused: int
    unknown: int
    lost: int
    false: int
    duplicates: int
    faults: Counter[str]


def run(port: int, count: int, *, seed: int, chance: float = 0.1, deadline: float = 100.0) -> Outcome:
    """Publish `count` events and handle them, on the emulator at `port`."""
    topic = Topic(
        f"faulty-{uuid.uuid4().hex[:8]}", subscriptions=[Subscription("reader", lease=3.0, max_attempts=1000)]
    )
    told: dict[str, Receipt | BridgeError] = {}
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def handle(event: CloudEvent) -> None:
        with lock:
            seen[event.id] += 1

    with (
        connect(f"{URL}{port}", topics=[topic]) as plain,
        FaultyProxy(port, chance=chance, throttled=THROTTLED, seed=seed) as proxy,
        connect(f"{URL}{proxy.port}", topics=[topic], retry=PATIENT, poll=1) as broker,
        # A second one that does not try again, for outcomes that are not good.
        connect(f"{URL}{proxy.port}", topics=[topic], retry=HASTY) as hasty,
    ):
        plain.topology.apply()
        pick = random.Random(seed)
        with broker.worker().add(topic.name, "reader", handle, concurrency=4):
            for start in range(0, count, _PART):
                events = [
                    CloudEvent(type="t", source="/s", id=str(n), data="x" * 100)
                    for n in range(start, min(start + _PART, count))
                ]
                with_ = hasty if pick.random() < 0.2 else broker
                try:
                    outcomes: list[Receipt | BridgeError] = list(with_.publish_many(topic.name, events))
                except PublishError as error:
                    outcomes = error.outcomes
                told |= {event.id: outcome for event, outcome in zip(events, outcomes, strict=True)}
            accepted = {id for id, outcome in told.items() if isinstance(outcome, Receipt)}
            until = time.monotonic() + deadline
            while accepted - seen.keys() and time.monotonic() < until:
                time.sleep(0.05)
        plain.topology.delete()
    unknown = {id for id, outcome in told.items() if isinstance(outcome, BridgeError) and outcome.maybe_applied}
    refused = told.keys() - accepted - unknown
    return Outcome(
        len(accepted),
        len(refused),
        len(unknown),
        len(accepted - seen.keys()),
        len(refused & seen.keys()),
        sum(seen.values()) - len(seen),
        proxy.done,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=int, nargs="?", default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    print(f"seed {given.seed}")
    began = time.monotonic()
    with ministack() as server:
        outcome = run(server.port, given.events, seed=given.seed, deadline=300)
    print(f"{outcome}\n{time.monotonic() - began:.0f} s")
    return 1 if outcome.lost or outcome.false else 0


if __name__ == "__main__":
    raise SystemExit(main())
