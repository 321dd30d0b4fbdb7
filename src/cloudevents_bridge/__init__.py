"""Publish and consume CloudEvents on any broker, chosen by one URL."""

from typing import TYPE_CHECKING, Any

from cloudevents_bridge._version import __version__ as __version__
from cloudevents_bridge.broker import Broker, connect
from cloudevents_bridge.dead_letters import DeadLetter, DeadLetters
from cloudevents_bridge.delivery import Delivery, RawMessage, Reject, Retry
from cloudevents_bridge.driver import Capability
from cloudevents_bridge.errors import (
    BridgeError,
    DecodeError,
    LeaseLostError,
    PublishError,
    SettleError,
    UnsupportedError,
)
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.outlet import Receipt
from cloudevents_bridge.publisher import Publisher
from cloudevents_bridge.router import Router
from cloudevents_bridge.subscriber import Subscriber
from cloudevents_bridge.topics import RetryPolicy, Subscription, Topic
from cloudevents_bridge.worker import Worker

if TYPE_CHECKING:
    from cloudevents_bridge import aio
else:

    def __getattr__(name: str) -> Any:
        """Import `aio` on first use: asyncio is as much to import as all the rest."""
        if name == "aio":
            from importlib import import_module

            return import_module("cloudevents_bridge.aio")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "aio",
    "connect",
    "Broker",
    "Publisher",
    "Subscriber",
    "Worker",
    "Router",
    "Delivery",
    "Receipt",
    "CloudEvent",
    "RawMessage",
    "DeadLetter",
    "DeadLetters",
    "Topic",
    "Subscription",
    "Capability",
    "RetryPolicy",
    "Retry",
    "Reject",
    "BridgeError",
    "PublishError",
    "SettleError",
    "DecodeError",
    "UnsupportedError",
    "LeaseLostError",
]
