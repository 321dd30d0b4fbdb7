"""The filters of a subscription: event types, subject, and the advanced operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudevents_bridge_contract.emulators.eventgrid.problems import bad_request

Matches = Callable[[Mapping[str, Any]], bool]
"""Whether an event with these fields is for the subscription."""
_Test = Callable[[Any, Any], bool]

MAX_FILTERS, MAX_VALUES, MAX_LENGTH = 25, 25, 512
"""Advanced filters; values of all of them together; characters of one value."""
_ALIASES = {"eventtype": "type", "eventid": "id", "eventtypeversion": "dataversion"}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(test: Callable[[str, str], bool]) -> _Test:
    return lambda have, want: isinstance(have, str) and test(have.lower(), want.lower())


def _within(have: Any, want: Sequence[float]) -> bool:
    return _number(have) and want[0] <= have <= want[1]


_TESTS: Mapping[str, _Test] = {
    "NumberIn": lambda have, want: _number(have) and have == want,
    "NumberInRange": _within,
    "NumberLessThan": lambda have, want: _number(have) and have < want,
    "NumberLessThanOrEquals": lambda have, want: _number(have) and have <= want,
    "NumberGreaterThan": lambda have, want: _number(have) and have > want,
    "NumberGreaterThanOrEquals": lambda have, want: _number(have) and have >= want,
    "BoolEquals": lambda have, want: isinstance(have, bool) and have == want,
    "StringIn": _text(lambda have, want: have == want),
    "StringContains": _text(lambda have, want: want in have),
    "StringBeginsWith": _text(str.startswith),
    "StringEndsWith": _text(str.endswith),
}
_OPPOSITES = {
    "NumberNotIn": "NumberIn",
    "NumberNotInRange": "NumberInRange",
    "StringNotIn": "StringIn",
    "StringNotContains": "StringContains",
    "StringNotBeginsWith": "StringBeginsWith",
    "StringNotEndsWith": "StringEndsWith",
}
_MATCHED_WITHOUT = frozenset({"NumberNotIn", "NumberNotInRange", "StringNotIn"})
"""Operators that match where the event has no such key; all others do not. (Of the ranges the documentation is silent.)
"""
_EMPTY = {"IsNullOrUndefined": True, "IsNotNull": False}
OPERATORS = (*_TESTS, *_OPPOSITES, *_EMPTY)
_ONE_VALUE = frozenset(name for name in _TESTS if name.endswith(("Than", "ThanOrEquals"))) | {"BoolEquals"}


def compiled(settings: Mapping[str, Any]) -> Matches:
    """What decides for the `filter` of a custom topic's subscription, or the `filtersConfiguration` of a namespace's.

    Raises:
        Problem: 400 where they are not what the service accepts.
    """
    types = settings.get("includedEventTypes") or ["All"]
    if not isinstance(types, list) or not all(isinstance(each, str) for each in types):
        raise bad_request("includedEventTypes is no array of strings.")
    wanted = None if [each.lower() for each in types] == ["all"] else {each.lower() for each in types}
    subject = _subject(settings)
    advanced = _advanced(
        settings.get("advancedFilters") or settings.get("filters") or [],
        arrays=bool(settings.get("enableAdvancedFilteringOnArrays")),
    )

    def matches(fields: Mapping[str, Any]) -> bool:
        type = str(fields.get("type") or fields.get("eventType") or "").lower()
        if wanted is not None and type not in wanted:
            return False
        return subject(str(fields.get("subject") or "")) and all(each(fields) for each in advanced)

    return matches


def _subject(settings: Mapping[str, Any]) -> Callable[[str], bool]:
    begin, end = settings.get("subjectBeginsWith") or "", settings.get("subjectEndsWith") or ""
    if not isinstance(begin, str) or not isinstance(end, str):
        raise bad_request("subjectBeginsWith and subjectEndsWith are strings.")
    if settings.get("isSubjectCaseSensitive"):
        return lambda subject: subject.startswith(begin) and subject.endswith(end)
    begin, end = begin.lower(), end.lower()
    return lambda subject: subject.lower().startswith(begin) and subject.lower().endswith(end)


def _advanced(filters: Any, *, arrays: bool) -> list[Matches]:
    if not isinstance(filters, list) or not all(isinstance(each, dict) for each in filters):
        raise bad_request("The advanced filters are no array of objects.")
    if len(filters) > MAX_FILTERS:
        raise bad_request(f"There are {len(filters)} advanced filters, and the maximum is {MAX_FILTERS}.")
    values = sum(len(_values(each)) for each in filters)
    if values > MAX_VALUES:
        raise bad_request(f"The advanced filters have {values} values, and the maximum is {MAX_VALUES}.")
    return [_one(each, arrays=arrays) for each in filters]


def _one(filter: Mapping[str, Any], *, arrays: bool) -> Matches:
    name, key = filter.get("operatorType"), filter.get("key")
    if name not in OPERATORS:
        raise bad_request(f"The operator {name} is not one of {', '.join(OPERATORS)}.")
    if not isinstance(key, str) or not key:
        raise bad_request(f"The filter {name} has no key.")
    path = key.split(".")
    if name in _EMPTY:
        return lambda fields: (_found(fields, path) is None) is _EMPTY[name]
    values = _values(filter)
    positive = _OPPOSITES.get(name, name)
    _check(name, positive, values)
    test = _TESTS[positive]

    def matches(fields: Mapping[str, Any]) -> bool:
        found = _found(fields, path)
        if found is None:
            return name in _MATCHED_WITHOUT
        if len(path) == 1 and positive.startswith("String") and _number(found):
            found = str(found)  # an attribute of CloudEvents is a string in other forms of the event
        each = found if arrays and isinstance(found, list) else [found]
        hit = any(test(have, want) for have in each for want in values)
        return hit is (positive == name)

    return matches


def _values(filter: Mapping[str, Any]) -> list[Any]:
    if filter.get("operatorType") in _EMPTY:
        return []
    if filter.get("operatorType") in _ONE_VALUE:
        return [filter.get("value")]
    values = filter.get("values")
    if not isinstance(values, list) or not values:
        raise bad_request(f"The filter {filter.get('operatorType')} has no values.")
    return values


def _check(name: str, positive: str, values: Sequence[Any]) -> None:
    for value in values:
        if positive == "BoolEquals":
            right = isinstance(value, bool)
        elif positive == "NumberInRange":
            right = isinstance(value, list) and len(value) == 2 and all(map(_number, value))
        elif positive.startswith("Number"):
            right = _number(value)
        else:
            right = isinstance(value, str) and len(value) <= MAX_LENGTH
        if not right:
            raise bad_request(f"The filter {name} does not take the value {str(value)[:80]}.")


def _found(fields: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at the path; None where there is none. Names compare without case, an exact one first."""
    value: Any = fields
    for depth, name in enumerate(path):
        if not isinstance(value, Mapping):
            return None
        if name in value:
            value = value[name]
            continue
        folded = {key.lower(): key for key in value}
        found = folded.get(name.lower()) or (folded.get(_ALIASES.get(name.lower(), "")) if not depth else None)
        if found is None:
            return None
        value = value[found]
    return value
