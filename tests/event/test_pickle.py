from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from cloudevents_bridge import CloudEvent

KINDS: dict[str, dict[str, Any]] = {
    "absent": {},
    "null": {"data": None},
    "object": {"data": {"id": 7}},
    "json text": {"data": "words"},
    "text": {"data": "words", "datacontenttype": "text/plain"},
    "bytes": {"data": bytes(range(256))},
    "empty bytes": {"data": b""},
    "extensions": {
        "data": 1,
        "partitionkey": "k",
        "extensions": {"number": 7, "raw": b"\0", "traceparent": "00-a-b-01"},
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_a_copy_is_the_same_event(kind: str, again: Any) -> None:
    event = CloudEvent(type="com.example.order.created", source="/shop", **KINDS[kind])
    copied = again(event)
    assert copied == event
    assert copied.data == event.data
    assert copied.data_bytes == event.data_bytes
    assert copied.to_json() == event.to_json()
    assert copied.extensions == event.extensions
