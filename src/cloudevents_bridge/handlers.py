"""What a handler takes and what it gives: its parameters are filled by their annotations."""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import AsyncGeneratorType, GeneratorType, SimpleNamespace
from typing import Any, TypeAlias, cast

import msgspec

from cloudevents_bridge import clock, driver
from cloudevents_bridge.around import Around
from cloudevents_bridge.delivery import Delivery, Reject
from cloudevents_bridge.errors import BridgeError, DecodeError, ErrorCode, make_error
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.topics import Subscription

Pipeline: TypeAlias = Callable[[Delivery], object]
"""Runs what handles a delivery. What it returns is None, or the coroutine of an `async def` handler, to be run by the
caller; what the handler raises comes out of either.
"""
Runner: TypeAlias = Callable[[Coroutine[Any, Any, object]], object]
"""Runs a coroutine to its end; what it raises comes out."""

_EVENT = (CloudEvent, Any, object)
_NOTHING = driver.Inbound(b"", {}, None, math.inf, 1)


class InsideLoopError(BridgeError):
    """An `async def` handler was to be run here and now, in a thread whose event loop is running."""

    code = ErrorCode.FAILED_PRECONDITION


def fill(handler: Callable[..., object]) -> Pipeline:
    """The handler as a function of a delivery.

    A parameter annotated `CloudEvent`, or not at all, gets the event; `Delivery` gets the delivery; anything else gets
    the data as that type, which one parameter at most may ask for. A parameter with a default keeps it. One that takes
    `*args` only, as mocks do, gets the event. Data that is not what the handler asks for, in a parameter or with
    `data_as`, comes out as `Reject`.

    Raises:
        TypeError: if the annotations cannot be resolved, no data can be had as one of them, or two parameters ask for
            the data.
    """
    name = name_of(handler)
    if not callable(handler):
        raise TypeError(f"the handler {name} cannot be called")
    target = _function(handler)
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise TypeError(f"{name} is a generator, which nobody would run: handle the event without `yield`")
    takes: list[Callable[[Delivery], object]] = []
    models: list[Any] = []
    parameters = _parameters(handler, name)
    annotated = [parameter.name for parameter in parameters if parameter.annotation is not parameter.empty]
    hints = _hints(target, annotated, name) if annotated else {}
    for parameter in parameters:
        hint = hints.get(parameter.name, CloudEvent)
        plain = typing.get_origin(hint) is typing.Annotated and hint.__origin__
        if hint in _EVENT or plain in _EVENT:
            takes.append(_event)
        elif Delivery in (hint, plain):
            takes.append(functools.partial(_delivery, name))
        else:
            _check_model(hint, name, parameter.name)
            models.append(hint)
            takes.append(functools.partial(_data, hint))
    if len(models) > 1:
        raise TypeError(f"{name} asks for the data twice: one parameter gets it, of one type")
    return _caller(handler, takes, name)


class Alone:
    """In place of the subscriber, for an event that is handled by itself."""

    of = driver.Subscription(driver.Topic(""), "")
    declared = Subscription("alone")

    def check(self) -> None:
        raise make_error(
            ErrorCode.FAILED_PRECONDITION,
            "the event is handled by itself, so there is no delivery to settle: give handle() a delivery",
        )


_ALONE = Alone()


def alone(event: CloudEvent) -> Delivery:
    """An event as middleware can handle it, without a broker: of no topic, and not to be settled."""
    return Delivery(cast("Any", _ALONE), _NOTHING, event, clock.now())


def run_here(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a coroutine here and now, on an event loop of its own.

    Raises:
        InsideLoopError: if this thread's event loop is running: it cannot go on while it waits.
    """
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    coroutine.close()
    raise InsideLoopError(
        "an async handler cannot be run here and now by a thread whose event loop is running: call this from another "
        "thread, as `await asyncio.to_thread(…)` does"
    )


def is_of(error: BaseException | None, delivery: Delivery) -> bool:
    """Whether the event's own data cannot be decoded: it never will be. What else a handler reads may be, later."""
    return isinstance(error, DecodeError) and error.of == (delivery.event.source, delivery.event.id)


def name_of(what: object) -> str:
    """A function as errors name it."""
    return getattr(what, "__qualname__", None) or repr(what)


def _caller(handler: Callable[..., object], takes: list[Callable[[Delivery], object]], name: str) -> Pipeline:
    if inspect.iscoroutinefunction(_function(handler)):

        async def call_in_loop(delivery: Delivery) -> None:
            # called when it is run, so that one that never runs leaves no coroutine behind
            try:
                await handler(*[take(delivery) for take in takes])  # type: ignore[misc]
            except DecodeError as error:
                _reject(delivery, error)
                raise

        return call_in_loop

    if takes == [_event]:  # by far the most, and worth half a microsecond

        def call_with_event(delivery: Delivery) -> object:
            try:
                result = handler(delivery.event)
            except DecodeError as error:
                _reject(delivery, error)
                raise
            return None if result is None else _given(result, delivery, name)

        return call_with_event

    def call(delivery: Delivery) -> object:
        try:
            result = handler(*[take(delivery) for take in takes])
        except DecodeError as error:
            _reject(delivery, error)
            raise
        return None if result is None else _given(result, delivery, name)

    return call


def _event(delivery: Delivery) -> object:
    return delivery.event


def _delivery(name: str, delivery: Delivery) -> object:
    if isinstance(delivery._inlet, Alone):
        raise make_error(
            ErrorCode.FAILED_PRECONDITION,
            f"{name} asks for the delivery, and there is none: event {delivery.event.id} ({delivery.event.type}) is "
            "handled by itself. Give handle() a delivery: a subscriber receives them, FakeBroker.deliver makes them",
        )
    return delivery


def _data(model: Any, delivery: Delivery) -> object:
    return delivery.event.data_as(model)


def _given(result: object, delivery: Delivery, name: str) -> object:
    """What a handler returned, if that is still to be run."""
    if isinstance(result, Awaitable):
        return Around(result, _nothing, functools.partial(_reject, delivery))
    if isinstance(result, (GeneratorType, AsyncGeneratorType)):
        raise TypeError(f"{name} returned a generator, which nobody would run: handle the event without `yield`")
    return None


def _nothing() -> None:
    """Begins nothing."""


def _reject(delivery: Delivery, error: BaseException | None) -> None:
    """Reject an event whose own data cannot be decoded."""
    if is_of(error, delivery):
        raise Reject(str(error)) from error


def _function(handler: Any) -> Any:
    """What has the annotations, and the code."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler if inspect.isroutine(handler) or inspect.isclass(handler) else type(handler).__call__


def _parameters(handler: Callable[..., object], name: str) -> list[inspect.Parameter]:
    """The parameters that are to be filled, by position."""
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError) as error:
        raise TypeError(f"the parameters of {name} cannot be found out: wrap it in a function") from error
    filled: list[inspect.Parameter] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise TypeError(f"{name} has the keyword-only parameter {parameter.name}: give it a default")
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.default is parameter.empty:
                filled.append(parameter)
        elif parameter.kind is parameter.VAR_POSITIONAL and not filled and parameters[0] is parameter:
            return [parameter.replace(annotation=parameter.empty)]
    return filled


def _hints(target: Any, annotated: list[str], name: str) -> dict[str, Any]:
    """The annotations of these parameters. What others name, such as the return's, need not be there at run time."""
    if inspect.isclass(target):
        target = target.__init__
    try:
        wanted = {key: value for key, value in getattr(target, "__annotations__", {}).items() if key in annotated}
        while hasattr(target, "__wrapped__"):
            target = target.__wrapped__
        asked = SimpleNamespace(
            __annotations__=wanted,
            __globals__=getattr(target, "__globals__", {}),
            __type_params__=getattr(target, "__type_params__", ()),
        )
        return typing.get_type_hints(asked, include_extras=True)
    except Exception as error:
        raise TypeError(
            f"the annotations of {name} cannot be resolved: {error}; what they name has to be in the module at run time"
        ) from error


def _check_model(hint: Any, name: str, parameter: str) -> None:
    def known(kind: Any, value: object) -> object:
        if hasattr(kind, "model_validate"):
            return value
        raise NotImplementedError("it is no dataclass, msgspec.Struct, pydantic model, TypedDict or plain type")

    try:
        with suppress(msgspec.ValidationError):
            msgspec.json.Decoder(hint, dec_hook=known).decode(b"null")
    except Exception as error:
        raise TypeError(f"{name}: the data cannot be had as {parameter}: {name_of(hint)}: {error}") from error
