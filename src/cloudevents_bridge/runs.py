"""Calling a handler: in the thread that asks, or on an event loop."""

from __future__ import annotations

import contextvars
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from cloudevents_bridge.core.lanes import Entry
from cloudevents_bridge.delivery import Delivery
from cloudevents_bridge.handlers import Runner

if TYPE_CHECKING:
    from cloudevents_bridge.loops import Loop, Task

Program: TypeAlias = Callable[[list[Delivery]], object]
"""Runs a handler for deliveries. A coroutine that it returns is still to be run."""


class Run(Struct, eq=False):
    """One call of a handler.

    Attributes:
        started: on our clock.
        thread: where it runs; None while it is on the event loop.
        task: its coroutine.
        stalled: it was reported for taking long.
        error: what the handler raised.
    """

    entries: list[Entry]
    started: float
    thread: int | None = None
    task: Task | None = None
    stalled: bool = False
    error: BaseException | None = None

    def stack(self) -> str:
        """Where it is now, as lines of text."""
        if self.task is not None:
            return self.task.stack()
        frame = None if self.thread is None else sys._current_frames().get(self.thread)
        return "".join(traceback.format_stack(frame)) if frame is not None else "its place is not known\n"

    def cancel(self) -> None:
        """Cancel it, if it is a coroutine."""
        if self.task is not None:
            self.task.cancel()


class Caller:
    """Calls one handler.

    Args:
        make: gives the program. Its argument runs a coroutine to its end, for whoever waits for it.
        loop: gives the event loop, which only coroutines need.
    """

    def __init__(self, make: Callable[[Runner], Program], loop: Callable[[], Loop]) -> None:
        self._program = make(self._wait_for)
        self._loop = loop
        self._context = contextvars.copy_context()
        self._here: dict[int, Run] = {}

    def call(self, run: Run, ended: Callable[[Run], None]) -> bool:
        """Call the handler. False: what it does goes on, and `ended` is called on the event loop when it is over."""
        run.thread = thread = threading.get_ident()
        self._here[thread] = run
        result: object = None
        context = self._context.copy()
        try:
            result = context.run(self._program, [entry.delivery for entry in run.entries])
        except BaseException as raised:  # noqa: BLE001 - whatever a handler raises is its outcome
            run.error = raised
        finally:
            del self._here[thread]
        if result is None or not isinstance(result, Coroutine):
            return True

        def over(error: BaseException | None) -> None:
            run.error = error
            ended(run)

        run.thread = None
        run.task = self._loop().start(result, context, over)
        return False

    def _wait_for(self, coroutine: Coroutine[Any, Any, object]) -> object:
        over: Future[None] = Future()

        def ended(error: BaseException | None) -> None:
            if error is None:
                over.set_result(None)
            else:
                over.set_exception(error)

        task = self._loop().start(coroutine, contextvars.copy_context(), ended)
        run = self._here.get(threading.get_ident())
        if run is not None:
            run.task = task
        try:
            return over.result()
        finally:
            if run is not None:
                run.task = None
