"""From a filter in CloudEvents SQL to Service Bus's own SQL, over the `cloudEvents_` properties of a message.

The two languages share `=`, `!=`, `<>`, `<`, `>`, `<=`, `>=`, `LIKE`, `IN (…)`, `EXISTS`, `AND`, `OR`, `NOT` and
parentheses. What else CloudEvents SQL has is refused here; what does not parse is refused by the service.
"""

from __future__ import annotations

import re
from typing import NoReturn

from cloudevents_bridge.driver import Subscription
from cloudevents_bridge.errors import UnsupportedError

MAX_CHARACTERS = 1024
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<number>-?\d+)|(?P<word>[A-Za-z][A-Za-z0-9_]*)"""
    r"""|(?P<sign><>|!=|<=|>=|=|<|>|\(|\)|,))"""
)
_KEYWORDS = frozenset({"AND", "OR", "NOT", "LIKE", "IN", "EXISTS", "TRUE", "FALSE"})


def translate(of: Subscription, mode: str) -> str | None:
    """The native filter; None: there is none.

    Raises:
        UnsupportedError: if Service Bus cannot filter like that, or has no properties to filter by.
    """
    if of.filter is None:
        return None
    if mode == "structured":
        _refuse(of, "with mode=structured the event is in the body; use mode=binary")
    made: list[str] = []
    text = of.filter.strip()
    pattern = exists = False
    while text:
        match = _TOKEN.match(text)
        if match is None:
            _refuse(of, f"{text[:20]!r} is not understood")
        kind = match.lastgroup or ""
        value = match[kind]
        word = value.upper()
        if kind == "text":
            made.append(_pattern(value) if pattern else _quoted(_unescaped(value[1:-1])))
        elif kind == "word" and word in _KEYWORDS:
            made.append(word)
        elif kind == "word":
            made.append(f"EXISTS({_property(of, value)})" if exists else _property(of, value))
        else:
            made.append("<>" if value == "!=" else value)
        pattern, exists = word == "LIKE", word == "EXISTS"
        if exists:
            made.pop()
        text = text[match.end() :].lstrip()
    whole = " ".join(made)
    if len(whole) > MAX_CHARACTERS:
        _refuse(of, f"it has {len(whole)} characters in Service Bus's own SQL, and {MAX_CHARACTERS} is the most")
    return whole


def _property(of: Subscription, name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+", name):
        _refuse(of, f"{name!r} is no attribute of an event")
    return "sys.ContentType" if name == "datacontenttype" else f"user.cloudEvents_{name}"


def _pattern(literal: str) -> str:
    """Both have `%` and `_`. A backslash escapes there; here what escapes must be named."""
    text = re.sub(r"\\(['\"])", r"\1", literal[1:-1])
    return f"{_quoted(text)} ESCAPE '\\'" if "\\" in text else _quoted(text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(['\"\\])", r"\1", text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _refuse(of: Subscription, why: str) -> NoReturn:
    raise UnsupportedError(
        f"the filter {of.filter!r} of {of.topic.name}/{of.name} cannot be one of Service Bus: {why}; put one in "
        "Service Bus's own SQL into `native`, or drop it and select in the program"
    )
