"""Rules of subscriptions: which messages one takes, and how it changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cloudevents_bridge_contract.emulators.servicebus import sql
from cloudevents_bridge_contract.emulators.servicebus.message import Message

DEFAULT = "$Default"


class Rule(NamedTuple):
    """`takes`: whether it takes a message, ArithmeticError if that cannot be said; `xml`: as it was given."""

    name: str
    takes: Callable[[Message], bool]
    action: sql.Action | None = None
    xml: str = ""


def everything(name: str = DEFAULT) -> Rule:
    return Rule(name, lambda message: True)


def by_sql(text: str, parameters: Mapping[str, Any]) -> Callable[[Message], bool]:
    """Raises SqlError."""
    condition = sql.condition(text, parameters)
    return lambda message: condition(message) is True


def by_correlation(system: Mapping[str, str], user: Mapping[str, Any]) -> Callable[[Message], bool]:
    """Takes what is equal in each of these. `system`: by the lower-case name that SQL rules use."""

    def takes(message: Message) -> bool:
        return all(_same(message.system.get(name), value) for name, value in system.items()) and all(
            _same(message.user.get(name), value) for name, value in user.items()
        )

    return takes


def _same(found: Any, wanted: Any) -> bool:
    if found is None or isinstance(found, bool) is not isinstance(wanted, bool):
        return False
    return bool(found == wanted) or (
        isinstance(wanted, str) and not isinstance(found, (int, float)) and str(found) == wanted
    )
