"""Where an event loop has blocking calls made, and how its tasks wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar

from cloudevents_bridge import clock
from cloudevents_bridge.aio.loops import Mailbox
from cloudevents_bridge.aio.threads import Pool, Runner
from cloudevents_bridge.delivery import log
from cloudevents_bridge.errors import BridgeError, DeadlineExceededError
from cloudevents_bridge.session import Closing

T = TypeVar("T")
SENDS = 8
"""Threads that publish, at most."""
SETTLES = 4
"""Threads that settle, at most. They do nothing else: no poll and no publish keeps an ack waiting."""
CALLS = 4
"""Threads for the rest, at most: flush, ping, dead letters, topology, and closing publishers and subscribers."""


class Call(Generic[T]):
    """One call that blocks, made in a thread; `future` is its result in the event loop."""

    def __init__(self, mailbox: Mailbox, function: Callable[[], T]) -> None:
        self.future: asyncio.Future[T] = mailbox.loop.create_future()
        self._mailbox = mailbox
        self._function = function
        self._context = copy_context()

    def __call__(self) -> None:
        self._tell(self._make())

    def _make(self) -> Callable[[], None]:
        try:
            result = self._context.run(self._function)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            return partial(self._fail, error)
        return partial(self._succeed, result)

    def _tell(self, answer: Callable[[], None]) -> None:
        if not self._mailbox.post(answer):
            answer()

    def _succeed(self, result: T) -> None:
        if self._awaited():
            self.future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if self._awaited():
            if isinstance(error, StopIteration):  # which no future takes
                error = RuntimeError(f"the call raised {error!r}")
            self.future.set_exception(error)
            del self.future  # it holds the error, whose traceback holds this call
        else:
            unexpected = None if isinstance(error, BridgeError) else error
            log.warning("a call that nobody waits for any more failed: %s", error, exc_info=unexpected)

    def _awaited(self) -> bool:
        return not (self.future.done() or self._mailbox.loop.is_closed())


class Shell(Closing):
    """The threads of one `AsyncBroker`. Tasks of any event loop may use it."""

    def __init__(self, broker: str) -> None:
        self.broker = broker
        self.sends = Pool("ceb-aio-send", SENDS)
        self.settles = Pool("ceb-aio-settle", SETTLES)
        self.calls = Pool("ceb-aio-call", CALLS)
        self.closing = Pool("ceb-aio-close", 1)
        self._mailbox: Mailbox | None = None

    def mailbox(self) -> Mailbox:
        """The way to the running loop.

        Raises:
            RuntimeError: if no loop is running in this thread.
        """
        loop = asyncio.get_running_loop()
        mailbox = self._mailbox
        if mailbox is None or mailbox.loop is not loop:
            mailbox = self._mailbox = Mailbox(loop)
        return mailbox

    async def run(self, runner: Runner, function: Callable[[], T], *, to_the_end: bool = False) -> T:
        """Make a call that blocks.

        If the task is cancelled this returns at once, and what runs goes on. A call that still waits for a thread is
        then not made, unless it is to be made `to_the_end`.
        """
        return await self._wait(runner, Call(self.mailbox(), function), to_the_end=to_the_end)

    async def run_within(self, timeout: float, runner: Runner, function: Callable[[float], T], doing: str) -> T:
        """`run` a call with a time-out; it is given the seconds that are left when a thread is free.

        Raises:
            DeadlineExceededError: if none was in time: then the call is not made.
        """
        deadline = clock.now() + timeout
        call = Call(self.mailbox(), lambda: function(max(deadline - clock.now(), 0.0)))
        timer = call.future.get_loop().call_later(timeout, self._give_up, runner, call, f"{doing} on {self.broker}")
        try:
            return await self._wait(runner, call)
        finally:
            timer.cancel()
            del call

    def begin(self, runner: Runner, function: Callable[[], object]) -> None:
        """Have a call made that nobody waits for."""
        call = Call(self.mailbox(), function)
        call.future.cancel()
        runner.submit(call)

    async def _wait(self, runner: Runner, call: Call[T], *, to_the_end: bool = False) -> T:
        future = call.future
        runner.submit(call)
        try:
            return await future
        except asyncio.CancelledError:
            if not to_the_end:
                runner.withdraw(call)
            raise
        finally:
            del call, future  # an error's traceback holds this frame

    def drain(self, deadline: float) -> None:
        """Wait in this thread for the calls that were begun, not longer than to the deadline."""
        for pool in (self.settles, self.sends, self.calls):
            pool.drain(deadline)

    def close(self, *, timeout: float = 0.0) -> None:
        """Keep no idle thread."""
        for pool in (self.settles, self.sends, self.calls, self.closing):
            pool.close()

    def _give_up(self, runner: Runner, call: Call[T], doing: str) -> None:
        if runner.withdraw(call):
            call.future.set_exception(
                DeadlineExceededError(
                    f"{doing} was not begun in time: no thread was free, since as many calls as there are threads wait "
                    "for the broker. Make fewer at once, or give them a shorter timeout",
                    retryable=True,
                    broker=self.broker,
                )
            )
