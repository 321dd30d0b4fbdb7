"""The body of a request to SNS, which is a form: boto3 quotes it byte by byte in Python, twice, and that would be most
of what an event costs. Here it is quoted once, a kind of byte at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"
_BYTES = [bytes([byte]) for byte in range(256)]
_QUOTED = [quote_plus(each).encode() for each in _BYTES]
_MANY = 40
"""Kinds of bytes to quote from which quoting byte by byte is as quick, about: texts in many scripts at once."""


def install(client: Any) -> None:
    """Have a client of boto3 write the form this way. Harmless when done again, and for what is no client of boto3."""
    meta = getattr(client, "meta", None)
    if meta is not None:  # last of all: whatever others registered sees the fields
        meta.events.register_last("before-call", _write, unique_id="cloudevents-bridge-form")


def encoded(fields: Mapping[str, Any]) -> bytes:
    """What `urllib.parse.urlencode` makes of fields with one value each, as bytes. Names need no quoting."""
    return b"&".join([b"%b=%b" % (name.encode(), _quoted(str(value).encode())) for name, value in fields.items()])


def _write(params: dict[str, Any], **_: Any) -> None:
    if isinstance(params["body"], dict):  # else boto3 speaks to SNS in another protocol by now
        params["body"] = encoded(params["body"])


def _quoted(raw: bytes) -> bytes:
    unsafe = raw.translate(None, _SAFE)
    if not unsafe:
        return raw
    kinds = set(unsafe)
    if len(kinds) > _MANY:
        return quote_plus(raw).encode()
    for byte in sorted(kinds, key=b"+%".find, reverse=True):  # % and + first: the others bring more of them
        raw = raw.replace(_BYTES[byte], _QUOTED[byte])
    return raw
