"""Pub/Sub, beside Google's own client with its defaults and a loop of single publishes, on Google's emulator."""

from __future__ import annotations

import argparse
import gc
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from common import machine, make_events, median, rate, table
from google.cloud import pubsub_v1
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from cloudevents_bridge import Broker, CloudEvent, Topic, connect
from cloudevents_bridge.bindings import PUBSUB
from cloudevents_bridge_contract.emulators import pubsub

SIZE = 1024
PROJECT = "ceb-bench"


class Cost(NamedTuple):
    """Of one measurement: events per second, and microseconds of this process's CPU per event."""

    rate: float
    cpu: float


class Place:
    """A topic with one subscription, and both clients on the same emulator."""

    def __init__(self, broker: Broker, address: str) -> None:
        self.name = f"bench-{uuid.uuid4().hex[:8]}"
        self.broker = broker
        self.topic = f"projects/{PROJECT}/topics/{self.name}"
        self.subscription = f"projects/{PROJECT}/subscriptions/{self.name}--reader"
        self.address = address

    def channel(self) -> Any:
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        return grpc.insecure_channel(self.address, options=limits)


@contextmanager
def place(broker: Broker, address: str) -> Iterator[Place]:
    made = Place(broker, address)
    declared = Topic(made.name, subscriptions=["reader"])
    broker.topology.apply(declared)
    yield made
    broker.topology.delete(declared)


def measured(count: int, work: Callable[[], object]) -> Cost:
    gc.collect()
    cpu, began = time.process_time(), time.perf_counter()
    work()
    took, used = time.perf_counter() - began, time.process_time() - cpu
    return Cost(count / took, used / count * 1e6)


# -- publishing


def ours_many(at: Place, events: Sequence[CloudEvent]) -> Cost:
    return measured(len(events), lambda: at.broker.publish_many(at.name, events))


def ours_submit(at: Place, events: Sequence[CloudEvent]) -> Cost:
    def work() -> None:
        publisher = at.broker.publisher(at.name)
        for event in events:
            publisher.submit(event)
        publisher.flush()

    return measured(len(events), work)


def googles(at: Place, events: Sequence[CloudEvent], *, threads: int = 1, single: bool = False) -> Cost:
    """`single`: each publish waits for its receipt."""
    prepared = [PUBSUB.encode(event) for event in events]
    with at.channel() as channel:
        client = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=channel))

        def send(part: Sequence[tuple[Mapping[str, str], bytes]]) -> None:
            if single:
                for attributes, body in part:
                    client.publish(at.topic, body, **attributes).result()
            else:
                wait([client.publish(at.topic, body, **attributes) for attributes, body in part])

        def work() -> None:
            if threads == 1:
                send(prepared)
                return
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(send, [prepared[n::threads] for n in range(threads)]))

        cost = measured(len(events), work)
        client.stop()
    return cost


# -- receiving


def ours_receive(at: Place, count: int) -> Cost:
    def work() -> None:
        left = count
        with at.broker.subscriber(at.name, "reader") as subscriber:
            while left:
                deliveries = subscriber.receive(1000, wait=10)
                subscriber.ack_many(deliveries)
                left -= len(deliveries)

    return measured(count, work)


def ours_worker(at: Place, count: int) -> Cost:
    seen = 0
    done = threading.Event()

    def handle(event: CloudEvent) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()

    def work() -> None:
        with at.broker.worker().add(at.name, "reader", handle):
            done.wait(300)

    return measured(count, work)


def googles_subscribe(at: Place, count: int) -> Cost:
    seen = 0
    lock = threading.Lock()
    done = threading.Event()

    def handle(message: Any) -> None:
        nonlocal seen
        message.ack()
        with lock:
            seen += 1
            if seen == count:
                done.set()

    with at.channel() as channel:
        client = pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))

        def work() -> None:
            future = client.subscribe(at.subscription, handle)
            done.wait(300)
            future.cancel()
            future.result()

        return measured(count, work)


def main() -> None:
    """Print the tables and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--singles", type=int, default=500, help="events of the loop of single publishes")
    arguments = parser.parse_args()
    pattern = make_events(arguments.events)
    note = {"note": "x" * (SIZE - len(pattern[0].to_json()) + len(pattern[0].data["note"]))}
    events = [event.replace(data=note) for event in pattern]
    singles = events[: arguments.singles]
    publishing: dict[str, Callable[[Place], Cost]] = {
        "cloudevents-bridge: publish_many": lambda at: ours_many(at, events),
        "cloudevents-bridge: submit, flush": lambda at: ours_submit(at, events),
        "Google's client, defaults, one thread": lambda at: googles(at, events),
        "Google's client, defaults, 8 threads": lambda at: googles(at, events, threads=8),
        "Google's client: publish().result() in a loop": lambda at: googles(at, singles, single=True),
    }
    receiving: dict[str, Callable[[Place, int], Cost]] = {
        "cloudevents-bridge: receive, ack_many": ours_receive,
        "cloudevents-bridge: worker": ours_worker,
        "Google's client: subscribe, defaults": googles_subscribe,
    }
    published: dict[str, list[Cost]] = {name: [] for name in publishing}
    received: dict[str, list[Cost]] = {name: [] for name in receiving}
    emulator = pubsub.find()
    with emulator.started() as server, connect(f"gcp://{PROJECT}?endpoint=http://{server.address}") as broker:
        for number in range(arguments.rounds + 1):  # the first one warms up the emulator, and does not count
            for name, publish in publishing.items():
                with place(broker, server.address) as at:
                    cost = publish(at)
                    published[name] += [cost] if number else []
            for name, receive in receiving.items():
                with place(broker, server.address) as at:
                    broker.publish_many(at.name, events)
                    cost = receive(at, len(events))
                    received[name] += [cost] if number else []
    print(
        f"{machine()}; Google's emulator {emulator.version}, events of {SIZE} bytes, {arguments.events} each, "
        f"{arguments.rounds} rounds in turn, medians\n"
    )
    for title, costs in (("publish", published), ("receive + ack", received)):
        rows = [
            [name, rate(median(c.rate for c in each)), f"{median(c.cpu for c in each):.0f}"]
            for name, each in costs.items()
        ]
        print(table([title, "events/s", "CPU, µs per event"], rows), end="\n\n")
    names, receivers = list(publishing), list(receiving)
    for ours, theirs, costs in (
        (names[0], names[2], published),
        (names[0], names[3], published),
        (names[1], names[2], published),
        (names[0], names[4], published),
        (receivers[0], receivers[2], received),
        (receivers[1], receivers[2], received),
    ):
        ratios = [a.rate / b.rate for a, b in zip(costs[ours], costs[theirs], strict=True)]
        print(f"{ours} is {median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}) as fast as {theirs}")


if __name__ == "__main__":
    main()
