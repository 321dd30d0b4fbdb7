"""Receiving and settling: long polls that are never cut short, and lock tokens in batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cloudevents_bridge.driver import Done, Fault, Inbound, Received, ReceiveTraits, Verb
from cloudevents_bridge.errors import ClosedError, ErrorCode
from cloudevents_bridge_azure.eventgrid import wire
from cloudevents_bridge_azure.eventgrid.client import JSON, Act, Client
from cloudevents_bridge_azure.eventgrid.errors import of_token
from cloudevents_bridge_azure.eventgrid.names import Source
from cloudevents_bridge_azure.eventgrid.settings import MOST_DELIVERIES

BATCH = 100
DELAYS = (0, 10, 60, 600, 3600)
"""Seconds with which an event can be released: there are no others."""
ROLE = "EventGrid Data Receiver"
PATIENCE = 10.0
"""Seconds that the answer to a receive takes beyond its wait, at most, before its connection counts as dead."""
_RECEIVES = 4
_ACTS = {"ack": "acknowledge", "nack": "release", "release": "release", "extend": "renewLock"}
_LOST = Fault(ErrorCode.INTERNAL, True, True, None, "Event Grid gave no outcome for it")


class Properties(msgspec.Struct, rename="camel"):
    """What the service says of a delivery."""

    lock_token: str
    delivery_count: int = 1


class ReceiveDetails(msgspec.Struct, rename="camel"):
    """One delivery. `event`: its JSON, as it came."""

    broker_properties: Properties
    event: msgspec.Raw


class _Receipt(msgspec.Struct):
    value: list[ReceiveDetails] = []


class _Settled(msgspec.Struct, rename="camel"):
    failed_lock_tokens: list[dict[str, Any]] = []
    succeeded_lock_tokens: list[str] = []


_read_receipt = msgspec.json.Decoder(_Receipt).decode
_read_settled = msgspec.json.Decoder(_Settled).decode


def consuming(source: Source, act: str) -> Act:
    """A request that receives from a subscription, or settles there."""
    return Act(f"/topics/{source.topic}/eventsubscriptions/{source.subscription}:{act}", JSON, ROLE)


class Subscriber:
    """Consumes one subscription of a namespace topic, which may be the one that dead letters are read from.

    Args:
        lease: seconds, the lock duration of the subscription.
        wait: seconds that a receive waits.
    """

    def __init__(self, client: Client, source: Source, *, lease: int, wait: float) -> None:
        self._client = client
        self._source = source
        self._lease = float(lease)
        self._wait = wait
        self._receive = consuming(source, "receive")
        self._stopped = False
        self._closed = False
        self.traits = ReceiveTraits(
            batch_count=BATCH,
            settle_count=BATCH,
            receives=_RECEIVES,
            wait=(wait, wait),
            stop_within=wait,
            nack_delay=float(DELAYS[-1]),
            lease_total=float("inf"),
            removes_after=MOST_DELIVERIES,
            settle="each",
            free_release=False,
            dead=False,
            nack_least=float(DELAYS[1]),
        )

    def receive(self, max_messages: int, wait: float) -> Received:
        if self._stopped:
            return Received()
        # A poll that has begun is not cut short: the service would hand events to a connection that nobody reads.
        query = {"maxEvents": str(min(max_messages, BATCH)), "maxWaitTime": f"{self._wait:g}"}
        answer = self._client.post(self._receive, b"", query, timeout=self._wait + PATIENCE)
        return Received([self._inbound(each) for each in _read_receipt(answer).value])

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        del reason  # "dead" is no verb here: the portable layer copies
        if self._closed:
            raise ClosedError(f"this subscriber of {self._source.topic}/{self._source.subscription} was closed")
        query = {"releaseDelayInSeconds": str(rounded(seconds))} if verb == "nack" else {}
        done = Done(lease=self._lease) if verb == "extend" else Done()
        return self._settle(_ACTS[verb], [message.handle for message in messages], query, done, timeout)

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._stopped = self._closed = True

    def _inbound(self, details: ReceiveDetails) -> Inbound:
        attributes, body = wire.unpack(bytes(details.event))
        properties = details.broker_properties
        return Inbound(
            body, attributes, properties.lock_token, self._lease, properties.delivery_count, None, None, details
        )

    def _settle(
        self, act: str, tokens: Sequence[str], query: Mapping[str, str], done: Done, timeout: float
    ) -> Sequence[Done | Fault]:
        body = msgspec.json.encode({"lockTokens": tokens})
        answer = self._client.post(consuming(self._source, act), body, query, timeout=timeout)
        settled = _read_settled(answer)
        found: dict[str, Done | Fault] = dict.fromkeys(settled.succeeded_lock_tokens, done)
        found |= {str(each.get("lockToken")): of_token(each) for each in settled.failed_lock_tokens}
        return [found.get(token, _LOST) for token in tokens]


def rounded(seconds: float) -> int:
    """The delay that the service has and that is not shorter; of those beyond the longest, the longest."""
    return DELAYS[min(bisect_left(DELAYS, seconds), len(DELAYS) - 1)]
