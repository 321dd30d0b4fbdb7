"""Give every decoder a million broken inputs: each must end as an event or as `DecodeError`, and as nothing else.

    python bench/fuzz_decode.py                            # a million, about two minutes
    python bench/fuzz_decode.py --inputs 5000 --seed 7     # fewer, and other ones
    python bench/fuzz_decode.py --only 123456              # that input alone, to look at a failure

Each input starts as a valid encoding and is then cut, doubled, spliced with another, or has bytes or tokens put in; the
attributes of messages get odd names and values too. An event that is accepted is used as a consumer would: its data is
decoded, it is shown, and it must come back equal from the JSON format, in binary mode and as a pickle.

An input is made from the seed and its number alone, so every run with the same seed tries the same ones. What comes out
is a table of counts; what was neither an event nor `DecodeError` is printed with the number of its input (the first
ten), and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from common import table

from cloudevents_bridge import CloudEvent, DecodeError
from cloudevents_bridge.bindings import AMQP, HTTP, KAFKA, PUBSUB, SQS, STRUCTURED, Mapped
from cloudevents_bridge.formats import json

Decoded: TypeAlias = CloudEvent | list[CloudEvent]

BINDINGS: dict[str, Mapped] = {
    "HTTP": HTTP,
    "AMQP": AMQP,
    "Pub/Sub": PUBSUB,
    "Kafka": KAFKA,
    "SQS": SQS,
    "structured": STRUCTURED,
}
TYPES = {"flag": bool, "count": int, "raw": bytes, "when": datetime, "name": str}

TIME = datetime(2025, 10, 3, 9, 4, 27, 123456, tzinfo=UTC)
COMMON: dict[str, Any] = {"type": "com.example.order.created", "source": "/shop?a=%20#x", "id": "1", "time": TIME}
EVENTS = [
    CloudEvent(type="t", source="s", id="1", time=None),
    CloudEvent(**COMMON, data={"id": 7, "list": [1.5, None, True, "é😀\u2028"], "big": 2**70}, subject='sübject % "'),
    CloudEvent(**COMMON, data="words", partitionkey="k", extensions={"traceparent": "00-a-b-01", "tracestate": "x=1"}),
    CloudEvent(**COMMON, data=None, dataschema="https://example.com/schema#v1"),
    CloudEvent(**COMMON, data="naïve", datacontenttype='text/plain; charset="Latin-1"'),
    CloudEvent(**COMMON, data="日本", datacontenttype="text/plain; charset=iso-2022-jp"),
    CloudEvent(**COMMON, data="x" * 40, datacontenttype="text/xml; charset=utf-16"),
    CloudEvent(**COMMON, data=bytes(range(256))),
    CloudEvent(**COMMON, data=b' {"a": 1, "a" :2}\n', datacontenttype="Application/Vnd.X+JSON"),
    CloudEvent(**COMMON, data=b"{}", datacontenttype="application/cloudevents+json"),
    CloudEvent(
        **COMMON,
        extensions={
            "expirytime": TIME,
            "sampledrate": 3,
            "flag": True,
            "count": -1,
            "raw": b"\0",
            "when": TIME,
            "name": ' \\"%',
        },
    ),
]
ENCODED = [event.to_json() for event in EVENTS]
BATCHES = [json.encode_batch(EVENTS[start : start + 3]) for start in range(0, len(EVENTS), 3)]
TOKENS = [
    *rb'null true false 0 -0 -1 1.5 1e5 1e999 {} [] "" " \ , : { } [ ]'.split(),
    *rb"\ud800 \udc00 \ud83d\ude00 \u0000 \u007f \ufdd0 \uffff".split(),
    *b"\xff \xc0\x80 \xed\xa0\x80 \xef\xbb\xbf \xef\xbf\xbf \xf4\x90\x80\x80 \x00 \x7f \xc2\x85".split(b" "),
    *b'"data":1, "data":null, "data":"x", "data_base64":"TQ==", "data_base64":"TQ", "data_base64":null,'.split(),
    *b'"time":"9999-12-31T23:59:60.9Z", "time":"0001-01-01t00:00:00+23:59", "time":"2025-02-30T00:00:00Z",'.split(),
    *b'"flag":"maybe", "count":"07", "raw":"*", "when":"now", "name":1, "sampledrate":"x", "time":1,'.split(),
    *b'"specversion":"0.3", "specversion":1.0, "id":"", "id":1, "partitionkey":"", "Upper":1,'.split(),
    *b'"datacontenttype":"text/plain;charset=utf-32", "datacontenttype":"text/plain;charset=cp12345",'.split(),
    *b'"datacontenttype":"text/plain;charset=iso-2022-jp", "datacontenttype":"application/json",'.split(),
    b"1" * 5000,
    b"[" * 3000,
    b'{"a":' * 300,
]
MEMBERS = [token for token in TOKENS if token.endswith(b",") and len(token) > 1]
HUGE = 10**5000
VALUES: list[Any] = [
    *["", " ", '"', '"a\\"b"', "%", "%zz", "%00", "%ED%A0%80", "%F0%9F%98%80", "%ff", "\ud800", "\x7f", "é"],
    *["text/plain; charset=utf-16", "application/json", "application/cloudevents+json; charset=x", "nothing"],
    *["application/cloudevents-batch+json", "application/cloudevents+avro", "2025-10-03T09:04:27Z", "true", "07"],
    *["1.0", "0.3", None, True, 0, -1, 2**31, HUGE, 1.5, float("nan"), b"", b"\xff", [], {}, (1,)],
    *[TIME, TIME.replace(tzinfo=None)],
]
NAMES: list[Any] = [
    *["", "Content-Type", "content-type", "ce-", "CE-ID", "cE-Id", "ce-data", "ce-data_base64", "ce-datacontenttype"],
    *["ce_time", "ce_x", "cloudEvents:id", "cloudEvents_id", "ce-é", "ce-sampledrate", "ce-count", "ce-specversion"],
    *["specversion", "id", "time", "data", "data_base64", "flag", "count", "partitionkey"],
    *["\ud800", None, 1, b"id", (1,)],
]


def mutate(chance: random.Random, raw: bytes, others: list[bytes]) -> bytes:
    """The bytes with a few changes."""
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        start = chance.randrange(len(changed) + 1)
        stop = min(len(changed), start + chance.choice((0, 0, 1, 1, 2, 4, 16)))
        match chance.randrange(8):
            case 0:
                changed[start:stop] = chance.randbytes(chance.randint(1, 4))
            case 1 | 2:
                changed[start:stop] = chance.choice(TOKENS)
            case 3:
                changed[start:stop] = bytes(changed[start:stop]) * 2
            case 4:
                del changed[start:stop]
            case 5 | 6:
                place = changed.find(b"{") + 1  # one more member, which often leaves an event
                changed[place:place] = chance.choice(MEMBERS)
            case _:
                other = chance.choice(others)
                changed[start:] = other[chance.randrange(len(other)) :]
    return bytes(changed)


def mutate_attributes(chance: random.Random, attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """The attributes with up to three of them changed, added, renamed or left out."""
    changed = dict(attributes)
    for _ in range(chance.randint(0, 3)):
        name = chance.choice((*changed, *NAMES)) if chance.random() < 0.5 else chance.choice(NAMES)
        match chance.randrange(3):
            case 0:
                changed[name] = chance.choice(VALUES)
            case 1:
                changed.pop(name, None)
            case _:
                value = changed.get(name, "x")
                text = value.encode("utf-8", "replace") if isinstance(value, str) else b"x"
                changed[name] = mutate(chance, text, ENCODED).decode("utf-8", "surrogateescape")
    return changed


def from_json(chance: random.Random) -> Decoded:
    """One event as JSON, mostly bytes, now and then a str or a bytearray."""
    raw = mutate(chance, chance.choice(ENCODED), ENCODED)
    match chance.randrange(6):
        case 0:
            return CloudEvent.from_json(raw.decode("utf-8", "surrogateescape"))
        case 1:
            return CloudEvent.from_json(bytearray(raw))  # type: ignore[arg-type]
        case 2:
            return json.decode(raw, types=TYPES)
        case _:
            return CloudEvent.from_json(raw)


def from_batch(chance: random.Random) -> Decoded:
    """A batch."""
    return json.decode_batch(mutate(chance, chance.choice(BATCHES), BATCHES), types=chance.choice((None, TYPES)))


def from_dict(chance: random.Random) -> Decoded:
    """A dictionary of the members."""
    return CloudEvent.from_dict(mutate_attributes(chance, chance.choice(EVENTS).to_dict()))


def from_message(binding: Mapped) -> Callable[[random.Random], Decoded]:
    """A message of a binding in either mode: its attributes, its body, or both changed."""

    def decode(chance: random.Random) -> Decoded:
        written = binding if chance.random() < 0.8 else STRUCTURED
        attributes, body = written.encode(chance.choice(EVENTS))
        if chance.random() < 0.5:
            body = mutate(chance, body, ENCODED)
        return binding.decode(mutate_attributes(chance, attributes), body)

    return decode


DECODERS: dict[str, Callable[[random.Random], Decoded]] = {
    "JSON": from_json,
    "batch": from_batch,
    "dict": from_dict,
    **{name: from_message(binding) for name, binding in BINDINGS.items()},
}
_NAMES = ("JSON", "JSON", "JSON", "batch", "dict", *BINDINGS)


def use(event: CloudEvent) -> None:
    """What a consumer does with an event, and what a publisher of it does."""
    assert repr(event)
    assert event.extensions is not None
    assert event.time is None or event.time.tzinfo is not None
    for decode in (lambda: event.data, lambda: event.data_as(dict), event.to_dict):
        with contextlib.suppress(DecodeError):
            decode()
    assert CloudEvent.from_json(event.to_json()) == event, "not the same event through JSON"
    assert CloudEvent.from_http(*event.to_http()) == event, "not the same event through HTTP"
    assert KAFKA.decode(*KAFKA.encode(event)) == event, "not the same event through Kafka"
    assert pickle.loads(pickle.dumps(event)) == event, "not the same event through pickle"


def attempt(seed: int, number: int) -> tuple[str, str]:
    """Make and decode one input. Returns the decoder and the outcome: event, refused, or the traceback of the rest."""
    chance = random.Random(f"{seed} {number}")  # a str: tuples are no seeds
    name = chance.choice(_NAMES)
    try:
        try:
            decoded = DECODERS[name](chance)
        except DecodeError:
            return name, "refused"
        for event in [decoded] if isinstance(decoded, CloudEvent) else decoded:
            use(event)  # an event that was accepted has no right to a DecodeError on its way
    except Exception:  # noqa: BLE001  which one it is, is what this looks for
        return name, traceback.format_exc()
    return name, "event"


def main() -> int:
    """Print the counts; 1 if there was anything but events and `DecodeError`."""
    parser = argparse.ArgumentParser(description="Give every decoder broken inputs.")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="try this one input")
    arguments = parser.parse_args()
    numbers = range(arguments.inputs) if arguments.only is None else [arguments.only]
    counts: Counter[tuple[str, str]] = Counter()
    shown = 0
    began = time.monotonic()
    for number in numbers:
        name, outcome = attempt(arguments.seed, number)
        if outcome not in ("event", "refused"):
            if shown < 10:
                print(f"input {number} of seed {arguments.seed}, {name}:\n{outcome}", file=sys.stderr)
            shown += 1
            outcome = "neither"
        counts[name, outcome] += 1
    outcomes = ("event", "refused", "neither")
    rows = [[name, *(f"{counts[name, outcome]:,}" for outcome in outcomes)] for name in DECODERS]
    rows.append(["all", *(f"{sum(counts[name, outcome] for name in DECODERS):,}" for outcome in outcomes)])
    print(f"seed {arguments.seed}, {len(numbers):,} inputs, {time.monotonic() - began:.0f} s\n")
    print(table(["decoder", "events", "DecodeError", "neither"], rows))
    return 1 if shown else 0


if __name__ == "__main__":
    sys.exit(main())
