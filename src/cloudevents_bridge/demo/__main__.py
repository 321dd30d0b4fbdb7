"""One process of the demo: `python -m cloudevents_bridge.demo publish URL FILE | consume URL SUBSCRIPTION`.

What it counted goes to stdout as one JSON object. A consumer reads on stdin how many orders there are, and ends when
it has seen them all, or when stdin ends: then nobody waits for it any more.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from cloudevents_bridge import BridgeError, Delivery, Router
from cloudevents_bridge.demo.orders import read_orders
from cloudevents_bridge.demo.report import Consumed, Published
from cloudevents_bridge.demo.shop import ORDERS, PROGRAMS, open_broker, publish


def run_publisher(url: str, file: Path) -> Published:
    """Publish the orders of a file."""
    with open_broker(url) as broker:
        accepted, refused = publish(broker, read_orders(file))
    return Published(accepted, refused)


def run_consumer(url: str, name: str, told: IO[str]) -> Consumed:
    """Consume the orders of one subscription until all are settled."""
    program = PROGRAMS[name]()
    consumed: set[str] = set()  # an order may be delivered twice

    def note(delivery: Delivery, call_next: Callable[[Delivery], None]) -> None:
        call_next(delivery)
        consumed.add(delivery.event.id)

    router = Router(middleware=[note])
    router.include(program.router)
    with open_broker(url) as broker:
        worker = broker.worker().add(ORDERS.name, name, router)

        def stop_in_the_end() -> None:
            expected = int(told.readline() or 0)
            while len(consumed) + worker.stats.dead_lettered < expected:
                time.sleep(0.02)
            worker.stop()

        threading.Thread(target=stop_in_the_end, daemon=True).start()
        stats = worker.run()
    return Consumed(len(consumed), stats.failed, program.done())


def main(role: str, url: str, what: str) -> int:
    """Play one role and say what was counted."""
    logging.getLogger("cloudevents_bridge").setLevel(logging.ERROR)  # handlers fail on purpose here: no news
    try:
        counted = run_publisher(url, Path(what)) if role == "publish" else run_consumer(url, what, sys.stdin)
    except (BridgeError, OSError) as error:
        sys.stderr.write(f"{role} {what}: {error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(counted).decode() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
