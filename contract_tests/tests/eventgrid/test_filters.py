"""What each filter lets through."""

from __future__ import annotations

from typing import Any

import pytest

from cloudevents_bridge_contract.emulators.eventgrid.filters import OPERATORS, compiled
from cloudevents_bridge_contract.emulators.eventgrid.problems import Problem

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "A-1",
    "source": "/shop",
    "type": "Order.Created",
    "subject": "/orders/7.JPG",
    "level": 5,
    "data": {
        "n": 5,
        "f": 2.5,
        "on": True,
        "s": "Contoso Ltd",
        "no": None,
        "deep": {"er": "x"},
        "tags": ["Red", "blue"],
        "ns": [1, 50],
    },
}


def _advanced(operator: str, key: str, arrays: bool = False, **given: Any) -> dict[str, Any]:
    filter = {"operatorType": operator, "key": key, **given}
    return {"advancedFilters": [filter], "enableAdvancedFilteringOnArrays": arrays}


CASES = [
    ("NumberIn", "data.n", {"values": [1, 5]}, True),
    ("NumberIn", "data.n", {"values": [1, 6]}, False),
    ("NumberIn", "data.on", {"values": [1]}, False),
    ("NumberNotIn", "data.n", {"values": [1, 5]}, False),
    ("NumberNotIn", "data.n", {"values": [1, 6]}, True),
    ("NumberNotIn", "data.none", {"values": [1]}, True),
    ("NumberLessThan", "data.n", {"value": 5}, False),
    ("NumberLessThan", "data.f", {"value": 5}, True),
    ("NumberLessThan", "data.none", {"value": 5}, False),
    ("NumberLessThanOrEquals", "data.n", {"value": 5}, True),
    ("NumberLessThanOrEquals", "data.n", {"value": 4.9}, False),
    ("NumberGreaterThan", "data.n", {"value": 5}, False),
    ("NumberGreaterThan", "data.n", {"value": 4}, True),
    ("NumberGreaterThanOrEquals", "data.n", {"value": 5}, True),
    ("NumberGreaterThanOrEquals", "data.n", {"value": 6}, False),
    ("NumberInRange", "data.n", {"values": [[1, 2], [5, 9]]}, True),
    ("NumberInRange", "data.n", {"values": [[1, 2], [6, 9]]}, False),
    ("NumberNotInRange", "data.n", {"values": [[5, 9]]}, False),
    ("NumberNotInRange", "data.n", {"values": [[6, 9]]}, True),
    ("BoolEquals", "data.on", {"value": True}, True),
    ("BoolEquals", "data.on", {"value": False}, False),
    ("BoolEquals", "data.n", {"value": True}, False),
    ("StringIn", "data.s", {"values": ["x", "CONTOSO LTD"]}, True),
    ("StringIn", "data.s", {"values": ["contoso"]}, False),
    ("StringNotIn", "data.s", {"values": ["contoso ltd"]}, False),
    ("StringNotIn", "data.s", {"values": ["contoso"]}, True),
    ("StringNotIn", "data.none", {"values": ["x"]}, True),
    ("StringContains", "data.s", {"values": ["TOSO"]}, True),
    ("StringContains", "data.s", {"values": ["fabrikam"]}, False),
    ("StringContains", "data.n", {"values": ["5"]}, False),
    ("StringNotContains", "data.s", {"values": ["x", "toso"]}, False),
    ("StringNotContains", "data.s", {"values": ["fabrikam"]}, True),
    ("StringNotContains", "data.none", {"values": ["x"]}, False),
    ("StringBeginsWith", "data.s", {"values": ["con"]}, True),
    ("StringBeginsWith", "data.s", {"values": ["ltd"]}, False),
    ("StringNotBeginsWith", "data.s", {"values": ["con"]}, False),
    ("StringNotBeginsWith", "data.s", {"values": ["ltd"]}, True),
    ("StringNotBeginsWith", "data.none", {"values": ["ltd"]}, False),
    ("StringEndsWith", "data.s", {"values": ["LTD"]}, True),
    ("StringEndsWith", "data.s", {"values": ["con"]}, False),
    ("StringNotEndsWith", "data.s", {"values": ["ltd"]}, False),
    ("StringNotEndsWith", "data.s", {"values": ["con"]}, True),
    ("IsNullOrUndefined", "data.no", {}, True),
    ("IsNullOrUndefined", "data.none", {}, True),
    ("IsNullOrUndefined", "data.n", {}, False),
    ("IsNotNull", "data.n", {}, True),
    ("IsNotNull", "data.no", {}, False),
    ("StringIn", "Subject", {"values": ["/orders/7.jpg"]}, True),
    ("StringIn", "EventType", {"values": ["order.created"]}, True),
    ("StringIn", "eventid", {"values": ["a-1"]}, True),
    ("StringIn", "Data.Deep.Er", {"values": ["X"]}, True),
    ("StringBeginsWith", "level", {"values": ["5"]}, True),
    ("StringIn", "data.tags", {"values": ["red"]}, False),
]


@pytest.mark.parametrize(("operator", "key", "given", "expected"), CASES)
def test_operators(operator: str, key: str, given: dict[str, Any], expected: bool) -> None:
    assert compiled(_advanced(operator, key, **given))(EVENT) is expected
    assert compiled({"filters": [{"operatorType": operator, "key": key, **given}]})(EVENT) is expected


def test_every_operator_has_both_outcomes() -> None:
    for operator in OPERATORS:
        assert {expected for each, _, _, expected in CASES if each == operator} == {True, False}, operator


@pytest.mark.parametrize(
    ("operator", "key", "given", "expected"),
    [
        ("StringIn", "data.tags", {"values": ["x", "BLUE"]}, True),
        ("StringNotIn", "data.tags", {"values": ["x", "BLUE"]}, False),
        ("StringNotIn", "data.tags", {"values": ["x"]}, True),
        ("NumberGreaterThan", "data.ns", {"value": 49}, True),
        ("NumberInRange", "data.ns", {"values": [[2, 49]]}, False),
        ("StringContains", "data.ns", {"values": ["1"]}, False),
    ],
)
def test_arrays(operator: str, key: str, given: dict[str, Any], expected: bool) -> None:
    assert compiled(_advanced(operator, key, True, **given))(EVENT) is expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"includedEventTypes": ["All"]}, True),
        ({"includedEventTypes": ["order.deleted", "order.created"]}, True),
        ({"includedEventTypes": ["order.deleted"]}, False),
        ({"subjectBeginsWith": "/ORDERS", "subjectEndsWith": ".jpg"}, True),
        ({"subjectBeginsWith": "/ORDERS", "isSubjectCaseSensitive": True}, False),
        ({"subjectEndsWith": ".png"}, False),
    ],
)
def test_types_and_subject(settings: dict[str, Any], expected: bool) -> None:
    assert compiled(settings)(EVENT) is expected


def test_filters_are_joined_by_and() -> None:
    yes = {"operatorType": "NumberIn", "key": "data.n", "values": [5]}
    no = {"operatorType": "NumberIn", "key": "data.n", "values": [6]}
    assert compiled({"advancedFilters": [yes, yes]})(EVENT)
    assert not compiled({"advancedFilters": [yes, no]})(EVENT)


@pytest.mark.parametrize(
    "settings",
    [
        _advanced("StringLike", "data.s", values=["x"]),
        _advanced("StringIn", "data.s"),
        _advanced("StringIn", "data.s", values=[]),
        _advanced("StringIn", "data.s", values=[1]),
        _advanced("StringIn", "data.s", values=["x" * 513]),
        _advanced("StringIn", "", values=["x"]),
        _advanced("NumberIn", "data.n", values=[True]),
        _advanced("NumberLessThan", "data.n", values=[1]),
        _advanced("NumberInRange", "data.n", values=[1, 2]),
        _advanced("BoolEquals", "data.on", value="true"),
        _advanced("StringIn", "data.s", values=["x"] * 26),
        {"advancedFilters": [{"operatorType": "IsNotNull", "key": "id"}] * 26},
        {"includedEventTypes": "All"},
        {"subjectBeginsWith": 1},
    ],
)
def test_what_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        compiled(settings)
    assert caught.value.status == 400
