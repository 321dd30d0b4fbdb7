"""Consuming by hand, in a task: receive, iterate, and settle each delivery yourself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from functools import partial

from cloudevents_bridge import clock
from cloudevents_bridge.aio.closing import AsyncClosing
from cloudevents_bridge.aio.delivery import AsyncDelivery
from cloudevents_bridge.aio.loops import Bell
from cloudevents_bridge.aio.shell import Shell
from cloudevents_bridge.delivery import Delivery
from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge.fetcher import Fetcher
from cloudevents_bridge.subscriber import ITERATION_WAIT, Subscriber, checked


class AsyncSubscriber(AsyncClosing):
    """A `Subscriber` for asyncio. Made by `AsyncBroker.subscriber`; tasks of any event loop may use it.

    It has the threads of a `Subscriber`, and a task that waits in `receive` takes none. When such a task is cancelled
    it goes on at once; what comes for it belongs to the next `receive`, or is given back half a second later.
    """

    topic: str
    subscription: str

    def __init__(self, shell: Shell, subscriber: Subscriber) -> None:
        super().__init__(shell, shell.calls, lambda timeout: subscriber.close(timeout=timeout))
        self.topic = subscriber.topic
        self.subscription = subscriber.subscription
        self._shell = shell
        self._subscriber = subscriber

    async def receive(self, max_events: int = 10, *, wait: float = 20.0) -> list[AsyncDelivery]:
        """`Subscriber.receive`: up to `max_events` deliveries, as soon as there is one; an empty list after `wait`
        seconds without any.
        """
        return await self._take(self._subscriber._open(), *checked(max_events, wait), batch=True)

    async def ack_many(self, deliveries: Iterable[AsyncDelivery]) -> None:
        """`Subscriber.ack_many`: ack deliveries of this subscriber in native batches.

        Raises:
            SettleError: if some could not be acked; `.failed` has the `sync` of each with its error.
        """
        ours = [delivery.sync for delivery in deliveries]
        await self._shell.run(self._shell.settles, partial(self._subscriber.ack_many, ours), to_the_end=True)

    async def __aiter__(self) -> AsyncIterator[AsyncDelivery]:
        """Deliveries one by one, for ever: it ends on `close`. The lease of the one in hand is extended."""
        while not self.closed:
            try:
                fetcher = self._subscriber._open()
                received = await self._take(fetcher, 1, ITERATION_WAIT, batch=False)
            except ClosedError:
                if self._subscriber.closed:
                    return
                raise
            for delivery in received:
                fetcher.keeper.keep(delivery.sync)
                try:
                    yield delivery
                finally:
                    fetcher.keeper.drop(delivery.sync)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._subscriber.closed

    async def _take(self, fetcher: Fetcher, most: int, wait: float, *, batch: bool) -> list[AsyncDelivery]:
        telemetry = self._subscriber._opener.config.telemetry
        if telemetry is None:
            received = await self._wait(fetcher, most, wait)
        else:
            with telemetry.receiving(self._subscriber._of, batch=batch) as received:
                received.extend(await self._wait(fetcher, most, wait))
        return [AsyncDelivery(self._shell, delivery) for delivery in received]

    async def _wait(self, fetcher: Fetcher, most: int, wait: float) -> list[Delivery]:
        bell = Bell(self._shell.mailbox())
        waiting = fetcher.enter(most, wait, bell.ring)
        try:
            while (taken := fetcher.poll(waiting)) is None:
                await bell.wait(waiting.give_up - clock.now())
            return taken
        finally:
            fetcher.leave(waiting)
