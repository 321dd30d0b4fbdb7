"""One process of the demo: `python -m cloudevents_bridge.demo publish URL FILE | consume URL SUBSCRIPTION`.

What it counted goes to stdout as one JSON object. A consumer reads on stdin how many orders there are, and ends when
it has seen them all, or when stdin ends: then nobody waits for it any more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from cloudevents_bridge import BridgeError
from cloudevents_bridge.demo.orders import Order, read_orders
from cloudevents_bridge.demo.report import Consumed, Published
from cloudevents_bridge.demo.shop import HANDLERS, ORDERS, PaymentError, open_broker, publish


def run_publisher(url: str, file: Path) -> Published:
    """Publish the orders of a file."""
    with open_broker(url) as broker:
        accepted, refused = publish(broker, read_orders(file))
    return Published(accepted, refused)


class Outstanding:
    """Which orders are settled for good, and whether any is left. `ended` is called once, from either thread."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._settled: set[str] = set()
        self._expected: int | None = None
        self._ended = ended

    def listen(self, told: IO[str]) -> None:
        line = told.readline()
        with self._lock:
            self._expected = int(line) if line else 0
        self._check()

    def settle(self, order: str) -> None:
        with self._lock:
            self._settled.add(order)
        self._check()

    def _check(self) -> None:
        with self._lock:
            over = self._expected is not None and len(self._settled) >= self._expected
        if over:
            self._ended()


def run_consumer(url: str, name: str, told: IO[str]) -> Consumed:
    """Consume the orders of one subscription until all are settled."""
    subscription = next(each for each in ORDERS.subscriptions if each.name == name)
    handler = HANDLERS[name]()
    consumed: set[str] = set()
    failed = 0
    with open_broker(url) as broker, broker.subscriber(ORDERS.name, name) as subscriber:
        outstanding = Outstanding(subscriber.close)
        threading.Thread(target=outstanding.listen, args=[told], daemon=True).start()
        for delivery in subscriber:
            try:
                with delivery as event:
                    handler(event.data_as(Order), delivery.attempt)
            except PaymentError:  # given back, or a dead letter now: the library has settled it
                failed += 1
                if delivery.attempt < subscription.max_attempts:
                    continue
            else:
                consumed.add(delivery.event.id)
            outstanding.settle(delivery.event.id)
    return Consumed(len(consumed), failed, handler.done())


def main(role: str, url: str, what: str) -> int:
    """Play one role and say what was counted."""
    try:
        counted = run_publisher(url, Path(what)) if role == "publish" else run_consumer(url, what, sys.stdin)
    except (BridgeError, OSError) as error:
        sys.stderr.write(f"{role} {what}: {error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(counted).decode() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
