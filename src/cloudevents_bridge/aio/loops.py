"""What threads have to say to an event loop, and how a task waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Mailbox:
    """Brings calls from threads to an event loop, with one wake-up for all that come together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._calls: list[Callable[[], object]] = []

    def post(self, call: Callable[[], object]) -> bool:
        """Have the loop make a call, which raises nothing. False: the loop is closed."""
        with self._lock:
            self._calls.append(call)
            if len(self._calls) > 1 and not self.loop.is_closed():
                return True
        try:
            self.loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            with self._lock:
                self._calls.clear()
            return False
        return True

    def _empty(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, []
        for call in calls:
            call()


class Bell:
    """What one task waits for, rung by threads."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._rung = False
        self._future: asyncio.Future[None] | None = None

    def ring(self) -> bool:
        """End the wait, or the next one. False: the task's loop is closed."""
        return self._mailbox.post(self._ring)

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until it was rung since the last wait, for so many seconds at most."""
        loop = self._mailbox.loop
        if not self._rung:
            self._future = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, self._ring)
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        self._rung = False

    def _ring(self) -> None:
        self._rung = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


async def ended(future: Future[None], mailbox: Mailbox, seconds: float | None = None) -> bool:
    """Wait for a future of a thread, for so many seconds at most, without cancelling it. False: it is not done."""
    bell = Bell(mailbox)
    future.add_done_callback(lambda _: bell.ring())
    if not future.done():
        await bell.wait(seconds)
    return future.done()


def followed(future: Future[T], mailbox: Mailbox) -> asyncio.Future[T]:
    """A future of the loop that ends as that of a thread does. Cancelling it cancels that one.

    An error that is never looked at is not complained of: whoever flushes or closes is told.
    """
    mine: asyncio.Future[T] = mailbox.loop.create_future()

    def end() -> None:
        if mine.done():
            return
        if future.cancelled():
            mine.cancel()
        elif error := future.exception():
            mine.set_exception(error)
            mine.exception()
        else:
            mine.set_result(future.result())

    future.add_done_callback(lambda _: mailbox.post(end))
    mine.add_done_callback(lambda _: mine.cancelled() and future.cancel())
    return mine
