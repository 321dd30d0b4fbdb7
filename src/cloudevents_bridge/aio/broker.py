"""The broker, for tasks: the connection that `aio.connect` returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, Literal

from cloudevents_bridge import broker, clock
from cloudevents_bridge.aio.closing import AsyncClosing
from cloudevents_bridge.aio.dead_letters import AsyncDeadLetters
from cloudevents_bridge.aio.publisher import AsyncPublisher
from cloudevents_bridge.aio.shell import Shell
from cloudevents_bridge.aio.subscriber import AsyncSubscriber
from cloudevents_bridge.aio.topology import AsyncTopology
from cloudevents_bridge.aio.worker import AsyncWorker
from cloudevents_bridge.broker import Broker
from cloudevents_bridge.driver import Capability
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.outlet import Receipt
from cloudevents_bridge.subscriber import Decoder
from cloudevents_bridge.topics import RetryPolicy, Topic


def connect(
    url: str | None = None,
    *,
    profile: str | None = None,
    config: str | PathLike[str] | None = None,
    topics: Iterable[Topic] = (),
    requires: Iterable[Capability | str] = (),
    create_missing: bool | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    telemetry: bool | None = None,
    **options: Any,
) -> AsyncBroker:
    """Connect to the broker of a URL or a profile, as `cloudevents_bridge.connect` does, for asyncio. It is no
    coroutine: it does no I/O, and needs no running event loop.
    """
    return AsyncBroker(
        broker.connect(
            url,
            profile=profile,
            config=config,
            topics=topics,
            requires=requires,
            create_missing=create_missing,
            retry=retry,
            timeout=timeout,
            telemetry=telemetry,
            **options,
        )
    )


class AsyncBroker(AsyncClosing):
    """A connection to one broker, for asyncio: made by `aio.connect`, or over a `Broker`, with which it shares the
    connection. It belongs to no event loop: tasks of any may use it, and what comes from it, in any thread.

    Attributes:
        sync: the `Broker`, for code that runs in threads.
        url: the broker's address.
        capabilities: what it can do beyond what every broker can.
        topology: creates, compares and deletes topics and subscriptions; its methods are coroutines.
    """

    sync: Broker
    url: str
    capabilities: frozenset[Capability]
    topology: AsyncTopology

    def __init__(self, broker: Broker) -> None:
        shell = Shell(broker.url)
        broker._opener.beside.add(shell)
        super().__init__(shell, shell.closing, self._close_all)
        self.sync = broker
        self.url = broker.url
        self.capabilities = broker.capabilities
        self.topology = AsyncTopology(shell, broker.topology)
        self._dead_letters: dict[tuple[str, str], AsyncDeadLetters] = {}

    @property
    def native(self) -> Any:
        """The SDK's own client, for what only this broker has."""
        return self.sync.native

    async def publish(
        self, topic: str, event: CloudEvent, *, delay: float = 0.0, timeout: float | None = None
    ) -> Receipt:
        """Publish one event: `publisher(topic).publish`, which documents it."""
        return await self.publisher(topic).publish(event, delay=delay, timeout=timeout)

    async def publish_many(
        self, topic: str, events: Iterable[CloudEvent], *, delay: float = 0.0, timeout: float | None = None
    ) -> list[Receipt]:
        """Publish events in batches: `publisher(topic).publish_many`, which documents it."""
        return await self.publisher(topic).publish_many(events, delay=delay, timeout=timeout)

    def publisher(
        self,
        topic: str,
        *,
        linger: float = 0.01,
        max_buffered: int = 10_000,
        on_full: Literal["block", "raise"] = "block",
    ) -> AsyncPublisher:
        """`Broker.publisher`: a publisher of a topic."""
        made = self.sync.publisher(topic, linger=linger, max_buffered=max_buffered, on_full=on_full)
        return AsyncPublisher(self._shell, made)

    def subscriber(self, topic: str, subscription: str, *, foreign: Sequence[Decoder] = ()) -> AsyncSubscriber:
        """`Broker.subscriber`: a subscriber of a subscription."""
        return AsyncSubscriber(self._shell, self.sync.subscriber(topic, subscription, foreign=foreign))

    def dead_letters(self, topic: str, subscription: str) -> AsyncDeadLetters:
        """`Broker.dead_letters`: the dead letters of a subscription."""
        letters = self._dead_letters.get((topic, subscription))
        if letters is None:
            made = AsyncDeadLetters(self._shell, self.sync.dead_letters(topic, subscription))
            letters = self._dead_letters.setdefault((topic, subscription), made)
        return letters

    def worker(self, *, grace: float = 25.0) -> AsyncWorker:
        """`Broker.worker`: a worker, which calls handlers and settles for them."""
        return AsyncWorker(self._shell, self.sync.worker(grace=grace))

    async def ping(self, *, timeout: float = 5.0) -> None:
        """`Broker.ping`: reach the broker and authenticate, within `timeout` seconds."""
        await self._shell.run_within(
            timeout, self._shell.calls, lambda left: self.sync.ping(timeout=left), f"a ping of {self.url}"
        )

    async def close(self, *, timeout: float = 30.0) -> None:
        """`Broker.close`, once the calls under way have ended, all within about `timeout` seconds. If the task is
        cancelled it goes on; who closes again waits for its end.

        Raises:
            PublishError: if submitted events were not accepted; `.failed` holds those of all publishers.
        """
        await super().close(timeout=timeout)

    def __repr__(self) -> str:
        return f"<AsyncBroker {self.url}>"

    def _close_all(self, timeout: float) -> None:
        deadline = clock.now() + timeout
        self._shell.drain(deadline)
        self.sync.close(timeout=max(deadline - clock.now(), 0.0))
