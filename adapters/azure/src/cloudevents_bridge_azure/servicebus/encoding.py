"""Messages in AMQP's own bytes (AMQP 1.0, parts 1.6 and 3.2), and how many bytes those are without making them.

The SDK encodes each message of a batch twice, to count it and to keep it, at several times the cost. Tests hold both of
these against the SDK, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

_DESCRIPTOR = 3
"""Bytes before each section: that it is described, and a small number that says which it is."""
_HEADER, _ANNOTATIONS, _PROPERTIES, _APPLICATION, _DATA = (
    b"\x00\x53" + bytes([code]) for code in b"\x70\x72\x73\x74\x75"
)
_LIST, _MAP = (b"\xc0", b"\xd0"), (b"\xc1", b"\xd1")  # short, long
_BINARY, _STRING, _SYMBOL = (b"\xa0", b"\xb0"), (b"\xa1", b"\xb1"), (b"\xa3", b"\xb3")
_NULL = b"\x40"
_TIMESTAMP = 9
_HEADER_FIELDS, _PROPERTY_FIELDS = 5, 13
_SCHEDULED = b"\xa3\x1cx-opt-scheduled-enqueue-time"
_SMALL, _SMALL_ENTRY, _ENTRY = 256, 5, 8  # bytes of a message, and of what AMQP puts before it in a batch


class Fields(Struct, gc=False):
    """What a message says beside its body and its application properties. Times are milliseconds.

    Attributes:
        lives: for how long.
        due: since 1970, before which it is not delivered.
    """

    id: str
    content_type: str | None = None
    session: str | None = None
    lives: int | None = None
    due: int | None = None


def message(body: bytes, properties: Mapping[str, str], fields: Fields, *, now: int) -> bytes:
    """One message.

    Args:
        properties: the application properties.
        now: milliseconds since 1970.
    """
    sections: list[bytes] = []
    expires = created = _NULL
    if fields.lives is not None:  # the SDK says when it was made and when it expires, too
        sections += _HEADER, _compound(_LIST, _HEADER_FIELDS, _NULL * 2 + _uint(fields.lives) + _NULL * 2)
        expires, created = _timestamp(now + fields.lives), _timestamp(now)
    if fields.due is not None:
        sections += _ANNOTATIONS, _compound(_MAP, 2, _SCHEDULED + _timestamp(fields.due))
    said = (
        _text(fields.id)
        + _NULL * 5
        + (_NULL if fields.content_type is None else _text(fields.content_type, _SYMBOL))
        + _NULL
        + expires
        + created
        + (_NULL if fields.session is None else _text(fields.session))
        + _NULL * 2
    )
    sections += _PROPERTIES, _compound(_LIST, _PROPERTY_FIELDS, said)
    if properties:
        pairs = b"".join([_name(name) + _text(value) for name, value in properties.items()])
        sections += _APPLICATION, _compound(_MAP, 2 * len(properties), pairs)
    sections += _DATA, _variable(_BINARY, len(body)), body
    return b"".join(sections)


def size(length: int, properties: int, fields: Fields) -> int:
    """Bytes of a message in a batch.

    Args:
        length: of its body.
        properties: bytes of the texts of its application properties, as `texts` counts them.
    """
    total = _DESCRIPTOR + _size(length)
    present = texts([each for each in (fields.id, fields.content_type, fields.session) if each is not None])
    nulls = _PROPERTY_FIELDS - 1 - (fields.content_type is not None) - (fields.session is not None)
    if fields.lives is not None:
        total += _DESCRIPTOR + _compound_size(_HEADER_FIELDS - 1 + len(_uint(fields.lives)))
        present += 2 * _TIMESTAMP
        nulls -= 2
    total += _DESCRIPTOR + _compound_size(present + nulls)
    if properties:
        total += _DESCRIPTOR + _compound_size(properties)
    if fields.due is not None:
        total += _DESCRIPTOR + _compound_size(len(_SCHEDULED) + _TIMESTAMP)
    return total + entry(total)


def entry(length: int) -> int:
    """Bytes that a message of that length takes in a batch beside itself."""
    return _SMALL_ENTRY if length < _SMALL else _ENTRY


def texts(some: Iterable[str]) -> int:
    """Bytes of texts, each with its type and length."""
    some = list(some)
    joined = "".join(some)
    if joined.isascii() and max(map(len, some), default=0) < _SMALL:  # nearly always
        return len(joined) + 2 * len(some)
    return sum(_size(len(each) if each.isascii() else len(each.encode())) for each in some)


def _text(text: str, kind: tuple[bytes, bytes] = _STRING) -> bytes:
    raw = text.encode()
    return _variable(kind, len(raw)) + raw


_name = lru_cache(maxsize=256)(_text)


def _variable(kind: tuple[bytes, bytes], length: int) -> bytes:
    """What stands before so many bytes."""
    return kind[0] + length.to_bytes(1, "big") if length < 256 else kind[1] + length.to_bytes(4, "big")


def _size(length: int) -> int:
    return length + (2 if length < 256 else 5)


def _compound(kind: tuple[bytes, bytes], count: int, content: bytes) -> bytes:
    """A list or a map: its type, its size, its count, and what is in it."""
    length = len(content)
    if length < 255 and count < 256:
        return kind[0] + bytes((length + 1, count)) + content
    return kind[1] + (length + 4).to_bytes(4, "big") + count.to_bytes(4, "big") + content


def _compound_size(length: int) -> int:
    return length + (3 if length < 255 else 9)


def _uint(value: int) -> bytes:
    return b"\x52" + value.to_bytes(1, "big") if value < 256 else b"\x70" + value.to_bytes(4, "big")


def _timestamp(milliseconds: int) -> bytes:
    return b"\x83" + milliseconds.to_bytes(8, "big", signed=True)
