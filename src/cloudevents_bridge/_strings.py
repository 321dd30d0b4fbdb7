"""Attributes that are strings, and the error for one that breaks a rule."""

from __future__ import annotations

import re
from typing import NoReturn

from cloudevents_bridge.errors import InvalidArgumentError

_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


def refuse(name: str, value: object, rule: str) -> NoReturn:
    """Raise the error for an attribute; it names the attribute, the value (cut to 80 characters) and the rule."""
    raise InvalidArgumentError(f"attribute {name} is {short(value)}: it must {rule}")


def short(value: object) -> str:
    """A value as an error shows it, in 80 characters at most."""
    try:
        shown = repr(value[:100] if isinstance(value, str) else value)
    except Exception:  # noqa: BLE001  an integer of 5,000 digits, for one, has no repr
        shown = f"a {type(value).__qualname__} that cannot be shown"
    return shown if len(shown) <= 80 else shown[:79] + "…"


def check_string(name: str, value: object) -> str:
    """Return a String: no control character, no lone surrogate, no noncharacter."""
    if not isinstance(value, str):
        refuse(name, value, "be a string")
    # printable is the quick answer: none of the forbidden characters is
    if not value.isprintable() and (found := _FORBIDDEN.search(value)):
        refuse(
            name, value, f"not hold U+{ord(found[0]):04X} (control characters, surrogates and noncharacters are out)"
        )
    return str.__str__(value)  # an enum's member becomes its plain value


def check_filled(name: str, value: object) -> str:
    """Return a String that is not empty."""
    text = check_string(name, value)
    if not text:
        refuse(name, text, "not be empty")
    return text
