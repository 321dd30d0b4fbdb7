"""Receiving from a queue and settling there; one request per call, one outcome per message."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cloudevents_bridge.driver import Done, Fault, Inbound, Received, ReceiveTraits, Verb
from cloudevents_bridge.errors import ClosedError, ErrorCode
from cloudevents_bridge_aws import wire
from cloudevents_bridge_aws.clients import Clients
from cloudevents_bridge_aws.names import Address
from cloudevents_bridge_aws.publisher import BATCH, NO_GROUP, outcomes

TOTAL = 43_200
"""Seconds from its receipt to which a message can be kept from others: SQS's 12 hours."""
_MARGIN = 60
_NACK = TOTAL - 3600  # what is given back has been held for a while, and the 12 hours count from its receipt
_RECEIVES = 4  # more bring little, and each may take what its own worker gives back at stop
_OVER = Fault(ErrorCode.LEASE_LOST, False, False, None, "SQS keeps a message for 12 hours from its receipt at most")
_SYSTEM = ["ApproximateReceiveCount", "MessageGroupId"]
_COUNT = ["ApproximateReceiveCount"]


class Handle(NamedTuple):
    """How a delivery is named to SQS. `until`: when its 12 hours end, on the monotonic clock."""

    receipt: str
    until: float


class Subscriber:
    """Consumes one queue.

    Args:
        where: finds the queue; on the first receive it may ask once for the account.
        lease: seconds, whole.
        poll: seconds that one receive waits, at most.
        keyed: whether groups are ordering keys.
        removes_after: receives after which SQS moves a message away.
    """

    def __init__(
        self,
        clients: Clients,
        where: Callable[[], Address],
        url: Callable[[Address], str],
        *,
        lease: int,
        poll: int,
        keyed: bool,
        removes_after: int | None,
    ) -> None:
        self.traits = ReceiveTraits(
            batch_count=BATCH,
            settle_count=BATCH,
            receives=_RECEIVES,
            wait=(0.0, float(poll)),
            stop_within=float(poll),
            nack_delay=float(_NACK),
            lease_total=float(TOTAL - _MARGIN),
            removes_after=removes_after,
            settle="each",
            free_release=False,
            dead=False,
            key_batches=keyed,
        )
        self._clients = clients
        self._where, self._url = where, url
        self._lease = lease
        self._poll = poll
        self._keyed = keyed
        self._address: Address | None = None
        self._stopped = False
        self._closed = False

    def receive(self, max_messages: int, wait: float) -> Received:
        if self._stopped:
            return Received()
        address = self._place()
        # A poll that has begun is not cut short: SQS would hand messages to a connection that nobody reads any more.
        answer = self._clients.receiving(address.region).receive_message(
            QueueUrl=self._url(address),
            MaxNumberOfMessages=min(max_messages, BATCH),
            WaitTimeSeconds=min(math.ceil(wait), self._poll),
            VisibilityTimeout=self._lease,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=_SYSTEM if self._keyed else _COUNT,
        )
        until = time.monotonic() + TOTAL - _MARGIN
        return Received([self._inbound(each, until) for each in answer.get("Messages", ())])

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        if self._closed:
            raise ClosedError("this subscriber was closed: ask the broker for another")
        address = self._place()
        client, url = self._clients.get("sqs", address.region, timeout), self._url(address)
        entries: list[dict[str, Any]] = [
            {"Id": str(n), "ReceiptHandle": each.handle.receipt} for n, each in enumerate(messages)
        ]
        if verb == "ack":
            answer = client.delete_message_batch(QueueUrl=url, Entries=entries)
            return _without_lease(outcomes(len(messages), answer, "sqs:DeleteMessage", _done))
        asked = 0 if verb == "release" else math.ceil(seconds)
        now = time.monotonic()
        for entry, each in zip(entries, messages, strict=True):
            entry["VisibilityTimeout"] = max(min(asked, int(each.handle.until - now)), 0)
        # None left to extend by would give it back, while its handler runs.
        sent = [entry for entry in entries if verb != "extend" or entry["VisibilityTimeout"] > 0]
        answer = client.change_message_visibility_batch(QueueUrl=url, Entries=sent) if sent else {}

        def done(entry: Mapping[str, Any]) -> Done:
            granted = entries[int(entry["Id"])]["VisibilityTimeout"]
            return Done(lease=float(granted) if verb == "extend" else 0.0)

        found = _without_lease(outcomes(len(messages), answer, "sqs:ChangeMessageVisibility", done))
        return [outcome if entry in sent else _OVER for entry, outcome in zip(entries, found, strict=True)]

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self._stopped = self._closed = True

    def _place(self) -> Address:
        address = self._address
        if address is None:
            address = self._address = self._where()
        return address

    def _inbound(self, message: Mapping[str, Any], until: float) -> Inbound:
        body, attributes = wire.unpack(message["Body"], message.get("MessageAttributes") or {})
        system = message.get("Attributes", {})
        group = system.get("MessageGroupId") if self._keyed else None
        return Inbound(
            body,
            attributes,
            Handle(message["ReceiptHandle"], until),
            float(self._lease),
            int(system.get("ApproximateReceiveCount", 1)),
            None if group is None or group.startswith(NO_GROUP) else group,
            native=message,
        )


def _done(entry: Mapping[str, Any]) -> Done:
    return Done()


def _without_lease(found: list[Done | Fault]) -> list[Done | Fault]:
    """The only value in such an entry that can be wrong is the receipt: then the lease is over."""
    return [
        Fault(ErrorCode.LEASE_LOST, False, False, None, each.message)
        if isinstance(each, Fault) and each.code is ErrorCode.INVALID_ARGUMENT
        else each
        for each in found
    ]
