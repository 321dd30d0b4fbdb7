"""What a handler takes: its parameters are filled by their annotations."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any

from cloudevents_bridge.delivery import Delivery
from cloudevents_bridge.event import CloudEvent

Filled = Callable[[Delivery], object]


def fill(handler: Callable[..., object]) -> Filled:
    """The handler as a function of a delivery.

    A parameter annotated `CloudEvent`, or not at all, gets the event; `Delivery` gets the delivery; anything else gets
    the data as that type, which one parameter at most may ask for. One that takes `*args` only, as mocks do, gets the
    event. A coroutine function gives its coroutine.

    Raises:
        TypeError: if the annotations cannot be resolved, or two parameters ask for the data.
    """
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    if not (inspect.isroutine(target) or inspect.isclass(target)):
        target = type(target).__call__
    try:
        hints = typing.get_type_hints(target)
    except Exception as error:
        raise TypeError(f"the annotations of {_name(handler)} cannot be resolved: {error}") from error
    takes: list[Callable[[Delivery], object]] = []
    models = 0
    parameters = inspect.signature(handler).parameters.values()
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY:
                raise TypeError(f"{_name(handler)} has the keyword-only parameter {parameter.name}: give it a default")
            continue
        if parameter.default is not parameter.empty:
            break
        hint = hints.get(parameter.name, CloudEvent)
        if hint is CloudEvent or hint is Any:
            takes.append(lambda delivery: delivery.event)
        elif hint is Delivery:
            takes.append(lambda delivery: delivery)
        else:
            models += 1
            takes.append(lambda delivery, model=hint: delivery.event.data_as(model))  # type: ignore[misc]
    if not takes and any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        takes.append(lambda delivery: delivery.event)
    if models > 1:
        raise TypeError(f"{_name(handler)} asks for the data twice: one parameter gets it, of one type")
    return lambda delivery: handler(*(take(delivery) for take in takes))


def run(filled: Filled, delivery: Delivery) -> None:
    """Run a handler here and now, a coroutine function on an event loop of its own."""
    result = filled(delivery)
    if isinstance(result, Coroutine):
        import asyncio

        asyncio.run(result)


def _name(handler: Callable[..., object]) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)
