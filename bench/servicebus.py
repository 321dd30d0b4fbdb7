"""Service Bus, beside loops over Microsoft's own client with batches, on our emulator."""

from __future__ import annotations

import argparse
import threading
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from azure.servicebus import ServiceBusClient, ServiceBusMessage
from common import beside, cpu_cost, machine, make_events

from cloudevents_bridge import Broker, CloudEvent, Topic, connect
from cloudevents_bridge_contract.emulators.servicebus.launcher import started

SIZE = 1024
RECEIVED = 100


class At(NamedTuple):
    """A topic, and both ways to it."""

    broker: Broker
    client: ServiceBusClient
    topic: str


def ours_publish(at: At, events: Sequence[CloudEvent]) -> None:
    at.broker.publish_many(at.topic, events)


def sdk_publish(at: At, events: Sequence[CloudEvent]) -> None:
    """In the same form, in as few batches as the SDK makes of it."""
    with at.client.get_topic_sender(at.topic) as sender:
        batch = sender.create_message_batch()
        for event in events:
            message = _message(event)
            try:
                batch.add_message(message)
            except ValueError:  # it is full
                sender.send_messages(batch)
                batch = sender.create_message_batch()
                batch.add_message(message)
        sender.send_messages(batch)


def _message(event: CloudEvent) -> ServiceBusMessage:
    properties: dict[str | bytes, Any] = {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": event.id,
        "cloudEvents_source": event.source,
        "cloudEvents_type": event.type,
        "cloudEvents_subject": event.subject,
        "cloudEvents_time": event.time.isoformat() if event.time else None,
    }
    return ServiceBusMessage(
        event.data_bytes,
        application_properties={name: value for name, value in properties.items() if value is not None},
        content_type="application/json",
        message_id=event.id,
    )


def ours_receive(at: At, count: int) -> None:
    with at.broker.subscriber(at.topic, "reader") as subscriber:
        while count:
            deliveries = subscriber.receive(RECEIVED)
            for delivery in deliveries:
                _ = delivery.event.data
            subscriber.ack_many(deliveries)
            count -= len(deliveries)


def ours_worker(at: At, count: int) -> None:
    left = Countdown(count)

    def handle(event: CloudEvent) -> None:
        _ = event.data
        left.one_less()

    with at.broker.worker().add(at.topic, "reader", handle):
        left.ended.wait()


class Countdown:
    """Ends when it has been told `count` times, from any thread."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self.ended = threading.Event()

    def one_less(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.ended.set()


def sdk_receive(at: At, count: int) -> None:
    with at.client.get_subscription_receiver(at.topic, "reader") as receiver:
        while count:
            for message in receiver.receive_messages(RECEIVED, max_wait_time=10):
                _ = b"".join(message.body)
                receiver.complete_message(message)
                count -= 1


PUBLISHING = {
    "cloudevents-bridge: publish_many": ours_publish,
    "azure-servicebus: send_messages of batches": sdk_publish,
}
RECEIVING = {
    "cloudevents-bridge: receive, data, ack_many": ours_receive,
    "cloudevents-bridge: worker": ours_worker,
    "azure-servicebus: receive_messages, complete_message": sdk_receive,
}


def main() -> None:
    """Print the tables and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=2_000)
    arguments = parser.parse_args()
    events = make_events(arguments.events, size=SIZE)
    costs: dict[str, list[float]] = {name: [] for name in (*PUBLISHING, *RECEIVING)}
    with started() as emulator:
        places = f"endpoint=amqp://{emulator.server.address}&administration={emulator.administration}"
        with (
            connect(f"azure-servicebus://bench?{places}", telemetry=False) as broker,
            ServiceBusClient.from_connection_string(emulator.connection) as client,
        ):
            for number in range(arguments.rounds + 1):  # the first one warms up, and does not count
                for name, publish in PUBLISHING.items():
                    at = _place(broker, client)
                    cost = cpu_cost(len(events), lambda at=at, publish=publish: publish(at, events))  # type: ignore[misc]
                    costs[name] += [cost] if number else []
                    broker.topology.delete(Topic(at.topic))
                for name, receive in RECEIVING.items():
                    at = _place(broker, client)
                    broker.publish_many(at.topic, events)
                    cost = cpu_cost(len(events), lambda at=at, receive=receive: receive(at, len(events)))  # type: ignore[misc]
                    costs[name] += [cost] if number else []
                    broker.topology.delete(Topic(at.topic))
    print(machine())
    print(f"{arguments.events} events of {SIZE} bytes, {arguments.rounds} rounds, medians\n")
    by_hand, worker, sdk = RECEIVING
    for group in (tuple(PUBLISHING), (by_hand, sdk), (worker, sdk)):
        print(beside(group, costs))


def _place(broker: Broker, client: ServiceBusClient) -> At:
    topic = Topic(f"bench-{uuid.uuid4().hex[:8]}", subscriptions=["reader"])
    broker.topology.apply(topic)
    return At(broker, client, topic.name)


if __name__ == "__main__":
    main()
