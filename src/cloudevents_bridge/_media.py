"""Media types: which one says JSON, which one text, and in which charset."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

_WORD = r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+"
_PARAMETER = rf'({_WORD})=({_WORD}|"(?:[ !#-\[\]-~]|\\[ -~])*")'
_MEDIA_TYPE = re.compile(rf"({_WORD})/({_WORD})((?: *; *{_PARAMETER})*);?")
_PARAMETERS = re.compile(rf"; *{_PARAMETER}")
# Python's registry also holds codecs that are no charsets, and some that are slow on long input
_CHARSET = re.compile(
    r"(?:us[-_]?ascii|ascii|utf[-_]?(?:8|16|32)(?:[-_]?[lb]e)?|iso[-_]?(?:8859|2022)[-_a-z0-9]*|latin[-_]?\d+"
    r"|windows[-_]?\d+|cp\d+|koi8[-_][rtu]|gb(?:k|2312|18030)|big5[-_a-z]*|shift[-_]?jis[-_0-9a-z]*|euc[-_](?:jp|kr))"
)


class Media(NamedTuple):
    """What a media type says of the data. `charset` is lower-case; JSON is UTF-8 whatever it says (RFC 8259)."""

    kind: Literal["json", "text", "bytes"]
    charset: str = "utf-8"


def media_type(text: str) -> Media | None:
    """Read a media type with its parameters (RFC 2046); None if it is malformed. Names compare case-insensitively."""
    return _remembered(text) if len(text) <= 256 else _read(text)


def _read(text: str) -> Media | None:
    found = _MEDIA_TYPE.fullmatch(text)
    if found is None:
        return None
    main, sub = found[1].lower(), found[2].lower()
    if sub == "json" or sub.endswith("+json"):
        return Media("json")
    charset = "utf-8"
    for name, value in _PARAMETERS.findall(found[3]):
        if name.lower() == "charset":
            charset = value.strip('"').lower()
    return Media("text" if main == "text" or sub == "xml" or sub.endswith("+xml") else "bytes", charset)


_remembered = lru_cache(maxsize=1024)(_read)


def charset_known(charset: str) -> bool:
    """Whether text in this charset can be read and written here."""
    if not _CHARSET.fullmatch(charset):
        return False
    try:
        "".encode(charset)
    except LookupError:
        return False
    return True
