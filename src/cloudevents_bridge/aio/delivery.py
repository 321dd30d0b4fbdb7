"""One delivery, settled by a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cloudevents_bridge.aio.shell import Shell
from cloudevents_bridge.delivery import Delivery
from cloudevents_bridge.event import CloudEvent


class AsyncDelivery:
    """One attempt to hand one event to one consumer: a `Delivery` for asyncio. `async with` gives the event, acks when
    the block ends well and gives the delivery back, with back-off, when it raises. When the task is cancelled in the
    block, the delivery goes back at once and is no failure.

    Settling takes place in a thread. A task that is cancelled while it settles goes on at once, and the settle is made
    all the same.

    Attributes:
        event: the event.
        attempt: 1 for the first delivery; an upper bound.
        native: the SDK's own object.
        sync: the delivery, for code that runs in a thread.
    """

    __slots__ = ("__weakref__", "_shell", "attempt", "event", "sync")

    def __init__(self, shell: Shell, delivery: Delivery) -> None:
        self._shell = shell
        self.sync = delivery
        self.event = delivery.event
        self.attempt = delivery.attempt

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self.sync.topic

    @property
    def subscription(self) -> str:
        """The subscription's name."""
        return self.sync.subscription

    @property
    def native(self) -> Any:
        return self.sync.native

    @property
    def lease_lost(self) -> bool:
        """Whether other consumers may have it by now. False once it is settled."""
        return self.sync.lease_lost

    async def ack(self) -> None:
        """`Delivery.ack`: it is done, never deliver it again."""
        await self._settle(self.sync.ack)

    async def nack(self, *, delay: float | None = None) -> None:
        """`Delivery.nack`: it failed; give it back, to be delivered again after `delay` seconds."""
        await self._settle(partial(self.sync.nack, delay=delay))

    async def dead_letter(self, reason: str) -> None:
        """`Delivery.dead_letter`: move it to the subscription's dead letters."""
        await self._settle(partial(self.sync.dead_letter, reason))

    async def extend(self, seconds: float) -> None:
        """`Delivery.extend`: keep the lease for `seconds` from now."""
        await self._settle(partial(self.sync.extend, seconds))

    async def give_back(self) -> None:
        """`Delivery.give_back`: give it back at once without calling it a failure."""
        await self._settle(self.sync.give_back)

    async def __aenter__(self) -> CloudEvent:
        return self.event

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.sync._word is None:
            await self._settle(partial(self.sync.__exit__, kind, error, trace))

    def __repr__(self) -> str:
        return f"<Async{repr(self.sync)[1:]}"

    async def _settle(self, settle: Callable[[], None]) -> None:
        await self._shell.run(self._shell.settles, settle, to_the_end=True)
