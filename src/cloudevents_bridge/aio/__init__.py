"""The same for asyncio: `aio.connect` gives an `AsyncBroker`, over the same connection as a `Broker`.

The classes have the methods of those without `Async`, and what does I/O is a coroutine. Drivers block, so their calls
are made in threads: a few that publish, a few that settle, a few for the rest. A task that waits for events takes none.
"""

from cloudevents_bridge.aio.broker import AsyncBroker, connect
from cloudevents_bridge.aio.dead_letters import AsyncDeadLetters
from cloudevents_bridge.aio.delivery import AsyncDelivery
from cloudevents_bridge.aio.publisher import AsyncPublisher
from cloudevents_bridge.aio.subscriber import AsyncSubscriber
from cloudevents_bridge.aio.topology import AsyncTopology
from cloudevents_bridge.aio.worker import AsyncWorker

__all__ = [
    "connect",
    "AsyncBroker",
    "AsyncPublisher",
    "AsyncSubscriber",
    "AsyncDelivery",
    "AsyncWorker",
    "AsyncDeadLetters",
    "AsyncTopology",
]
