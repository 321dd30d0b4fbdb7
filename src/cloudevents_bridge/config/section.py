"""A table of `bridge.toml` that knows where it stands, so that each error can say so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from cloudevents_bridge.config.durations import parse_duration
from cloudevents_bridge.driver import Capability
from cloudevents_bridge.errors import ConfigurationError

_VARIABLE = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def suggest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the nearest known one if any, and all of them."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, 1)
    return (f"did you mean {near[0]}? " if near else "") + ("known: " + ", ".join(names) if names else "none is known")


class Section:
    """One table.

    Attributes:
        file: the file's name, for errors.
        path: the table's dotted key; empty for the file itself.
    """

    __slots__ = ("_environ", "_values", "file", "path")

    def __init__(self, values: Mapping[str, Any], file: str, path: str, environ: Mapping[str, str]) -> None:
        self.file = file
        self.path = path
        self._values = values
        self._environ = environ

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def key(self, key: str) -> str:
        """The dotted key, quoted as TOML needs it."""
        shown = key if _BARE_KEY.fullmatch(key) else repr(key)
        return f"{self.path}.{shown}" if self.path else shown

    def fail(self, key: str, problem: str) -> NoReturn:
        raise ConfigurationError(f"{self.file}: {self.key(key)} {problem}")

    def only(self, known: Iterable[str]) -> None:
        """Refuse keys that are not known."""
        known = set(known)
        for key in self._values:
            if key not in known:
                self.fail(key, f"is no key of bridge.toml; {suggest(key, known)}")

    def is_list(self, key: str) -> bool:
        return isinstance(self._values[key], list)

    def table(self, key: str) -> Section:
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            self.fail(key, f"is {_kind(value)}: it must be a table, [{self.key(key)}]")
        return Section(value, self.file, self.key(key), self._environ)

    def text(self, key: str) -> str:
        value = self._values[key]
        if not isinstance(value, str):
            self.fail(key, f"is {_kind(value)}: it must be a string")
        value = self._expand(key, value)
        if not value:
            self.fail(key, "is empty: give it a value or leave it out")
        return value

    def flag(self, key: str) -> bool:
        value = self._values[key]
        if not isinstance(value, bool):
            self.fail(key, f"is {_kind(value)}: it must be true or false, without quotes")
        return value

    def whole(self, key: str) -> int:
        value = self._values[key]
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(key, f"is {_kind(value)}: it must be a whole number, without quotes")
        return value

    def number(self, key: str) -> float:
        value = self._values[key]
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.fail(key, f"is {_kind(value)}: it must be a number, without quotes")
        return value

    def duration(self, key: str) -> float:
        value = self._values[key]
        try:
            return parse_duration(self._expand(key, value) if isinstance(value, str) else value)
        except ConfigurationError:
            self.fail(key, f'is {_kind(value)}: use seconds, or "500ms", "60s", "5m", "1h"')

    def names(self, key: str) -> list[str]:
        value = self._values[key]
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.fail(key, f'is {_kind(value)}: it must be a list of strings, ["…", "…"]')
        return [self._expand(key, each) for each in value]

    def capabilities(self, key: str) -> list[str]:
        names = self.names(key)
        for name in names:
            if name not in Capability.__members__.values():
                self.fail(key, f"names {name!r}, which is no capability; {suggest(name, Capability)}")
        return names

    def plain(self) -> dict[str, Any]:
        """The table as it is, environment variables put in: for what only an adapter understands."""
        return {key: self._plain(key, value) for key, value in self._values.items()}

    def _plain(self, key: str, value: Any) -> Any:
        if isinstance(value, str):
            return self._expand(key, value)
        if isinstance(value, list):
            return [self._plain(key, each) for each in value]
        if isinstance(value, dict):
            return {name: self._plain(f"{key}.{name}", each) for name, each in value.items()}
        return value

    def _expand(self, key: str, value: str) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[1]:
                return match[1]
            if match[2] is None:
                self.fail(key, "has ${ without a variable's name and }: write ${NAME}, or $${ for a plain ${")
            if match[2] not in self._environ:
                self.fail(key, f"needs the environment variable {match[2]}, which is not set: set it")
            return self._environ[match[2]]

        return _VARIABLE.sub(replace, value) if "${" in value else value


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)[:80] if not isinstance(value, int) or abs(value) < 10**60 else "a huge number"
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:80] + "…")
    return {"dict": "a table", "list": "a list"}.get(type(value).__name__, f"a {type(value).__name__}")
