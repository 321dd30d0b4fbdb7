"""Which handler takes which event type. A router knows no broker: workers, functions, endpoints and tests run it."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast

from cloudevents_bridge.delivery import Delivery, Reject, Retry
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.handlers import Pipeline, Runner, alone, fill, name_of, run_here

__all__ = ["Action", "Middleware", "Pipeline", "Router", "Runner", "pipeline"]

F = TypeVar("F", bound=Callable[..., object])
Action: TypeAlias = Literal["ack", "nack", "dead_letter"]
Middleware: TypeAlias = Callable[[Delivery, Callable[[Delivery], None]], None]

MAX_TYPES = 1000
"""Event types whose handler is remembered, per pipeline; none that is longer than `LONGEST_TYPE` characters."""
LONGEST_TYPE = 256
_registering = threading.Lock()  # one for all routers, since including ties them together


class _Route(NamedTuple):
    """A handler, and the middleware around it, outermost first."""

    name: str
    handle: Pipeline
    middleware: tuple[Middleware, ...]


class _Table:
    """The routes of a router at one time. It never changes."""

    def __init__(self, routes: dict[str, _Route]) -> None:
        self.routes = routes
        self._prefixes = sorted((each[:-1] for each in routes if each.endswith(".*")), key=len, reverse=True)

    def find(self, type: str) -> _Route | None:
        """The most specific route: exact, then the longest prefix, then any."""
        if (route := self.routes.get(type)) is not None:
            return route
        for prefix in self._prefixes:
            if type.startswith(prefix):
                return self.routes[prefix + "*"]
        return self.routes.get("*")


class Router:
    """Sends each event to the handler of its type.

    Handlers are functions, `def` or `async def`, whose parameters are filled by their annotations: `CloudEvent` or none
    gets the event, `Delivery` the delivery, anything else the data as that type. What they return is ignored. They
    raise `Retry` or `Reject` to say what becomes of the delivery; so does data that is not what they ask for, with
    `Reject`.

    Thread-safe. Handlers may be added at any time, and take events from then on.

    Args:
        middleware: functions `(delivery, call_next)` around every event, outermost first. Each calls
            `call_next(delivery)`, which returns when the handler is done, or leaves it. They see events that no handler
            takes, too.
        unmatched: what becomes of an event of a type that no handler takes: "dead_letter", "nack" or "ack".

    Raises:
        InvalidArgumentError: if `unmatched` is none of these.
        TypeError: if a middleware cannot be called, or is `async def`.
    """

    def __init__(self, *, middleware: Sequence[Middleware] = (), unmatched: Action = "dead_letter") -> None:
        if unmatched not in ("ack", "nack", "dead_letter"):
            raise InvalidArgumentError(f"unmatched is {unmatched!r}: it must be 'dead_letter', 'nack' or 'ack'")
        self._middleware = tuple(_checked(each) for each in middleware)
        self._unmatched = unmatched
        self._table = _Table({})
        self._included: list[Router] = []
        self._parents: list[Router] = []
        self._here = _Dispatch(self, run_here)

    def on(self, type: str, /, *types: str) -> Callable[[F], F]:
        """Decorate the handler of event types: exact ones, `prefix.*`, or `*` for any. The most specific wins: the
        exact type, then the longest prefix, then `*`.

        Returns:
            A decorator that returns the function unchanged.

        Raises:
            InvalidArgumentError: for a pattern that is none of these, or that has a handler already, in this router or
                in one that includes it.
            TypeError: at the decoration, if a parameter of the handler cannot be filled.
        """
        patterns = [_pattern(each) for each in dict.fromkeys((type, *types))]

        def register(handler: F) -> F:
            route = _Route(name_of(handler), fill(handler), self._middleware)
            with _registering:
                self._add(dict.fromkeys(patterns, route))
            return handler

        return register

    def include(self, other: Router) -> None:
        """Take the handlers of another router too, those added to it later as well. Its middleware stays around its
        handlers, inside of this router's; its `unmatched` does not count.

        Raises:
            InvalidArgumentError: if both have a handler for the same pattern, or one is in the other already.
        """
        if not isinstance(other, Router):
            raise TypeError(f"include takes a Router, not a {other.__class__.__name__}")
        with _registering:
            tree = {router for top in self._above() for router in top._below()}
            if not tree.isdisjoint(other._below()):
                raise InvalidArgumentError(f"{other!r} is included here already, or holds this one: include it once")
            self._add({pattern: self._around(route) for pattern, route in other._table.routes.items()})
            self._included.append(other)
            other._parents.append(self)

    def handle(self, item: CloudEvent | Delivery) -> None:
        """Handle an event here and now; what the handler raises comes out. A delivery is not settled: the caller does.

        An `async def` handler is run on an event loop of its own, which a thread cannot do whose event loop is running:
        there, use `await asyncio.to_thread(router.handle, event)`.

        Args:
            item: with an event alone, a delivery of no topic is made for the middleware.

        Raises:
            Reject: if the data is not what the handler asks for, or no handler takes the type and `unmatched` is
                "dead_letter".
            Retry: if no handler takes the type and `unmatched` is "nack".
            BridgeError: FAILED_PRECONDITION if the handler asks for the delivery and there is none, or if it is async
                and this thread's event loop is running.
        """
        if isinstance(item, CloudEvent):
            item = alone(item)
        elif not isinstance(item, Delivery):
            raise TypeError(f"handle takes a CloudEvent or a Delivery, not a {item.__class__.__name__}")
        result = self._here(item)
        if result is not None:
            run_here(cast("Coroutine[Any, Any, object]", result))

    def _only_starts(self) -> bool:
        """Whether calling a handler never takes a thread: all are `async def`, without middleware around them."""
        routes = self._table.routes.values()
        return all(inspect.iscoroutinefunction(each.handle) and not each.middleware for each in routes)

    def __repr__(self) -> str:
        return f"<Router of {', '.join(sorted(self._table.routes)) or 'nothing yet'}>"

    def _add(self, routes: dict[str, _Route]) -> None:
        """Add routes here and wherever this router is included, or nowhere."""
        added = list(self._added(routes))
        for router, _ in added:
            for pattern, route in routes.items():
                if (other := router._table.routes.get(pattern)) is not None:
                    raise InvalidArgumentError(
                        f"{pattern!r} has two handlers, {other.name} and {route.name}: a router sends a type to one"
                    )
        for router, more in added:
            router._table = _Table({**router._table.routes, **more})

    def _added(self, routes: dict[str, _Route]) -> Iterable[tuple[Router, dict[str, _Route]]]:
        """Each router that gets the routes, as it gets them."""
        yield self, routes
        for parent in self._parents:
            yield from parent._added({pattern: parent._around(route) for pattern, route in routes.items()})

    def _around(self, route: _Route) -> _Route:
        return route._replace(middleware=self._middleware + route.middleware)

    def _below(self) -> Iterable[Router]:
        yield self
        for router in self._included:
            yield from router._below()

    def _above(self) -> Iterable[Router]:
        yield self
        for router in self._parents:
            yield from router._above()

    def _no_handler(self, delivery: Delivery) -> None:
        if self._unmatched == "ack":
            return
        reason = f"no handler takes the type {delivery.event.type!r}"
        if self._unmatched == "nack":
            raise Retry(reason=reason)
        raise Reject(reason)


class _Dispatch:
    """A router as a function of a delivery, with one way of running coroutines under middleware."""

    __slots__ = ("_known", "_router", "_run")

    def __init__(self, router: Router, run: Runner) -> None:
        self._router = router
        self._run = run
        self._known: tuple[_Table, dict[str, Pipeline]] = (router._table, {})

    def __call__(self, delivery: Delivery) -> object:
        type = delivery.event._state.members.type
        table, known = self._known
        if table is self._router._table and (call := known.get(type)) is not None:
            return call(delivery)
        return self._find(type)(delivery)

    def _find(self, type: str) -> Pipeline:
        table, known = self._known
        if table is not self._router._table:
            table, known = self._known = self._router._table, {}
        route = table.find(type)
        if route is None:
            route = _Route("", self._router._no_handler, self._router._middleware)
        call = _composed(route, self._run)
        if len(type) <= LONGEST_TYPE:
            if len(known) >= MAX_TYPES:
                known.clear()
            known[type] = call
        return call


def pipeline(handler: Router | Callable[..., object], run: Runner) -> Pipeline:
    """A router, or a handler by itself, as a function of a delivery.

    Args:
        run: runs a coroutine to its end, for middleware that waits for an `async def` handler. One that no middleware
            is around is returned as its coroutine instead.

    Raises:
        TypeError: if a parameter of the handler cannot be filled.
    """
    return _Dispatch(handler, run) if isinstance(handler, Router) else fill(handler)


def _composed(route: _Route, run: Runner) -> Pipeline:
    if not route.middleware:
        return route.handle

    def innermost(delivery: Delivery) -> None:
        result = route.handle(delivery)
        if isinstance(result, Coroutine):
            run(result)

    call: Callable[[Delivery], None] = innermost
    for middleware in reversed(route.middleware):
        call = _inside(middleware, call)
    return call


def _inside(middleware: Middleware, call_next: Callable[[Delivery], None]) -> Callable[[Delivery], None]:
    def call(delivery: Delivery) -> None:
        result: object = middleware(delivery, call_next)  # type: ignore[func-returns-value]
        if isinstance(result, Coroutine):
            result.close()
            raise TypeError(f"the middleware {name_of(middleware)} gave a coroutine, which nobody would run: use `def`")

    return call


def _checked(middleware: Any) -> Middleware:
    if not callable(middleware):
        raise TypeError(f"the middleware {middleware!r} cannot be called: give functions (delivery, call_next)")
    if inspect.iscoroutinefunction(middleware) or inspect.iscoroutinefunction(type(middleware).__call__):
        raise TypeError(
            f"the middleware {name_of(middleware)} is `async def`: use `def`, also around async handlers: call_next "
            "returns when they are done"
        )
    checked: Middleware = middleware
    return checked


def _pattern(pattern: object) -> str:
    if not isinstance(pattern, str):
        raise TypeError(f'on takes event types, not {pattern!r}: write @router.on("com.example.order.created")')
    stem = pattern.removesuffix("*")
    if not pattern or "*" in stem or (stem != pattern and stem and not stem.endswith(".")) or stem == ".":
        raise InvalidArgumentError(
            f"{pattern!r} is no pattern of event types: give a type, a prefix as 'com.example.*', or '*' for any"
        )
    return pattern
