"""The sections of an encoded AMQP message, cut without decoding them: what is carried stays byte for byte as it was."""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER, DELIVERY, ANNOTATIONS, PROPERTIES, APPLICATION, DATA, FOOTER = 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x78
_FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_SMALL, _LARGE = (0xA, 0xC, 0xE), (0xB, 0xD, 0xF)


def sections(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Descriptor code and bytes of each section, in order.

    Raises:
        ValueError: if it is no AMQP message.
    """
    at = 0
    while at < len(message):
        if message[at] != 0:
            raise ValueError(f"no section of an AMQP message at byte {at}")
        end = _end(message, at)
        if end > len(message):
            raise ValueError("the message ends within a section")
        yield _descriptor(message, at), message[at:end]
        at = end


def batched(message: bytes) -> list[bytes] | None:
    """The messages of a batch: a message each of whose data sections is a message. None: it is a single one.

    The batch's own message-format is not to be had from Proton, so the sections must say it.
    """
    data = [payload(section) for code, section in sections(message) if code == DATA]
    if data and all(_looks_encoded(each) for each in data):
        return data
    return None


def payload(section: bytes) -> bytes:
    """The bytes within a data section."""
    start = _end(section, 1)
    return section[start + 2 :] if section[start] == 0xA0 else section[start + 5 :]


def header(*, durable: bool, ttl: int | None, failures: int) -> bytes:
    """A header section. `ttl`: milliseconds; `failures`: deliveries before this one, written also when none."""
    fields = (b"\x41" if durable else b"\x42") + b"\x50\x04"
    fields += b"\x40" if ttl is None else b"\x70" + struct.pack(">I", min(ttl, 0xFFFFFFFF))
    fields += b"\x42\x70" + struct.pack(">I", failures)
    return b"\x00\x53\x70\xc0" + bytes([len(fields) + 1, 5]) + fields


def _looks_encoded(data: bytes) -> bool:
    if len(data) < 3 or data[0] != 0 or data[1] not in (0x53, 0x80):
        return False
    try:
        return all(HEADER <= code <= FOOTER for code, _ in sections(data))
    except (ValueError, IndexError, struct.error):
        return False


def _descriptor(message: bytes, at: int) -> int:
    kind = message[at + 1]
    if kind == 0x53:
        return message[at + 2]
    if kind == 0x80:
        return int.from_bytes(message[at + 2 : at + 10], "big")
    raise ValueError(f"a section with a descriptor of type {kind:#x}")


def _end(data: bytes, at: int) -> int:
    """Where the value that begins at `at` ends."""
    constructor = data[at]
    if constructor == 0:
        return _end(data, _end(data, at + 1))
    width = constructor >> 4
    if width in _FIXED:
        return at + 1 + _FIXED[width]
    if width in _SMALL:
        return at + 2 + data[at + 1]
    if width in _LARGE:
        return at + 5 + int(struct.unpack_from(">I", data, at + 1)[0])
    raise ValueError(f"no AMQP type {constructor:#x}")
