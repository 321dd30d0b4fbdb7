"""The SQL of Service Bus rules: filters and actions, read once and then asked of each message.

Three-valued as in the service: a comparison with a property that is not there is unknown (None), and what is unknown
is not taken. Properties without a scope are the user's; `sys.` names the broker's.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cloudevents_bridge_contract.emulators.servicebus.message import Message

Expression = Callable[[Message], Any]
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*') | (?P<quoted>\[(?:[^\]]|\]\])+\]|"(?:[^"]|"")+")
    | (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?) | (?P<parameter>@\w+) | (?P<word>[A-Za-z_][\w$\#-]*)
    | (?P<sign><>|!=|<=|>=|[=<>()+\-*/%,.;])
    )""",
    re.VERBOSE,
)
_ORDERED: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


class SqlError(ValueError):
    """It is not SQL of Service Bus."""


class Change(NamedTuple):
    """One statement of an action. `value`: None: the property is removed."""

    scope: str
    name: str
    value: Expression | None

    def changed(self, message: Message) -> Message:
        value = None if self.value is None else self.value(message)
        if self.scope == "sys":
            return message.with_system(self.name.lower(), value)
        return message.with_user(**{self.name: value})


class Action(NamedTuple):
    statements: tuple[Change, ...]

    def changed(self, message: Message) -> Message:
        for each in self.statements:
            message = each.changed(message)
        return message


def condition(text: str, parameters: Mapping[str, Any]) -> Expression:
    """Raises SqlError."""
    parser = _Parser(text, parameters)
    found = parser.any_of()
    parser.end()
    return found


def action(text: str, parameters: Mapping[str, Any]) -> Action:
    """Raises SqlError."""
    return _Parser(text, parameters).statements()


class _Parser:
    """By recursive descent, one method per level of precedence."""

    def __init__(self, text: str, parameters: Mapping[str, Any]) -> None:
        self._parameters = {name.lower(): value for name, value in parameters.items()}
        self._tokens: list[tuple[str, str]] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise SqlError(f"The SQL expression has a syntax error at {text[at : at + 20]!r}.")
            self._tokens.append((str(found.lastgroup), found.group(str(found.lastgroup))))
            at = found.end()
        self._at = 0

    # -- statements

    def statements(self) -> Action:
        found = []
        while self._at < len(self._tokens):
            remove = self._word("REMOVE")
            if not remove:
                self._need(self._word("SET"))
            scope, name = self._property()
            value = None
            if not remove:
                self._need(self._sign("="))
                value = self._sum()
            found.append(Change(scope, name, value))
            if not self._sign(";"):
                break
        self.end()
        return Action(tuple(found))

    def end(self) -> None:
        self._need(self._at == len(self._tokens))

    # -- conditions

    def any_of(self) -> Expression:
        parts = [self._all_of()]
        while self._word("OR"):
            parts.append(self._all_of())
        return parts[0] if len(parts) == 1 else lambda message: _or([part(message) for part in parts])

    def _all_of(self) -> Expression:
        parts = [self._unless()]
        while self._word("AND"):
            parts.append(self._unless())
        return parts[0] if len(parts) == 1 else lambda message: _and([part(message) for part in parts])

    def _unless(self) -> Expression:
        if self._word("NOT"):
            inner = self._unless()
            return lambda message: _not(inner(message))
        return self._comparison()

    def _comparison(self) -> Expression:
        if self._word("EXISTS"):
            self._need(self._sign("("))
            there = self._value_of(*self._property())
            self._need(self._sign(")"))
            return lambda message: there(message) is not None
        left = self._sum()
        if self._word("IS"):
            negated = self._word("NOT")
            self._need(self._word("NULL"))
            return lambda message: (left(message) is None) is not negated
        negated = self._word("NOT")
        if self._word("LIKE"):
            found = self._like(left)
        elif self._word("IN"):
            found = self._in(left)
        else:
            self._need(not negated)
            sign = self._any_sign("=", "<>", "!=", "<", "<=", ">", ">=")
            if sign is None:
                return left
            right = self._sum()
            return lambda message: _compare(sign, left(message), right(message))
        return (lambda message: _not(found(message))) if negated else found

    def _in(self, left: Expression) -> Expression:
        self._need(self._sign("("))
        choices = [self._sum()]
        while self._sign(","):
            choices.append(self._sum())
        self._need(self._sign(")"))
        return lambda message: _or([_compare("=", left(message), choice(message)) for choice in choices])

    def _like(self, left: Expression) -> Expression:
        pattern = self._sum()
        escape = self._sum() if self._word("ESCAPE") else None

        def like(message: Message) -> bool | None:
            value, wanted = left(message), pattern(message)
            if value is None or wanted is None:
                return None
            mark = None if escape is None else str(escape(message))
            return re.fullmatch(_regular(str(wanted), mark), str(value), re.DOTALL) is not None

        return like

    # -- values

    def _sum(self) -> Expression:
        left = self._product()
        while (sign := self._any_sign("+", "-")) is not None:
            left = _calculated(sign, left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._single()
        while (sign := self._any_sign("*", "/", "%")) is not None:
            left = _calculated(sign, left, self._single())
        return left

    def _single(self) -> Expression:
        if self._sign("("):
            inner = self.any_of()
            self._need(self._sign(")"))
            return inner
        if self._sign("-"):
            negative = self._single()
            return lambda message: None if (value := negative(message)) is None else -value
        kind, text = self._peek()
        if kind in ("string", "number", "parameter"):
            self._at += 1
            return _constant(self._literal(kind, text))
        if self._word("TRUE"):
            return _constant(True)
        if self._word("FALSE"):
            return _constant(False)
        if self._word("NULL"):
            return _constant(None)
        return self._call_or_property()

    def _literal(self, kind: str, text: str) -> Any:
        if kind == "string":
            return text[1:-1].replace("''", "'")
        if kind == "parameter":
            if text.lower() not in self._parameters:
                raise SqlError(f"The parameter {text} has no value.")
            return self._parameters[text.lower()]
        return int(text) if text.isdigit() else float(text)

    def _call_or_property(self) -> Expression:
        scope, name = self._property()
        if scope == "user" and self._sign("("):
            if name.lower() == "newid":
                self._need(self._sign(")"))
                return lambda message: str(uuid.uuid4())
            self._need(name.lower() in ("p", "property"))
            named = self._sum()
            self._need(self._sign(")"))
            return lambda message: message.user.get(str(named(message)))
        return self._value_of(scope, name)

    def _property(self) -> tuple[str, str]:
        first = self._name()
        if first.lower() in ("sys", "user") and self._sign("."):
            return first.lower(), self._name()
        return "user", first

    def _value_of(self, scope: str, name: str) -> Expression:
        if scope == "user":
            return lambda message: message.user.get(name)
        known = name.lower()
        return lambda message: message.system.get(known)

    # -- tokens

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _name(self) -> str:
        kind, text = self._peek()
        self._need(kind in ("word", "quoted"))
        self._at += 1
        return text if kind == "word" else text[1:-1].replace("]]", "]").replace('""', '"')

    def _word(self, word: str) -> bool:
        kind, text = self._peek()
        found = kind == "word" and text.upper() == word
        self._at += found
        return found

    def _sign(self, sign: str) -> bool:
        return self._any_sign(sign) is not None

    def _any_sign(self, *signs: str) -> str | None:
        kind, text = self._peek()
        if kind == "sign" and text in signs:
            self._at += 1
            return text
        return None

    def _need(self, there: bool) -> None:
        if not there:
            raise SqlError(f"The SQL expression has a syntax error at {self._peek()[1] or 'its end'!r}.")


def _constant(value: Any) -> Expression:
    return lambda message: value


def _compare(sign: str, left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in (left, right))
    if not numbers and isinstance(left, str) is not isinstance(right, str):
        return sign in ("<>", "!=")
    if sign == "=":
        return bool(left == right)
    if sign in ("<>", "!="):
        return bool(left != right)
    try:
        return _ORDERED[sign](left, right)
    except TypeError:
        return None


def _calculated(sign: str, left: Expression, right: Expression) -> Expression:
    def value(message: Message) -> Any:
        a, b = left(message), right(message)
        if a is None or b is None:
            return None
        if sign == "+":
            return str(a) + str(b) if isinstance(a, str) or isinstance(b, str) else a + b
        try:
            if sign == "-":
                return a - b
            if sign == "*":
                return a * b
            if sign == "%":
                return a % b
            return int(a / b) if isinstance(a, int) and isinstance(b, int) else a / b
        except TypeError as error:
            raise ArithmeticError(f"The filter cannot be evaluated: {error}") from error

    return value


def _regular(pattern: str, escape: str | None) -> str:
    found, at = "", 0
    while at < len(pattern):
        each = pattern[at]
        if each == escape and at + 1 < len(pattern):
            at += 1
            found += re.escape(pattern[at])
        else:
            found += {"%": ".*", "_": "."}.get(each, re.escape(each))
        at += 1
    return found


def _not(value: Any) -> bool | None:
    return None if value is None else not value


def _and(values: list[Any]) -> bool | None:
    if any(value is not None and not value for value in values):
        return False
    return None if None in values else True


def _or(values: list[Any]) -> bool | None:
    if any(values):
        return True
    return None if None in values else False
