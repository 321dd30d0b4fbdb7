"""Where `async def` handlers run: on an event loop in a thread of its own, or on the caller's."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

Ended = Callable[["BaseException | None"], None]


class Home(NamedTuple):
    """An event loop of the caller's. `ends`: whether it is about to end, and cancels its tasks."""

    loop: asyncio.AbstractEventLoop
    ends: Callable[[], bool]


class Task:
    """A coroutine under way on the loop. Any thread may cancel it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, running: set[asyncio.Task[Any]]) -> None:
        self._loop = loop
        self._running = running
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)

    def stack(self) -> str:
        """Where it waits, as lines of text."""
        waits: Any = None if self._task is None else self._task.get_coro()
        frames: list[tuple[FrameType, int]] = []
        while (frame := getattr(waits, "cr_frame", None)) is not None:
            frames.append((frame, frame.f_lineno))
            waits = waits.cr_await
        return "".join(traceback.StackSummary.extract(frames).format())

    def _begin(self, coroutine: Coroutine[Any, Any, object], context: contextvars.Context, ended: Ended) -> None:
        self._task = self._loop.create_task(coroutine, context=context)
        self._running.add(self._task)

        def finish(task: asyncio.Task[Any]) -> None:
            self._running.discard(task)
            ended(asyncio.CancelledError() if task.cancelled() else task.exception())

        self._task.add_done_callback(finish)
        if self._cancelled:
            self._task.cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Loop:
    """An event loop that handlers run on. Without one of the caller's, it starts its own at first use.

    Args:
        lost: told when the caller's ends, before what it has cancelled is told of.
    """

    def __init__(self, home: Home | None = None, lost: Callable[[], None] = lambda: None) -> None:
        self._home = home
        self._lost = lost
        self._running: set[asyncio.Task[Any]] = set()
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self, coroutine: Coroutine[Any, Any, object], context: contextvars.Context, ended: Ended) -> Task:
        """Run a coroutine; `ended` is called on the loop with what it raised, or None."""
        loop = self._get()
        task = Task(loop, self._running)

        def told(error: BaseException | None) -> None:
            if isinstance(error, asyncio.CancelledError) and self._home is not None and self._home.ends():
                self._lost()
            ended(error)

        try:
            loop.call_soon_threadsafe(task._begin, coroutine, context, told)
        except RuntimeError:  # the caller's loop was closed under us
            coroutine.close()
            self._lost()
            ended(asyncio.CancelledError())
        return task

    @property
    def here(self) -> bool:
        """Whether a handler that runs on it is what runs in this thread now."""
        try:
            return asyncio.current_task() in self._running
        except RuntimeError:
            return False

    def close(self, timeout: float) -> None:
        """End the loop, if it is our own: what still runs on it is cancelled."""
        with self._lock:
            loop, thread, self._own, self._thread = self._own, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(_cancel_all, loop)
            thread.join(timeout)

    def _get(self) -> asyncio.AbstractEventLoop:
        if self._home is not None:
            return self._home.loop
        with self._lock:
            if self._own is None:
                self._own = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._own,), name="ceb-loop", daemon=True)
                self._thread.start()
            return self._own


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    gathered = asyncio.gather(*tasks, return_exceptions=True)
    gathered.add_done_callback(lambda _: loop.stop())
