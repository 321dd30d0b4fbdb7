"""What the tests of tasks share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from scripted import SOON, Scripted

from cloudevents_bridge.aio import AsyncWorker
from cloudevents_bridge.stats import Stats

T = TypeVar("T")
LONG = 30.0
PROMPT = 5.0
"""Seconds within which something that is to be prompt has happened, on a busy machine too."""


async def until(true: Callable[[], Any]) -> None:
    """Wait for it, not for long."""
    async with asyncio.timeout(SOON):
        while not true():
            await asyncio.sleep(0.001)


async def promptly(awaitable: Awaitable[T]) -> T:
    """The result, which has to be there at once."""
    async with asyncio.timeout(PROMPT):
        return await awaitable


async def cancelled(work: Coroutine[Any, Any, object], when: Callable[[], Any]) -> None:
    """Begin the work, cancel it at that time, and see that it ends at once."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)  # what is cancelled before it has begun does nothing at all
    await until(when)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=PROMPT)
    assert done, "it did not end"
    assert task.cancelled()


async def work_off(worker: AsyncWorker, scripted: Scripted) -> Stats:
    """Have it work until all that there was is settled: how long it was idle says little on a busy machine."""
    async with worker:
        await until(scripted.settled)
    return worker.stats


def threads(kind: str = "ceb-") -> list[str]:
    """The names of the library's threads."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(kind))


class Gate:
    """Holds back what the broker answers, until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.waiting = 0
        self._lock = threading.Lock()

    def pass_through(self) -> None:
        with self._lock:
            self.waiting += 1
        assert self.open.wait(LONG)
        with self._lock:
            self.waiting -= 1

    def hold_sends(self, scripted: Scripted) -> Gate:
        answer = scripted.on_send

        def held(sent: Any, timeout: float) -> Any:
            self.pass_through()
            return answer(sent, timeout)

        scripted.on_send = held
        return self

    def hold_settles(self, scripted: Scripted, *verbs: str) -> Gate:
        scripted.on_settle = lambda settled: self.pass_through() if settled.verb in verbs else None
        return self
