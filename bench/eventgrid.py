"""Event Grid's namespaces, beside loops over Microsoft's own client with batches, on our emulator."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from azure.core.credentials import AzureKeyCredential
from azure.core.messaging import CloudEvent as AzureEvent
from azure.core.rest import HttpRequest
from azure.eventgrid import EventGridConsumerClient, EventGridPublisherClient
from common import beside, cpu_cost, machine, make_events

from cloudevents_bridge import Broker, CloudEvent, connect
from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, started

SIZE = 1024
BATCH = 500
RECEIVED = 100
"""Events of one receive: the most that there is."""


class Clients(NamedTuple):
    broker: Broker
    publisher: EventGridPublisherClient
    consumer: EventGridConsumerClient


def ours_publish(at: Clients, events: Sequence[CloudEvent]) -> None:
    at.broker.publish_many("orders", events)


def sdk_publish(at: Clients, events: Sequence[CloudEvent]) -> None:
    for start in range(0, len(events), BATCH):
        part = events[start : start + BATCH]
        at.publisher.send([AzureEvent(each.source, each.type, data=each.data, id=each.id) for each in part])


def raw_publish(at: Clients, events: Sequence[CloudEvent]) -> None:
    for start in range(0, len(events), BATCH):
        body = b"[" + b",".join(each.to_json() for each in events[start : start + BATCH]) + b"]"
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        params = {"api-version": "2024-06-01"}
        request = HttpRequest("POST", "/topics/orders:publish", params=params, headers=headers, content=body)
        at.publisher.send_request(request).raise_for_status()


def ours_receive(at: Clients, count: int) -> None:
    with at.broker.subscriber("orders", "reader") as subscriber:
        while count:
            deliveries = subscriber.receive(RECEIVED)
            for delivery in deliveries:
                _ = delivery.event.data
            subscriber.ack_many(deliveries)
            count -= len(deliveries)


def sdk_receive(at: Clients, count: int) -> None:
    while count:
        received = at.consumer.receive(max_events=RECEIVED, max_wait_time=10)
        at.consumer.acknowledge(lock_tokens=[each.broker_properties.lock_token for each in received])
        count -= len(received)


PUBLISHING = {
    "cloudevents-bridge: publish_many": ours_publish,
    "azure-eventgrid: send, in batches": sdk_publish,
    "azure-eventgrid: send_request of JSON that we made": raw_publish,
}
RECEIVING = {
    "cloudevents-bridge: receive, data, ack_many": ours_receive,
    "azure-eventgrid: receive, acknowledge": sdk_receive,
}


def main() -> None:
    """Print the tables and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=3_000)
    arguments = parser.parse_args()
    events = make_events(arguments.events, size=SIZE)
    costs: dict[str, list[float]] = {name: [] for name in (*PUBLISHING, *RECEIVING)}
    with started() as emulator:
        emulator.make_topic("orders")
        key = AzureKeyCredential(KEY)
        url = f"azure-eventgrid://bench?endpoint={emulator.url}"
        with (
            connect(url, credential=key) as broker,
            EventGridPublisherClient(emulator.url, key, namespace_topic="orders") as publisher,
            EventGridConsumerClient(emulator.url, key, namespace_topic="orders", subscription="reader") as consumer,
        ):
            at = Clients(broker, publisher, consumer)
            for number in range(arguments.rounds + 1):  # the first one warms up, and does not count
                for name, publish in PUBLISHING.items():
                    emulator.make_subscription("orders", "reader")
                    cost = cpu_cost(len(events), lambda publish=publish: publish(at, events))  # type: ignore[misc]
                    costs[name] += [cost] if number else []
                for name, receive in RECEIVING.items():
                    emulator.make_subscription("orders", "reader")
                    raw_publish(at, events)
                    cost = cpu_cost(len(events), lambda receive=receive: receive(at, len(events)))  # type: ignore[misc]
                    costs[name] += [cost] if number else []
    print(machine())
    print(f"{arguments.events} events of {SIZE} bytes, {arguments.rounds} rounds, medians\n")
    for group in (PUBLISHING, RECEIVING):
        print(beside(tuple(group), costs))


if __name__ == "__main__":
    main()
