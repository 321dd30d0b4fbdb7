"""Closing from a task: once, and to the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Self

from cloudevents_bridge import clock
from cloudevents_bridge.aio.loops import ended
from cloudevents_bridge.aio.shell import Shell
from cloudevents_bridge.aio.threads import Pool
from cloudevents_bridge.delivery import log


class AsyncClosing:
    """What is closed when its `async with` block ends. `close` gets the seconds it has; it is called in a thread."""

    def __init__(self, shell: Shell, pool: Pool, close: Callable[[float], None]) -> None:
        self._shell = shell
        self._pool = pool
        self._close = close
        self._ending: tuple[int, Future[None]] | None = None
        self._errors: list[BaseException] = []

    async def close(self, *, timeout: float = 30.0) -> None:
        """End it, within about `timeout` seconds. Closing twice is harmless. If the task is cancelled it goes on; who
        closes again waits for its end.

        Raises:
            BridgeError: what closing failed with, once.
        """
        mailbox = self._shell.mailbox()
        if self._ending is None or self._ending[0] != os.getpid():  # what a parent began does not go on after a fork
            self._ending = os.getpid(), Future()
            self._pool.submit(partial(self._work, self._ending[1], clock.now() + timeout))
        over = self._ending[1]
        try:
            await ended(over, mailbox)
        except asyncio.CancelledError:
            over.add_done_callback(lambda _: self._complain())
            raise
        if self._errors:
            raise self._errors.pop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _work(self, over: Future[None], deadline: float) -> None:
        try:
            self._close(max(deadline - clock.now(), 0.0))
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            self._errors.append(error)
        over.set_result(None)

    def _complain(self) -> None:
        for error in self._errors:
            log.warning("closing, which went on after it was cancelled, failed: %s", error)
