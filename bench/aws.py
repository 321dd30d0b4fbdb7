"""SNS and SQS, beside loops on boto3 written by hand, with canned answers and on the emulators; requests beside kombu.

Canned answers show what a client costs, where no emulator is in the way: on all processors, and on one, where waking
another processor is not in the way either. Needs what `make test` installs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import kombu
from aws_services import REGION, Canned, Emulated, Place, Service
from aws_ways import BATCH, Cost, Ways
from common import machine, make_events, median, one_processor, rate, table

from cloudevents_bridge import CloudEvent
from cloudevents_bridge_contract.emulators.localstack import localstack
from cloudevents_bridge_contract.emulators.ministack import ministack

SIZE = 1024

MANY, SINGLE = "cloudevents-bridge: publish_many", "cloudevents-bridge: publish, one at a time"
RECEIVE, WORKER = "cloudevents-bridge: receive, ack_many", "cloudevents-bridge: worker"
IN_TENS = f"cloudevents-bridge: worker, batch={BATCH}"
BATCHES, LEAN_BATCHES = "boto3: publish_batch of 10", "boto3: publish_batch of 10, lean"
SINGLES, LEAN_SINGLES = "boto3: publish, one at a time", "boto3: publish, one at a time, lean"
TAKE, LEAN_TAKE = "boto3: receive 10, delete 10", "boto3: receive 10, delete 10, lean"
RATIOS = (
    (MANY, BATCHES, "at most 1.10"),
    (MANY, LEAN_BATCHES, "at most 1.10"),
    (MANY, SINGLES, "at most 0.167"),
    (MANY, LEAN_SINGLES, "at most 0.167"),
    (MANY, SINGLE, "at most 0.167"),
    (RECEIVE, TAKE, "at most 1.15"),
    (RECEIVE, LEAN_TAKE, "at most 1.15"),
    (WORKER, TAKE, "at most 1.15"),
    (WORKER, LEAN_TAKE, "at most 1.15"),
    (IN_TENS, LEAN_TAKE, ""),
)


def compare(service: Service, events: Sequence[CloudEvent], singles: int, rounds: int) -> None:
    """Print what publishing and receiving cost on a service, everything in turn."""
    ways = Ways(service)
    few = events[:singles]
    publishing: dict[str, Callable[[Place], Cost]] = {
        MANY: lambda at: ways.ours_many(at, events),
        BATCHES: lambda at: ways.batches_by_hand(at, events, ways.plain_sns),
        LEAN_BATCHES: lambda at: ways.batches_by_hand(at, events, ways.sns),
        SINGLE: lambda at: ways.ours_single(at, few),
        SINGLES: lambda at: ways.singles_by_hand(at, few, ways.plain_sns),
        LEAN_SINGLES: lambda at: ways.singles_by_hand(at, few, ways.sns),
    }
    receiving: dict[str, Callable[[Place, int], Cost]] = {
        RECEIVE: ways.ours_receive,
        WORKER: ways.ours_worker,
        IN_TENS: lambda at, count: ways.ours_worker(at, count, batch=BATCH),
        TAKE: lambda at, count: ways.receive_by_hand(at, count, ways.plain_sqs),
        LEAN_TAKE: lambda at, count: ways.receive_by_hand(at, count, ways.sqs),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in (*publishing, *receiving)}
    for number in range(rounds + 1):  # the first one warms up, and does not count
        for name, publish in publishing.items():
            with service.place() as at:
                cost = publish(at)
                costs[name] += [cost] if number else []
        for name, receive in receiving.items():
            with service.place() as at:
                service.fill(at, events)
                cost = receive(at, len(events))
                costs[name] += [cost] if number else []
    print(
        f"\n{machine()}; {service.name}, events of {SIZE} bytes, {len(events):,} each ({len(few):,} one at a time), "
        f"{rounds} rounds in turn, medians\n"
    )
    for title, names in (("publish", publishing), ("receive, handle, ack", receiving)):
        rows = [[name, *_figures(costs[name])] for name in names]
        print(table([title, "events/s", "CPU, µs per event", "requests per 1,000"], rows), end="\n\n")
    rows = []
    for ours, theirs, target in RATIOS:
        cpu = [a.cpu / b.cpu for a, b in zip(costs[ours], costs[theirs], strict=True)]
        taken = [b.rate / a.rate for a, b in zip(costs[ours], costs[theirs], strict=True)]
        spread = f"{min(cpu):.2f} to {max(cpu):.2f}"
        rows.append([f"{ours} / {theirs}", f"{median(cpu):.2f}", spread, f"{median(taken):.2f}", target])
    print(table(["ratio", "CPU", "from, to", "time", "target"], rows))


def _figures(costs: Sequence[Cost]) -> list[str]:
    each = [median(values) for values in zip(*costs, strict=True)]
    return [rate(each[0]), f"{each[1]:.0f}", f"{each[2]:.0f}"]


# -- requests, beside kombu


@contextmanager
def kombu_queue(service: Emulated, wait: int) -> Iterator[Any]:
    """A queue of kombu's, its requests counted. `wait`: seconds of one poll; kombu's own default is 10."""
    options = {"region": REGION, "is_secure": False, "wait_time_seconds": wait}
    address = str(service.endpoint).rpartition("/")[2]
    with kombu.Connection(f"sqs://test:test@{address}//", transport_options=options) as connection:
        service.count(connection.default_channel.sqs())
        queue = connection.SimpleQueue(f"bench-kombu-{os.getpid()}-{wait}")
        yield queue
        queue.close()
        connection.default_channel.queue_delete(queue.queue.name)


def requests(service: Emulated, events: Sequence[CloudEvent]) -> None:
    """Print how many requests events take."""
    ways = Ways(service)
    texts = [event.to_json().decode() for event in events]
    rows = []
    with service.place() as at:
        sent = _counted(service, lambda: ways.ours_many(at, events))
        taken = _counted(service, lambda: ways.ours_worker(at, len(events)))
        rows.append(_requests("cloudevents-bridge: publish_many, worker", len(events), sent + taken))
    with service.place() as at:  # its start and its end count less
        service.fill(at, many := [*events] * 5)
        taken = _counted(service, lambda: ways.ours_worker(at, len(many)))
        rows.append(_requests(f"cloudevents-bridge: worker, {len(many):,} events", len(many), taken))
    with service.place() as at:
        service.fill(at, events)
        taken = _counted(service, lambda: ways.ours_receive(at, len(events)))
        rows.append(_requests("cloudevents-bridge: receive, ack_many", len(events), taken))
    with kombu_queue(service, 1) as queue:

        def work() -> None:
            for text in texts:
                queue.put(text)
            for _ in texts:
                queue.get(timeout=30).ack()

        done = _counted(service, work)
        rows.append(_requests(f"kombu {kombu.__version__}: SQS transport", len(events), done))
    print(f"\n{service.name}, requests per 1,000 of {len(events):,} events\n")
    print(table(["", "publish or send", "receive", "delete", "others"], rows))


def idle(service: Emulated, seconds: float) -> None:
    """Print how many requests an empty queue takes."""
    rows = []
    for name, handlers in (("worker", 1), ("worker, 8 handlers", 8)):
        with service.place() as at, at.broker.worker().add(at.name, "reader", _no_event, concurrency=handlers):
            made = _counted(service, lambda: time.sleep(seconds))
            rows.append([f"cloudevents-bridge: {name}", f"{made.total()}"])
    with kombu_queue(service, 10) as queue:

        def wait() -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                try:
                    queue.get(timeout=1)
                except queue.Empty:
                    continue

        rows.append([f"kombu {kombu.__version__}: SQS transport", f"{_counted(service, wait).total()}"])
    print(f"\n{service.name}, requests of an empty queue in {seconds:.0f} seconds\n")
    print(table(["", "requests"], rows))


def _no_event(event: CloudEvent) -> None:
    raise AssertionError(event)


def _counted(service: Service, work: Callable[[], object]) -> Counter[str]:
    before = service.requests.copy()
    work()
    return service.requests - before


def _requests(name: str, events: int, made: Counter[str]) -> list[str]:
    kinds = {"Publish": 0, "Send": 0, "Receive": 1, "Delete": 2}
    columns = [0, 0, 0, 0]
    for operation, times in made.items():
        columns[next((at for kind, at in kinds.items() if operation.startswith(kind)), 3)] += times
    return [name, *(f"{times / events * 1000:.0f}" for times in columns)]


def main() -> None:
    """Print the tables and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=5_000, help="with canned answers")
    parser.add_argument("--emulated", type=int, default=1_000, help="events on each emulator")
    parser.add_argument("--singles", type=int, default=500, help="events of the loops of single publishes")
    parser.add_argument("--idle", type=float, default=60, help="seconds to look at an empty queue")
    given = parser.parse_args()
    pattern = make_events(max(given.events, given.emulated))
    note = {"note": "x" * (SIZE - len(pattern[0].to_json()) + len(pattern[0].data["note"]))}
    events = [event.replace(data=note) for event in pattern]
    for where, on in (("on all processors", nullcontext()), ("on one processor", one_processor())):
        with on, closing(Canned(f"canned answers, {where}")) as canned:
            compare(canned, events[: given.events], given.singles, given.rounds)
    for name, server in (("MiniStack", ministack()), ("LocalStack", localstack())):
        with server as running:
            service = Emulated(name, running.address)
            compare(service, events[: given.emulated], min(given.singles, 200), max(given.rounds // 2, 1))
            if name == "MiniStack":
                requests(service, events[: given.emulated])
                if given.idle:
                    idle(service, given.idle)
            service.close()


if __name__ == "__main__":
    main()
