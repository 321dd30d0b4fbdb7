"""Bicep: values and resources in its own form.

Source: https://learn.microsoft.com/azure/azure-resource-manager/bicep/file
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class Expression(str):
    """Code, where other texts are values: `queue0.id`."""

    __slots__ = ()


def resource(symbol: str, kind: str, body: Mapping[str, Any]) -> str:
    """One that is to be. `kind`: its type with the version of the API."""
    return f"resource {symbol} {quoted(kind)} = {literal(body)}"


def existing(symbol: str, kind: str, body: Mapping[str, Any]) -> str:
    """One that is there and that others refer to."""
    return f"resource {symbol} {quoted(kind)} existing = {literal(body)}"


def literal(value: Any, indent: int = 0) -> str:
    """A value of JSON, or an `Expression`, of which lines after the first are indented by so many spaces."""
    inside = " " * (indent + 2)
    if isinstance(value, Mapping):
        lines = [f"{inside}{_key(key)}: {literal(each, indent + 2)}" for key, each in value.items()]
        return "\n".join(["{", *lines, " " * indent + "}"])
    if isinstance(value, (list, tuple)):
        return "\n".join(["[", *(inside + literal(each, indent + 2) for each in value), " " * indent + "]"])
    if isinstance(value, Expression):
        return str(value)
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return "'" + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + "'"


def _key(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else quoted(name)
