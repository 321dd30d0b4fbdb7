"""From a filter in CloudEvents SQL to Pub/Sub's own language, as far as that goes.

Pub/Sub compares attributes with strings and looks at their beginnings; a filter that says more is refused. There are
`=`, `!=`, `<>`, `LIKE 'beginning%'`, `IN (…)`, `EXISTS`, `AND`, `OR`, `NOT` and parentheses.
"""

from __future__ import annotations

import re
from typing import NoReturn

from cloudevents_bridge.driver import Subscription
from cloudevents_bridge.errors import UnsupportedError

MAX_BYTES = 256
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z0-9_]+)|(?P<sign><>|!=|=|\(|\)|,))"""
)
_KEYWORDS = frozenset({"AND", "OR", "NOT", "LIKE", "IN", "EXISTS", "XOR", "TRUE", "FALSE"})


def translate(of: Subscription, mode: str) -> str:
    """The native filter; empty: there is none.

    Raises:
        UnsupportedError: if Pub/Sub cannot filter like that, or has no attributes to filter by.
    """
    if of.filter is None:
        return ""
    if mode == "structured":
        raise UnsupportedError(
            f"the filter of {of.topic.name}/{of.name} cannot work with mode=structured: Pub/Sub filters by attributes, "
            "and there the event is in the body; use mode=binary, or drop the filter and select in the program"
        )
    made = _Parser(of).whole()
    if len(made.encode()) > MAX_BYTES:
        raise UnsupportedError(
            f"the filter of {of.topic.name}/{of.name} has {len(made.encode())} bytes in Pub/Sub's own language, and "
            f"{MAX_BYTES} is the most: shorten it, or select in the program"
        )
    return made


class _Parser:
    """A descent through the grammar: or, and, not, comparison."""

    def __init__(self, of: Subscription) -> None:
        self._of = of
        self._tokens: list[tuple[str, str]] = []
        text = (of.filter or "").strip()
        while text:
            match = _TOKEN.match(text)
            if match is None:
                self._refuse(f"{text[:20]!r} is not understood")
            kind = match.lastgroup or ""
            value = match[kind]
            if kind == "word" and value.upper() in _KEYWORDS:
                kind, value = "keyword", value.upper()
            self._tokens.append((kind, value))
            text = text[match.end() :].lstrip()
        self._place = 0

    def whole(self) -> str:
        made = self._or()
        if self._place < len(self._tokens):
            self._refuse(f"{self._tokens[self._place][1]!r} is too much")
        return made

    def _or(self) -> str:
        parts = [self._and()]
        while self._take("keyword", "OR"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else "(" + " OR ".join(parts) + ")"

    def _and(self) -> str:
        parts = [self._not()]
        while self._take("keyword", "AND"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else "(" + " AND ".join(parts) + ")"

    def _not(self) -> str:
        if self._take("keyword", "NOT"):
            return f"NOT {self._not()}"
        if self._take("sign", "("):
            made = self._or()
            self._want("sign", ")")
            return made
        if self._take("keyword", "EXISTS"):
            return f"attributes:{self._attribute()}"
        return self._comparison()

    def _comparison(self) -> str:
        attribute = self._attribute()
        negated = self._take("keyword", "NOT")
        if self._take("keyword", "LIKE"):
            made = self._like(attribute)
        elif self._take("keyword", "IN"):
            self._want("sign", "(")
            values = [self._text()]
            while self._take("sign", ","):
                values.append(self._text())
            self._want("sign", ")")
            made = "(" + " OR ".join(f"attributes.{attribute} = {_quoted(value)}" for value in values) + ")"
        elif not negated and self._take("sign", "="):
            made = f"attributes.{attribute} = {_quoted(self._text())}"
        elif not negated and (self._take("sign", "!=") or self._take("sign", "<>")):
            made = f"attributes.{attribute} != {_quoted(self._text())}"
        else:
            self._refuse(f"after the attribute {attribute} comes no =, !=, LIKE or IN")
        return f"NOT {made}" if negated else made

    def _like(self, attribute: str) -> str:
        pattern = self._text()
        plain = re.sub(r"\\[%_]", "", pattern)
        if "_" in plain or "%" in plain[:-1]:
            self._refuse(f"Pub/Sub compares the beginning of an attribute only, and not with the pattern {pattern!r}")
        begins = plain.endswith("%")
        value = re.sub(r"\\([%_])", r"\1", pattern[:-1] if begins else pattern)
        if begins:
            return f"hasPrefix(attributes.{attribute}, {_quoted(value)})" if value else f"attributes:{attribute}"
        return f"attributes.{attribute} = {_quoted(value)}"

    def _attribute(self) -> str:
        kind, value = self._next("the name of an attribute")
        if kind != "word" or not re.fullmatch(r"[a-z0-9]+", value):
            self._refuse(f"{value!r} is no attribute of an event")
        return '"content-type"' if value == "datacontenttype" else f'"ce-{value}"'

    def _text(self) -> str:
        kind, value = self._next("a string")
        if kind != "text":
            self._refuse(f"{value!r} is no string, and Pub/Sub compares with strings only")
        return re.sub(r"\\(['\"\\])", r"\1", value[1:-1])

    def _next(self, what: str) -> tuple[str, str]:
        if self._place == len(self._tokens):
            self._refuse(f"it ends where {what} is expected")
        self._place += 1
        return self._tokens[self._place - 1]

    def _take(self, kind: str, value: str) -> bool:
        found = self._place < len(self._tokens) and self._tokens[self._place] == (kind, value)
        self._place += found
        return found

    def _want(self, kind: str, value: str) -> None:
        if not self._take(kind, value):
            self._refuse(f"{value!r} is missing")

    def _refuse(self, why: str) -> NoReturn:
        name = f"{self._of.topic.name}/{self._of.name}"
        raise UnsupportedError(
            f"the filter {self._of.filter!r} of {name} cannot be one of Pub/Sub: {why}; put one in Pub/Sub's own "
            "language into `native`, or drop it and select in the program"
        )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
