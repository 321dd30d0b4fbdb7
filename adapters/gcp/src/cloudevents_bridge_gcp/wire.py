"""Messages on their way out and in: the limits of Pub/Sub, and what the library itself keeps beside an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cloudevents_bridge.driver import DEAD_LETTER, Outbound
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge_gcp import pb

MAX_ATTRIBUTES = 100
MAX_NAME = 256
MAX_VALUE = 1024
MAX_KEY = 1024
RESERVED = "goog"
"""Attributes with this beginning are the service's own: it refuses them, and adds some to what it delivers."""
_COUNT = "CloudPubSubDeadLetterSourceDeliveryCount"
"""Where Pub/Sub itself says, on a message that it moved to the dead letters, how often it was delivered."""


def encode(message: Outbound, key: str | None, *, letter: bool) -> Any:
    """The native message.

    Args:
        key: its ordering key.
        letter: it is on its way to a dead-letter place, without what the service had added.

    Raises:
        InvalidArgumentError: if an attribute or the key is over a limit; it names it.
    """
    attributes = message.attributes
    if letter:
        attributes = {name: value for name, value in attributes.items() if not name.startswith(RESERVED)}
    if DEAD_LETTER in attributes:
        attributes = _split(attributes)
    check(attributes, key)
    return pb.PubsubMessage(data=message.body, attributes=attributes, ordering_key=key or "")


def check(attributes: Mapping[str, str], key: str | None) -> None:
    """Raises:
    InvalidArgumentError: if Pub/Sub would refuse an attribute or the ordering key; it names it.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidArgumentError(
            f"it has {len(attributes)} attributes, {list(attributes)[-1]!r} among them, and Pub/Sub takes "
            f"{MAX_ATTRIBUTES}: use fewer extensions, or mode=structured, which needs one attribute"
        )
    for name, value in attributes.items():
        if len(value) * 4 > MAX_VALUE and (size := len(value.encode())) > MAX_VALUE:
            raise InvalidArgumentError(
                f"attribute {name!r} has {size} bytes and Pub/Sub takes {MAX_VALUE}: shorten it, put it into the "
                "data, or use mode=structured"
            )
        if not name or (len(name) * 4 > MAX_NAME and len(name.encode()) > MAX_NAME):
            raise InvalidArgumentError(f"the name of attribute {name!r} must have 1 to {MAX_NAME} bytes on Pub/Sub")
        if name.startswith(RESERVED):
            raise InvalidArgumentError(f"attribute {name!r} begins with {RESERVED!r}, which Pub/Sub keeps for itself")
    if key is not None and not 0 < len(key.encode()) <= MAX_KEY:
        raise InvalidArgumentError(
            f"attribute 'partitionkey' has {len(key.encode())} bytes, and an ordering key of Pub/Sub 1 to {MAX_KEY}"
        )


def decode(message: Any, *, letter: bool) -> dict[str, str]:
    """The attributes of a native message.

    Args:
        letter: it comes from a dead-letter place.
    """
    attributes: dict[str, str] = dict(message.attributes)
    if f"{DEAD_LETTER}-2" in attributes:
        _join(attributes)
    if letter and DEAD_LETTER not in attributes and _COUNT in attributes:
        count = attributes[_COUNT]
        said = {"reason": f"Pub/Sub gave it up after {count} deliveries", "attempts": int(count)}
        attributes[DEAD_LETTER] = msgspec.json.encode(said).decode()
    return attributes


def reason_fits(message: Outbound) -> bool:
    """Whether the reason of a letter finds room among its attributes."""
    reason = message.attributes.get(DEAD_LETTER)
    return reason is None or len(message.attributes) - 1 + len(_chunks(reason)) <= MAX_ATTRIBUTES


def entry_size(message: Any) -> int:
    """Bytes of a native message in a publish request: itself, its length and its tag."""
    size: int = message.ByteSize()
    return size + 1 + (size.bit_length() + 6) // 7 if size else 2


def _split(attributes: Mapping[str, str]) -> dict[str, str]:
    """The reason of a dead letter, over as many attributes as it needs: `ceb-dead-letter`, `ceb-dead-letter-2`, …"""
    made = dict(attributes)
    for number, chunk in enumerate(_chunks(made.pop(DEAD_LETTER)), 1):
        made[DEAD_LETTER if number == 1 else f"{DEAD_LETTER}-{number}"] = chunk
    return made


def _join(attributes: dict[str, str]) -> None:
    number = 2
    while (chunk := attributes.pop(f"{DEAD_LETTER}-{number}", None)) is not None:
        attributes[DEAD_LETTER] += chunk
        number += 1


def _chunks(text: str) -> list[str]:
    raw = text.encode()
    if len(raw) <= MAX_VALUE:
        return [text]
    chunks: list[str] = []
    start = 0
    while start < len(raw):
        end = min(start + MAX_VALUE, len(raw))
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        chunks.append(raw[start:end].decode())
        start = end
    return chunks
