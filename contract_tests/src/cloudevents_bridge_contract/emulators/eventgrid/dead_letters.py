"""The folder that stands for the blob containers, and the dead letters in it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from cloudevents_bridge_contract.emulators.eventgrid.pull import DeadLetter


class DeadLetters:
    """The dead letters of one subscription, a blob for each.

    Args:
        place: the folder of the subscription: CONTAINER/NAMESPACE/TOPIC/SUBSCRIPTION, or CONTAINER/TOPIC/SUBSCRIPTION.
    """

    def __init__(self, place: Path) -> None:
        self._place = place

    def write(self, blob: bytes) -> None:
        now = datetime.now(UTC)
        folder = self._place / str(now.year) / str(now.month) / str(now.day) / str(now.hour)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{uuid.uuid4()}.json"
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(blob)
        unfinished.rename(path)

    def read(self) -> list[Any]:
        """What the blobs hold, the oldest first."""
        paths = sorted(self._place.rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_bytes()) for path in paths]


def pulled(letter: DeadLetter) -> bytes:
    """The blob of a namespace: the event, and beside it what became of it."""
    properties = {
        "deadletterreason": letter.reason,
        "deliveryattempts": letter.attempts,
        "deliveryresult": letter.result,
        "publishutc": stamp(letter.published),
        "deliveryattemptutc": stamp(letter.attempted) if letter.attempted else None,
    }
    return msgspec.json.encode({"event": letter.event.raw, "deadletterProperties": properties})


def pushed(
    fields: Mapping[str, Any], reason: str, attempts: int, outcome: str, published: datetime, attempted: datetime
) -> bytes:
    """The blob of a custom topic: an array of one event, which carries what became of it as attributes."""
    extra: dict[str, Any] = {
        "deadLetterReason": reason,
        "deliveryAttempts": attempts,
        "lastDeliveryOutcome": outcome,
        "publishTime": stamp(published),
        "lastDeliveryAttemptTime": stamp(attempted),
    }
    if "specversion" in fields:
        extra = {name.lower(): value for name, value in extra.items()}
    return msgspec.json.encode([{**fields, **extra}])


def stamp(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
