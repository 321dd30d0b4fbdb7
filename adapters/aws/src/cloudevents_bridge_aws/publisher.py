"""Sending: PublishBatch to a topic, SendMessageBatch to a queue; one request per batch, one outcome per message."""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudevents_bridge.driver import Done, Fault, Outbound, SendTraits
from cloudevents_bridge.errors import ClosedError, ErrorCode
from cloudevents_bridge_aws import wire
from cloudevents_bridge_aws.clients import Clients
from cloudevents_bridge_aws.errors import of_code
from cloudevents_bridge_aws.names import Address

BATCH = 10
_SENDS = 8
MAX_DELAY = 900
DEDUPLICATION = 300.0
"""Seconds: the window of FIFO topics and queues."""
NO_GROUP = "ceb-none-"
"""Start of the group that is made up for one event without an ordering key, so that it waits for no other."""
_HASHED = "ceb-key-"
_GROUP = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,./:;<=>?@\[\\\]^_`{|}~-]{1,128}")
_LOST = "AWS gave no outcome for it"


class Publisher:
    """Sends to one topic or queue.

    Args:
        where: finds the address; on the first send it may ask once for the account.
        url: of the queue at an address.
        limit: bytes of one request, at most.
        fifo: whether groups and deduplication ids are sent.
        keyed: whether ordering keys count.
    """

    def __init__(
        self,
        clients: Clients,
        where: Callable[[], Address],
        url: Callable[[Address], str],
        *,
        limit: int,
        fifo: bool,
        keyed: bool,
    ) -> None:
        self.traits = SendTraits(
            batch_count=BATCH,
            batch_bytes=limit,
            message_bytes=limit,
            keys="one_each" if keyed else "mixed",
            sends=_SENDS,
            dedup_window=DEDUPLICATION if fifo else 0.0,
        )
        self._clients = clients
        self._where, self._url = where, url
        self._fifo, self._keyed = fifo, keyed
        self._address: Address | None = None
        self._closed = False

    def size(self, message: Outbound) -> int:
        return wire.size(message.body, message.attributes)

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        if self._closed:
            raise ClosedError("this publisher was closed: ask the broker for another")
        address = self._address
        if address is None:
            address = self._address = self._where()
        client = self._clients.get(address.service, address.region, timeout)
        if address.service == "sns":
            entries = [self._entry(str(n), "Message", each) for n, each in enumerate(batch)]
            answer = client.publish_batch(TopicArn=address.arn, PublishBatchRequestEntries=entries)
            return outcomes(len(batch), answer, "sns:Publish", _done)
        refused = {n: fault for n, each in enumerate(batch) if (fault := self._refusal(each)) is not None}
        entries = [
            self._delayed(self._entry(str(n), "MessageBody", each), each)
            for n, each in enumerate(batch)
            if n not in refused
        ]
        answer = client.send_message_batch(QueueUrl=self._url(address), Entries=entries) if entries else {}
        done = outcomes(len(batch), answer, "sqs:SendMessage", _done)
        return [refused.get(n, outcome) for n, outcome in enumerate(done)]

    def close(self) -> None:
        self._closed = True

    def _entry(self, id: str, body: str, message: Outbound) -> dict[str, Any]:
        text, attributes = wire.pack(message.body, message.attributes)
        entry: dict[str, Any] = {"Id": id, body: text, "MessageAttributes": attributes}
        if self._fifo:
            dedup = uuid.uuid4().hex if message.dedup is None else _hash(message.dedup)
            entry["MessageGroupId"] = group(message.key if self._keyed else None, dedup)
            entry["MessageDeduplicationId"] = dedup
        return entry

    def _delayed(self, entry: dict[str, Any], message: Outbound) -> dict[str, Any]:
        if message.delay > 0:
            entry["DelaySeconds"] = math.ceil(message.delay)
        return entry

    def _refusal(self, message: Outbound) -> Fault | None:
        if message.delay <= 0:
            return None
        if self._fifo:
            text = "a FIFO queue has no delay for one message: publish it when it is due, or to a topic without order"
            return Fault(ErrorCode.UNSUPPORTED, False, False, None, text)
        if message.delay > MAX_DELAY:
            text = f"a delay of {message.delay:g} s is longer than SQS has ({MAX_DELAY} s)"
            return Fault(ErrorCode.INVALID_ARGUMENT, False, False, None, text)
        return None


def outcomes(
    count: int, answer: Mapping[str, Any], action: str, done: Callable[[Mapping[str, Any]], Done]
) -> list[Done | Fault]:
    """One outcome per entry of a batch whose ids are 0, 1, 2, …"""
    found: list[Done | Fault] = [Fault(ErrorCode.INTERNAL, True, True, None, _LOST)] * count
    for entry in answer.get("Successful", ()):
        found[int(entry["Id"])] = done(entry)
    for entry in answer.get("Failed", ()):
        theirs = not entry.get("SenderFault", False)
        found[int(entry["Id"])] = of_code(entry.get("Code", ""), entry.get("Message", ""), action=action, theirs=theirs)
    return found


def group(key: str | None, dedup: str) -> str:
    """The group of an ordering key. One that SQS would refuse as a group is hashed; without one, a group is made up,
    the same on each retry.
    """
    if key is None:
        return NO_GROUP + dedup
    if _GROUP.fullmatch(key) and not key.startswith(NO_GROUP):
        return key
    return _HASHED + _hash(key)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _done(entry: Mapping[str, Any]) -> Done:
    return Done(entry["MessageId"], entry.get("SequenceNumber"))
