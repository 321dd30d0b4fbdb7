"""The worker, for tasks: `async def` handlers run on the caller's event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Self

from cloudevents_bridge.aio.loops import Mailbox, ended
from cloudevents_bridge.aio.shell import Shell
from cloudevents_bridge.loops import Home
from cloudevents_bridge.router import Router
from cloudevents_bridge.stats import Stats
from cloudevents_bridge.subscriber import Decoder
from cloudevents_bridge.worker import LISTEN, Worker


class AsyncWorker:
    """A `Worker` for asyncio. Made by `AsyncBroker.worker`.

    `async def` handlers run as tasks on the event loop on which the worker was started, `def` handlers in threads.
    Losing the lease cancels an async handler. Handlers take what those of a `Worker` take: a `Delivery` is settled by
    what the handler raises, or in a thread, as by `await asyncio.to_thread(delivery.nack)`.

    `await worker.run()` works until it is stopped; `async with worker:`, or `start` and `close`, beside other tasks.
    When the loop ends before the worker, the worker stops; what the end of the loop has cancelled has not failed.
    """

    def __init__(self, shell: Shell, worker: Worker) -> None:
        self._shell = shell
        self._worker = worker
        self._over: Future[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    def add(
        self,
        topic: str,
        subscription: str,
        handler: Router | Callable[..., object],
        *,
        concurrency: int = 1,
        batch: int | None = None,
        foreign: Sequence[Decoder] = (),
        max_lease: float = 3600.0,
        dead_letters: bool = False,
    ) -> Self:
        """`Worker.add`: have a handler called for the events of a subscription."""
        self._worker.add(
            topic,
            subscription,
            handler,
            concurrency=concurrency,
            batch=batch,
            foreign=foreign,
            max_lease=max_lease,
            dead_letters=dead_letters,
        )
        return self

    async def run(self, *, until_idle: float | None = None, signals: bool = True) -> Stats:
        """`Worker.run`: work until `stop`, a signal, or nothing has come for `until_idle` seconds.

        A task that is cancelled here stops the worker, and waits until it has ended, within its grace period.

        Args:
            signals: SIGTERM and SIGINT stop it, where the loop runs in the main thread. False under a server that
                handles them, such as uvicorn.
        """
        over, mailbox = self._begin(until_idle)
        with self._worker._listening(signals), _awake(mailbox.loop):
            await self._end(over, mailbox)
        self._worker._raise()
        return self._worker.stats

    def start(self) -> None:
        """`Worker.start`: work beside other tasks of the running loop, until `stop` or `close`. It is no coroutine.

        Raises:
            RuntimeError: if no loop is running in this thread.
        """
        self._begin(None)
        self._worker._beside = True

    def stop(self, *, grace: float | None = None) -> None:
        """`Worker.stop`: fetch no more, let handlers end within `grace` seconds, and give the rest back. It is no
        coroutine: it returns at once, in any thread and in handlers; `run` or `close` wait for the end.
        """
        self._worker.stop(grace=grace)

    async def close(self, *, timeout: float = 30.0) -> None:
        """`Worker.close`: stop, wait for the end, within `timeout` seconds, and work no more. If the task is cancelled
        it goes on. A handler that closes does not wait.
        """
        mailbox = self._shell.mailbox()
        first, wait = self._worker._stop_for_good(timeout)
        if wait and self._over is not None:
            await ended(self._over, mailbox, timeout)
        if first:
            self._worker._raise()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._worker.closed

    @property
    def stats(self) -> Stats:
        """What it did so far, and does now."""
        return self._worker.stats

    def _begin(self, until_idle: float | None) -> tuple[Future[None], Mailbox]:
        mailbox = self._shell.mailbox()
        over: Future[None] = Future()
        watch: asyncio.Task[None] | None = None

        def ends() -> bool:
            """Whether the loop, as it does before it ends, cancels all its tasks."""
            return watch is not None and (watch.cancelling() > 0 or mailbox.loop.is_closed())

        self._worker._begin(until_idle, Home(mailbox.loop, ends))
        self._over = over
        self._watch = watch = mailbox.loop.create_task(self._end(over, mailbox), name="ceb-worker")

        def work() -> None:
            try:
                self._worker._work(until_idle)
            finally:
                over.set_result(None)

        threading.Thread(target=work, name="ceb-worker", daemon=True).start()
        return over, mailbox

    async def _end(self, over: Future[None], mailbox: Mailbox) -> None:
        """Wait for the end. Being cancelled stops the worker, and is raised when it has ended."""
        cancelled: asyncio.CancelledError | None = None
        while not over.done():
            try:
                await ended(over, mailbox)
            except asyncio.CancelledError as error:
                cancelled = error
                self._worker._stop_this_run()
        if cancelled is not None:
            raise cancelled


@contextmanager
def _awake(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let the loop look up now and then: a signal that came just before it began to wait does not wake it."""
    turn: asyncio.TimerHandle

    def look_up() -> None:
        nonlocal turn
        turn = loop.call_later(LISTEN, look_up)

    look_up()
    try:
        yield
    finally:
        turn.cancel()
