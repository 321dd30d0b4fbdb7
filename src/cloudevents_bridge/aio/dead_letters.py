"""The dead letters of a subscription, for a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from datetime import datetime
from functools import partial
from typing import TypeVar, cast

from cloudevents_bridge.aio.shell import Shell
from cloudevents_bridge.aio.threads import Serial
from cloudevents_bridge.dead_letters import DeadLetter, DeadLetters, several
from cloudevents_bridge.outlet import Receipt

T = TypeVar("T")


class AsyncDeadLetters:
    """`DeadLetters` for asyncio. Made by `AsyncBroker.dead_letters`; several tasks may use it, and take turns."""

    def __init__(self, shell: Shell, letters: DeadLetters) -> None:
        self._shell = shell
        self._letters = letters
        self._turns = Serial(shell.calls)

    async def find(
        self,
        *,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[DeadLetter]:
        """`DeadLetters.find`: the letters, oldest first where the broker keeps an order."""
        found = self._letters.find(type=type, reason=reason, since=since, limit=limit)
        listing = cast("Generator[DeadLetter, None, None]", found)
        try:
            while (letter := await self._run(partial(next, listing, None))) is not None:
                yield letter
        except asyncio.CancelledError:
            self._shell.begin(self._turns, listing.close)  # after the step that is under way, for which nobody waits
            raise
        except BaseException:
            await self._run(listing.close, to_the_end=True)
            raise

    async def replay(
        self,
        letters: Iterable[DeadLetter | str] | AsyncIterable[DeadLetter | str],
        *,
        topic: str | None = None,
        rate: float | None = None,
    ) -> list[Receipt]:
        """`DeadLetters.replay`: publish letters again, to this subscription only; each one goes after its receipt. If
        the task is cancelled it ends with the letter in hand.
        """
        wanted = await _listed(letters)
        stop = threading.Event()
        try:
            return await self._run(lambda: self._letters._replay(wanted, topic, rate, stop))
        except asyncio.CancelledError:
            stop.set()
            raise

    async def purge(self, letters: Iterable[DeadLetter | str] | AsyncIterable[DeadLetter | str]) -> int:
        """`DeadLetters.purge`: delete letters for good."""
        wanted = await _listed(letters)
        return await self._run(lambda: self._letters.purge(wanted))

    async def _run(self, function: Callable[[], T], *, to_the_end: bool = False) -> T:
        return await self._shell.run(self._turns, function, to_the_end=to_the_end)


async def _listed(letters: Iterable[DeadLetter | str] | AsyncIterable[DeadLetter | str]) -> list[DeadLetter | str]:
    if isinstance(letters, AsyncIterable):
        return [letter async for letter in letters]
    return several(letters)
