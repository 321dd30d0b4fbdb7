"""The JSON event format: one event, and batches. Source: CloudEvents 1.0.2 JSON format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Raw

from cloudevents_bridge._json import read, text_of, why
from cloudevents_bridge.errors import DecodeError
from cloudevents_bridge.event import CloudEvent, make_event

CONTENT_TYPE = "application/cloudevents+json"
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"

_decode_batch = msgspec.json.Decoder(list[Raw]).decode


def encode(event: CloudEvent) -> bytes:
    """The event in JSON format. JSON data goes out as it came in, byte for byte."""
    return event.to_json()


def encode_batch(events: Iterable[CloudEvent]) -> bytes:
    """Events in the JSON batch format."""
    return b"[" + b",".join(map(encode, events)) + b"]"


def decode(raw: bytes | str, *, types: Mapping[str, type] | None = None) -> CloudEvent:
    """Read one event.

    Args:
        raw: the JSON text, in UTF-8 if bytes.
        types: the types of extensions of your own, `{"shippedat": datetime}`: bool, int, str, bytes or datetime.

    Raises:
        DecodeError: if it is no CloudEvent of specversion 1.0; nothing else.
    """
    return make_event(CloudEvent, read(raw, types)) if types else CloudEvent.from_json(raw)


def decode_batch(raw: bytes | str, *, types: Mapping[str, type] | None = None) -> list[CloudEvent]:
    """Read a batch. Raises `DecodeError` if it, or one of its events, is wrong; it says which."""
    try:
        items = _decode_batch(text_of(raw))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise DecodeError(f"not a batch of CloudEvents: {why(exc)}") from exc
    events = []
    for index, item in enumerate(items):
        try:
            # a copy, so that one event kept does not keep the whole batch
            events.append(decode(bytes(item), types=types))
        except DecodeError as exc:
            raise DecodeError(f"event {index} of the batch: {exc}") from exc
    return events
