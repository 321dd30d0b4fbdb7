"""How fast the driver of memory:// is by itself, in batches of 1,000: `python bench/memory_driver.py`."""

from __future__ import annotations

import argparse
import time

from cloudevents_bridge.brokers.memory import adapter
from cloudevents_bridge.driver import Outbound, Subscription, Topic, Url

BODY = (
    b'{"specversion":"1.0","id":"1","type":"com.example.order.created","source":"/shop","data":{' + b" " * 200 + b"}}"
)


def run(events: int, batch: int, *, ordered: bool, subscriptions: int) -> tuple[float, float]:
    """Events per second sent, and received and acked from one subscription."""
    connection = adapter(Url("memory://", "memory", "", "", {}), {})
    topic = Topic("orders", ordered=ordered)
    feeds = [Subscription(topic, f"feed-{number}") for number in range(subscriptions)]
    connection.topology.apply(connection.topology.diff([topic, *feeds]))
    publisher = connection.open_publisher(topic)
    subscriber = connection.open_subscriber(feeds[0])
    attributes = {"content-type": "application/cloudevents+json"}
    batches = [
        [Outbound(BODY, attributes, f"key-{n % 500}" if ordered else None, f"{at}-{n}") for n in range(batch)]
        for at in range(events // batch)
    ]
    started = time.perf_counter()
    for each in batches:
        publisher.send(each, timeout=1.0)
    sent = time.perf_counter()
    done = 0
    while done < events:
        messages = subscriber.receive(batch, 0.0).messages
        done += len(subscriber.settle("ack", messages, timeout=1.0))
    received = time.perf_counter()
    connection.close()
    return events / (sent - started), events / (received - sent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--batch", type=int, default=1_000)
    options = parser.parse_args()
    print(f"{options.events:,} events of {len(BODY)} bytes in batches of {options.batch:,}")
    for ordered, subscriptions in ((False, 1), (True, 1), (False, 10)):
        sends, receives = run(options.events, options.batch, ordered=ordered, subscriptions=subscriptions)
        kind = f"{'ordered' if ordered else 'unordered'}, {subscriptions} subscription(s)"
        print(f"{kind:28} {sends:12,.0f} sends/s {receives:12,.0f} receives and acks/s")


if __name__ == "__main__":
    main()
