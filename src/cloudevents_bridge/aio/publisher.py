"""Publishing from a task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cloudevents_bridge.aio.closing import AsyncClosing
from cloudevents_bridge.aio.loops import Bell, followed
from cloudevents_bridge.aio.shell import Shell
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.outlet import Receipt
from cloudevents_bridge.publisher import Publisher

TURN = 64
"""Submits after which other tasks have a turn."""


class AsyncPublisher(AsyncClosing):
    """A `Publisher` for asyncio. Made by `AsyncBroker.publisher`; cheap enough to be made for each request. Tasks of
    any event loop may use it.

    Publishing takes place in a thread. A task that is cancelled meanwhile goes on at once, and does not know whether
    the events were published: what a thread has begun goes on to its end, what waits for a thread is not begun.
    """

    topic: str

    def __init__(self, shell: Shell, publisher: Publisher) -> None:
        super().__init__(shell, shell.calls, lambda timeout: publisher.close(timeout=timeout))
        self.topic = publisher.topic
        self._publisher = publisher
        self._doing = f"publish to topic {self.topic}"
        self._submits = 0

    async def publish(self, event: CloudEvent, *, delay: float = 0.0, timeout: float | None = None) -> Receipt:
        """`Publisher.publish`: publish one event and wait until the broker has accepted it."""
        return await self._shell.run_within(
            self._seconds(timeout),
            self._shell.sends,
            lambda left: self._publisher.publish(event, delay=delay, timeout=left),
            self._doing,
        )

    async def publish_many(
        self, events: Iterable[CloudEvent], *, delay: float = 0.0, timeout: float | None = None
    ) -> list[Receipt]:
        """`Publisher.publish_many`: publish events in native batches; the receipts are in the order of the events."""
        taken = list(events)
        return await self._shell.run_within(
            self._seconds(timeout),
            self._shell.sends,
            lambda left: self._publisher.publish_many(taken, delay=delay, timeout=left),
            self._doing,
        )

    async def submit(self, event: CloudEvent, *, delay: float = 0.0) -> asyncio.Future[Receipt]:
        """`Publisher.submit`: hand over one event to be batched and published in the background. Waits while the buffer
        is full.

        Returns:
            The future of its receipt. Cancelling it before it is sent takes the event back.
        """
        mailbox = self._shell.mailbox()
        self._submits += 1
        if not self._submits % TURN:
            await asyncio.sleep(0)
        bell = Bell(mailbox)
        while (future := self._publisher._submit(event, delay, bell.ring)) is None:
            await bell.wait()
        return followed(future, mailbox)

    async def flush(self, *, timeout: float = 30.0) -> None:
        """`Publisher.flush`: wait until everything submitted here so far is accepted or has failed."""
        await self._shell.run_within(
            timeout, self._shell.calls, lambda left: self._publisher.flush(timeout=left), f"flush of topic {self.topic}"
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._publisher.closed

    def _seconds(self, timeout: float | None) -> float:
        return self._publisher._line.opener.config.timeout if timeout is None else timeout
