"""How an event is laid out in attributes and a body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cloudevents_bridge.bindings._mapped import Mapped
from cloudevents_bridge.event import CloudEvent

__all__ = ["AMQP", "HTTP", "KAFKA", "PUBSUB", "SQS", "STRUCTURED", "Mapped", "Wire"]


class Wire(Protocol):
    """One layout. Encoding and decoding are pure."""

    def encode(self, event: CloudEvent) -> tuple[Mapping[str, str], bytes]:
        """The attributes and the body of the native message."""

    def decode(self, attributes: Mapping[str, str], body: bytes) -> CloudEvent:
        """The event in a native message, in any mode the layout knows. Raises `DecodeError` and nothing else."""


STRUCTURED = Mapped(prefix="ce-", mode="structured", other_content_types=("Content-Type",))
HTTP = Mapped(prefix="ce-", fold_case=True, percent=True)
AMQP = Mapped(prefix="cloudEvents_", other_prefixes=("cloudEvents:",))
PUBSUB = Mapped(prefix="ce-", other_content_types=("Content-Type",))
KAFKA = Mapped(prefix="ce_")
SQS = Mapped(prefix="ce-", other_content_types=("Content-Type",))
