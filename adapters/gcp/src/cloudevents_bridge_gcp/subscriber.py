"""Receiving and settling: unary pulls, acks, and ack deadlines, which are both the lease and the delay of a nack."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from cloudevents_bridge.driver import Done, Fault, Inbound, Received, ReceiveTraits, Verb
from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_gcp import acks, pb, wire
from cloudevents_bridge_gcp.attempts import Attempts
from cloudevents_bridge_gcp.rpc import ACK, MODACK, PULL, Rpc, explain

MAX_LEASE = 600
MAX_SETTLE = 500_000
"""Bytes of ack ids in one request: Pub/Sub takes requests of 512 KiB (https://cloud.google.com/pubsub/quotas), and each
id has a few bytes around it."""
LONGEST_WAIT = 30.0
SERVER_MARGIN = 1.0
"""Seconds before its deadline that a pull comes back with nothing."""
GRACE = 0.2
"""Seconds that a pull nobody waits for may still bring what is on its way: one that is cancelled loses that, until its
lease ends."""


class Subscriber:
    """Receives from one subscription, which may be the one that dead letters are read from.

    Args:
        subscription: its resource name.
        lease: seconds, its ack deadline.
        removes_after: deliveries after which Pub/Sub itself moves a message to the dead letters; None: never.
        keyed: the ordering keys count.
        keyed_nack: the shortest delay, seconds, with which a message is given back where they do.
        letters: it is a dead-letter place.
    """

    def __init__(
        self,
        rpc: Rpc,
        subscription: str,
        *,
        lease: int,
        removes_after: int | None,
        keyed: bool,
        keyed_nack: int,
        letters: bool,
    ) -> None:
        self._rpc = rpc
        self._subscription = subscription
        self._lease = float(lease)
        self._keyed = keyed
        self._shortest_nack = keyed_nack if keyed else 0
        self._letters = letters
        self._attempts = Attempts()
        self._changed = threading.Condition()
        self._stopped_at = math.inf
        self._closed = False
        self.traits = ReceiveTraits(
            batch_count=1000,
            settle_count=1000,
            receives=4,
            wait=(0.0, LONGEST_WAIT),
            stop_within=GRACE,
            nack_delay=float(MAX_LEASE),
            lease_total=math.inf,
            removes_after=removes_after,
            settle="each",
            free_release=False,
            dead=False,
            key_batches=True,
            settle_bytes=MAX_SETTLE,
        )

    def receive(self, max_messages: int, wait: float) -> Received:
        began = time.monotonic()
        request = pb.PullRequest(
            subscription=self._subscription, max_messages=max_messages, return_immediately=wait == 0
        )
        if self._stopped_at < math.inf:
            return Received()
        pull = self._rpc.start(PULL, request, timeout=wait + SERVER_MARGIN + GRACE)
        pull.add_done_callback(self._notify)
        with self._changed:
            while not pull.done():
                until = min(began + wait + SERVER_MARGIN, self._stopped_at) + GRACE
                left = until - time.monotonic()
                if left <= 0:
                    pull.cancel()
                    break
                self._changed.wait(left)
        return Received([self._inbound(each) for each in self._response(request, pull)])

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        del reason  # "dead" is no verb here: the portable layer copies
        if self._closed:
            raise ClosedError(f"this subscriber of {self._subscription} was closed")
        ack_ids = [message.handle for message in messages]
        if verb == "ack":
            request = pb.AcknowledgeRequest(subscription=self._subscription, ack_ids=ack_ids)
            outcomes = self._request(ACK, request, ack_ids, Done(), timeout)
            self._forget(messages)
            return outcomes
        shortest = 1 if verb == "extend" else self._shortest_nack  # an extension by 0 would give it back
        deadline = shortest if verb == "release" else min(max(math.ceil(seconds), shortest), MAX_LEASE)
        request = pb.ModifyAckDeadlineRequest(
            subscription=self._subscription, ack_ids=ack_ids, ack_deadline_seconds=deadline
        )
        return self._request(MODACK, request, ack_ids, Done(lease=float(deadline)), timeout)

    def stop(self) -> None:
        with self._changed:
            self._stopped_at = min(self._stopped_at, time.monotonic())
            self._changed.notify_all()

    def close(self) -> None:
        self.stop()
        self._closed = True

    def _notify(self, _pull: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def _response(self, request: Any, pull: Any) -> Sequence[Any]:
        try:
            messages: Sequence[Any] = pull.result().received_messages
        except pb.grpc.FutureCancelledError:
            return ()
        except pb.grpc.RpcError as error:
            if error.code() is pb.grpc.StatusCode.DEADLINE_EXCEEDED:
                return ()  # there was no message
            raise explain(PULL, request, error) from error
        return messages

    def _inbound(self, received: Any) -> Inbound:
        message = received.message
        return Inbound(
            message.data,
            wire.decode(message, letter=self._letters),
            received.ack_id,
            self._lease,
            None if self._letters else received.delivery_attempt or self._attempts.count(message.message_id),
            (message.ordering_key or None) if self._keyed else None,
            None,
            received,
        )

    def _request(
        self, method: Any, request: Any, ack_ids: Sequence[str], done: Done, timeout: float
    ) -> Sequence[Done | Fault]:
        try:
            self._rpc.call(method, request, timeout=timeout)
        except pb.GoogleAPICallError as error:
            outcomes = acks.outcomes(error, ack_ids, done)
            if outcomes is None:
                raise
            return outcomes
        return [done] * len(ack_ids)

    def _forget(self, messages: Sequence[Inbound]) -> None:
        for message in messages:
            if not message.native.delivery_attempt:
                self._attempts.forget(message.native.message.message_id)
