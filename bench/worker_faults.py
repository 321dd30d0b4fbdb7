"""Publish and handle events over a driver that fails now and then, and see what became of each event.

Calls are refused, throttled, done in part, done with their answer lost, done only after their time-out was raised, or
slow. Handlers fail and reject now and then. Of what was published

- none that was accepted may be lost: a handler was done with it, or it is a dead letter because it was rejected;
- none that was refused may arrive, and none may be a dead letter that was not rejected;
- of an ordering key those accepted begin in the order they were published: the awkward broker hands out several of a
  key at once;
- what is unknown may arrive or not, and what arrives may arrive more than once: that is counted.
"""

from __future__ import annotations

import argparse
import logging
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

from common import machine, make_event, table, workdir

import cloudevents_bridge as ceb
from cloudevents_bridge_contract import faulty
from cloudevents_bridge_contract.trouble import KINDS, Troubled

LEASE = 1.0
KEYS = 50
BATCH = 20
MUST = "must be 0"
QUICK = ceb.RetryPolicy(attempts=3, initial=0.005, maximum=0.05)
SUBSCRIPTION = ceb.Subscription(
    "one", lease=LEASE, max_attempts=1000, redelivery=ceb.RetryPolicy(initial=0.01, maximum=0.1)
)
TOPICS = [
    ceb.Topic("plain", subscriptions=[SUBSCRIPTION]),
    ceb.Topic("keyed", ordered=True, subscriptions=[SUBSCRIPTION]),
]


class Ledger:
    """What is known of each event, by its id."""

    def __init__(self, seed: int) -> None:
        self.accepted: dict[str, str] = {}
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.done: Counter[str] = Counter()
        self.first: dict[str, list[str]] = defaultdict(list)
        self.runs = 0
        self._seed = seed
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    def rejects(self, id: str) -> bool:
        """Whether its handler rejects it, each time."""
        return random.Random(f"{self._seed} reject {id}").random() < 0.01

    def note(self, event: ceb.CloudEvent, outcome: ceb.Receipt | ceb.BridgeError) -> None:
        """What its publisher was told."""
        if isinstance(outcome, ceb.Receipt):
            self.accepted[event.id] = event.partitionkey or ""
        else:
            (self.unknown if outcome.maybe_applied else self.refused).add(event.id)

    def handle(self, delivery: ceb.Delivery) -> None:
        """Be done with it, or fail now and then."""
        event = delivery.event
        with self._lock:
            self.runs += 1
            first = event.id not in self._begun
            if first:
                self._begun.add(event.id)
                self.first[event.partitionkey or ""].append(event.id)
        if self.rejects(event.id):
            raise ceb.Reject("of no use")
        chance = random.Random(f"{self._seed} handle {event.id}").random()
        if first and chance < 0.03:
            raise ValueError("once")
        if chance > 0.9995:
            time.sleep(1.5 * LEASE)  # its lease is to be extended
        with self._lock:
            self.done[event.id] += 1

    def settled(self) -> int:
        """How many of those accepted need nothing more."""
        with self._lock:
            return sum(id in self.done or (id in self._begun and self.rejects(id)) for id in self.accepted)

    def unordered(self) -> int:
        """How many of those accepted began before one that was published before them, of the same key."""
        found = 0
        for key, ids in self.first.items():
            known = [id for id in ids if key and id in self.accepted]
            found += sum(later < earlier for earlier, later in pairwise(known))
        return found


def publish(broker: ceb.Broker, ledger: Ledger, events: int) -> None:
    """Publish in all three ways, into both topics."""
    pattern = make_event(0)
    chunk = 500
    for start in range(0, events, chunk):
        topic = TOPICS[start // chunk % 2].name
        batch = [
            pattern.replace(id=f"{n:08}", partitionkey=f"key-{n % KEYS}" if topic == "keyed" else None)
            for n in range(start, min(start + chunk, events))
        ]
        one_by_one, many, submitted = batch[:10], batch[10:300], batch[300:]
        for event in one_by_one:
            try:
                ledger.note(event, broker.publish(topic, event))
            except ceb.BridgeError as error:
                ledger.note(event, error)
        try:
            outcomes: list[ceb.Receipt | ceb.BridgeError] = list(broker.publish_many(topic, many))
        except ceb.PublishError as error:
            outcomes = error.outcomes
        for event, outcome in zip(many, outcomes, strict=True):
            ledger.note(event, outcome)
        publisher = broker.publisher(topic)
        futures = [publisher.submit(event) for event in submitted]
        with suppress(ceb.PublishError):  # each future says it of its event
            publisher.flush()
        for event, future in zip(submitted, futures, strict=True):
            failed = future.exception()
            assert failed is None or isinstance(failed, ceb.BridgeError)
            ledger.note(event, future.result() if failed is None else failed)


def wait_for_all(ledger: Ledger) -> None:
    """Until all that was accepted is done with, or nothing happens any more."""
    runs, still = -1, time.monotonic()
    while ledger.settled() < len(ledger.accepted) and time.monotonic() < still + 5 * LEASE:
        if runs != ledger.runs:
            runs, still = ledger.runs, time.monotonic()
        time.sleep(0.2)


def left(broker: ceb.Broker, topic: ceb.Topic) -> list[str]:
    """What is still there, once all leases are over."""
    found: list[str] = []
    until = time.monotonic() + 2 * LEASE + 0.5
    with broker.subscriber(topic.name, "one") as subscriber:
        while time.monotonic() < until:
            deliveries = subscriber.receive(500, wait=0.3)
            found += [delivery.event.id for delivery in deliveries]
            subscriber.ack_many(deliveries)
    return found


@contextmanager
def over(kind: str) -> Iterator[str]:
    with workdir() as directory:
        yield {
            "memory": "memory://faults",
            "sqlite": f"sqlite:///{directory}/events.db",
            "awkward": "awkward://faults?poll=0.05&groups=1&removes_after=1000000&batch_count=20",
        }[kind]


def main() -> int:
    """Run, count, and exit 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=0.15, help="share of the driver's calls that meet with trouble")
    parser.add_argument("--broker", choices=["memory", "sqlite", "awkward"], default="memory")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"{machine()}; {arguments.events:,} events over {arguments.broker}, seed {seed}", end="\n\n")
    logging.disable()  # some ten thousand warnings are no news here
    began = time.monotonic()
    ledger, shim = Ledger(seed), Troubled(arguments.rate, seed, batch=BATCH)
    with over(arguments.broker) as url, ceb.connect(url, topics=TOPICS) as honest:
        honest.topology.apply()
        faulty.register("troubled", lambda: shim)
        with ceb.connect(faulty.through("troubled", url), topics=TOPICS, retry=QUICK) as broker:
            worker = broker.worker(grace=5.0)
            for topic in TOPICS:
                worker.add(topic.name, "one", ledger.handle, concurrency=4)
            with worker:
                publish(broker, ledger, arguments.events)
                wait_for_all(ledger)
        shim.end()
        rest = [id for topic in TOPICS for id in left(honest, topic)]
        letters = [letter for topic in TOPICS for letter in honest.dead_letters(topic.name, "one").find()]
    took = time.monotonic() - began
    dead = Counter(letter.event.id for letter in letters if letter.event)
    arrived = {*ledger.done, *dead, *rest}
    lost = [id for id in ledger.accepted if id not in ledger.done and id not in dead]
    counts = {
        "accepted": (len(ledger.accepted), ""),
        "refused": (len(ledger.refused), ""),
        "unknown": (len(ledger.unknown), f"{len(ledger.unknown & arrived):,} of them arrived: allowed"),
        "handled again": (sum(ledger.done.values()) - len(ledger.done), "allowed"),
        "dead letters": (len(dead), ""),
        "left when the worker was closed": (len(rest), "or applied after that"),
        "accepted, and lost": (len(lost), MUST),
        "refused, and arrived": (len(ledger.refused & arrived), MUST),
        "dead letters that no handler rejected": (sum(not ledger.rejects(id) for id in dead), MUST),
        "dead letters listed twice": (sum(count - 1 for count in dead.values()), MUST),
        "begun before an earlier one of the same key": (ledger.unordered(), MUST),
    }
    operations = dict.fromkeys(operation for operation, _ in sorted(shim.injected))
    rows = [[operation, *(f"{shim.injected[operation, kind]:,}" for kind in KINDS), ""] for operation in operations]
    print(table(["trouble with calls of", *KINDS, ""], rows), end="\n\n")
    print(table([f"{took:.0f} s", "events", ""], [(what, f"{n:,}", note) for what, (n, note) in counts.items()]))
    return int(any(count for count, note in counts.values() if note == MUST))


if __name__ == "__main__":
    raise SystemExit(main())
