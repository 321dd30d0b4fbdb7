"""Create, encode and decode one event of about 300 bytes: this library, the CNCF SDK, and the JSON library alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from common import machine, median, rate, table

from cloudevents_bridge import CloudEvent

ATTRIBUTES: dict[str, Any] = {
    "id": "ord-48213",
    "type": "com.example.order.created",
    "source": "/shop",
    "time": datetime(2025, 10, 3, 9, 4, 27, tzinfo=UTC),
    "subject": "ord-48213",
}
DATA = {"note": "x" * 90, "quantity": 2}
FORMAT = JSONFormat()


def ours() -> object:
    """The data stays encoded, as for an event that is passed on."""
    return CloudEvent.from_json(CloudEvent(**ATTRIBUTES, data=DATA).to_json())


def ours_with_data() -> object:
    """The data is decoded too, as for an event that is handled."""
    return CloudEvent.from_json(CloudEvent(**ATTRIBUTES, data=DATA).to_json()).data


def sdk() -> object:
    """The CNCF SDK, version 2."""
    event = SdkEvent(ATTRIBUTES | {"specversion": "1.0", "datacontenttype": "application/json"}, DATA)
    return FORMAT.read(SdkEvent, FORMAT.write(event)).get_data()


def raw() -> object:
    """A dictionary of the same content through msgspec: no event, nothing checked."""
    fields = ATTRIBUTES | {"specversion": "1.0", "datacontenttype": "application/json", "data": DATA}
    return msgspec.json.decode(msgspec.json.encode(fields))


def measure(function: Callable[[], object], seconds: float) -> float:
    """Calls per second."""
    count = 0
    began = time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        for _ in range(200):
            function()
        count += 200
    return count / taken


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="for one measurement")
    arguments = parser.parse_args()
    named = {
        "CloudEvent, data not touched": ours,
        "CloudEvent, data decoded": ours_with_data,
        "CNCF SDK 2": sdk,
        "msgspec, a dictionary": raw,
    }
    rates: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(arguments.rounds):
        for name, function in named.items():
            rates[name].append(measure(function, arguments.seconds))

    def ratio(name: str, to: str) -> str:
        return f"{median(a / b for a, b in zip(rates[name], rates[to], strict=True)):.2f}"

    size = len(CloudEvent(**ATTRIBUTES, data=DATA).to_json())
    print(f"{machine()}; {size} bytes, {arguments.rounds} rounds, medians\n")
    rows = [
        [name, rate(median(rates[name])), ratio(name, "CNCF SDK 2"), ratio(name, "msgspec, a dictionary")]
        for name in named
    ]
    print(table(["create + encode + decode", "events/s", "x SDK", "x msgspec"], rows))


if __name__ == "__main__":
    main()
