"""What a handler's parameters get, and which handlers are refused before they see an event."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict
from unittest.mock import AsyncMock, Mock

import msgspec
import pydantic
import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.handlers import alone, fill
from cloudevents_bridge.testing import make_event

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypes

EVENT = make_event(data={"id": 7})


@dataclass
class Order:
    id: int


class StructOrder(msgspec.Struct):
    id: int


class PydanticOrder(pydantic.BaseModel):
    id: int


class DictOrder(TypedDict):
    id: int


class Custom:
    pass


class MyEvent(ceb.CloudEvent):
    pass


def given(handler: Callable[..., object], event: ceb.CloudEvent = EVENT) -> object:
    return fill(handler)(alone(event))


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (ceb.CloudEvent, EVENT),
        (Annotated[ceb.CloudEvent, "the event"], EVENT),
        (Any, EVENT),
        (object, EVENT),
        (Order, Order(7)),
        (StructOrder, StructOrder(7)),
        (PydanticOrder, PydanticOrder(id=7)),
        (Annotated[PydanticOrder, "the order"], PydanticOrder(id=7)),
        (DictOrder, {"id": 7}),
        (dict, {"id": 7}),
        (dict[str, int], {"id": 7}),
        (Order | None, Order(7)),
        (Annotated[dict[str, int], msgspec.Meta(min_length=1)], {"id": 7}),
        (bytes, b'{"id":7}'),
    ],
    ids=str,
)
def test_by_annotation(hint: Any, expected: object) -> None:
    seen: list[object] = []

    def handler(value) -> None:  # type: ignore[no-untyped-def]
        seen.append(value)

    handler.__annotations__["value"] = hint
    given(handler)
    assert seen == [expected]
    assert type(seen[0]) is type(expected)


def test_a_constraint_is_checked() -> None:
    def handler(value: Annotated[dict[str, int], msgspec.Meta(min_length=2)]) -> None: ...

    with pytest.raises(ceb.Reject, match="length >= 2"):
        given(handler)


def test_defaults_and_more_arguments_are_the_handlers_own() -> None:
    seen: list[object] = []

    def handler(event: ceb.CloudEvent, /, order: Order, limit: int = 3, *rest: int, loud: bool = False) -> None:
        seen.append((event, order, limit, rest, loud))

    given(handler)
    assert seen == [(EVENT, Order(7), 3, (), False)]


def test_a_handler_without_parameters() -> None:
    seen: list[object] = []

    def handler() -> None:
        seen.append("called")

    given(handler)
    assert seen == ["called"]


def test_what_takes_anything_gets_the_event() -> None:
    seen: list[object] = []

    def handler(*args: int) -> None:
        seen.extend(args)

    given(handler)
    assert seen == [EVENT]


class Callable_:
    def __init__(self) -> None:
        self.seen: list[object] = []

    def __call__(self, order: Order) -> None:
        self.seen.append(order)

    def method(self, order: Order, event: ceb.CloudEvent) -> None:
        self.seen.append((order, event))

    async def in_loop(self, order: Order) -> None:
        self.seen.append(order)

    @staticmethod
    def static(order: Order) -> None:
        raise ceb.Reject(str(order.id))


def decorated(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def wrapper(*args: object) -> object:
        return function(*args)

    return wrapper


def test_objects_methods_partials_and_decorated_functions() -> None:
    each = Callable_()
    given(each)
    given(each.method)
    given(functools.partial(Callable_.method, each))
    given(decorated(Callable_.method).__get__(each))
    assert each.seen == [Order(7), (Order(7), EVENT), (Order(7), EVENT), (Order(7), EVENT)]
    with pytest.raises(ceb.Reject, match="7"):
        given(Callable_.static)


@pytest.mark.parametrize("way", ["plain", "method", "decorated", "lambda", "mock", "future"])
def test_whatever_gives_a_coroutine_is_run(way: str) -> None:
    each = Callable_()
    mock = AsyncMock(side_effect=lambda event: each.seen.append(event.data_as(Order)))

    class Later:
        def __await__(self) -> Iterator[None]:
            yield from each.in_loop(Order(7)).__await__()

    async def plain(order: Order) -> None:
        each.seen.append(order)

    handlers: dict[str, Callable[..., object]] = {
        "plain": plain,
        "method": each.in_loop,
        "decorated": decorated(plain),
        "lambda": lambda event: plain(event.data_as(Order)),
        "mock": mock,
        "future": lambda event: Later(),
    }
    result: Any = given(handlers[way])
    assert asyncio.iscoroutine(result)
    asyncio.run(result)
    assert each.seen == [Order(7)]


def test_what_is_returned_is_ignored() -> None:
    assert given(lambda event: event) is None
    assert given(Mock()) is None


def test_a_generator_is_refused_instead_of_losing_the_event() -> None:
    def generator(event: ceb.CloudEvent) -> Iterator[int]:
        yield 1

    async def stream(event: ceb.CloudEvent) -> AsyncIterator[int]:
        yield 1

    for handler in (generator, stream):
        with pytest.raises(TypeError, match="without `yield`"):
            fill(handler)
        with pytest.raises(TypeError, match="without `yield`"):
            given(lambda event, handler=handler: handler(event))


def test_only_what_is_filled_has_to_be_resolved() -> None:
    def handler(event: ceb.CloudEvent, limit: OnlyForTypes | None = None) -> OnlyForTypes | None:
        return limit

    assert given(handler) is None


def missing(order: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def only_for_types(amount: OnlyForTypes) -> None: ...
def twice(one: Order, other: DictOrder) -> None: ...
def custom(order: Custom) -> None: ...
def customs(orders: list[Custom] | None, /) -> None: ...
def subclass(event: MyEvent) -> None: ...
def ambiguous(order: Order | StructOrder) -> None: ...
def keyword(*, order: Order) -> None: ...


@pytest.mark.parametrize(
    ("handler", "match"),
    [
        (missing, "annotations of missing cannot be resolved: name 'Missing'"),
        (only_for_types, "annotations of only_for_types cannot be resolved"),
        (twice, "twice asks for the data twice"),
        (custom, "custom: the data cannot be had as order: Custom: it is no dataclass"),
        (subclass, "subclass: the data cannot be had as event: MyEvent"),
        (ambiguous, "ambiguous: the data cannot be had as order"),
        (keyword, "keyword has the keyword-only parameter order"),
        (functools.partial(twice), "asks for the data twice"),
        (7, "7 cannot be called"),
        (None, "None cannot be called"),
        (dict, "the parameters of dict cannot be found out: wrap it in a function"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:20],
)
def test_what_cannot_be_filled_is_a_type_error(handler: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        fill(handler)
