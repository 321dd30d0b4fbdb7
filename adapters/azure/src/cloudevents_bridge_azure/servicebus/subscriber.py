"""Receiving and settling where nothing is ordered: any receiver may settle what another has received."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic
from typing import Any

from msgspec.structs import replace

from cloudevents_bridge.driver import Done, Fault, Inbound, Received, ReceiveTraits, Verb
from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_azure.servicebus import errors, sdk, settling, wire
from cloudevents_bridge_azure.servicebus.links import Link, Pool
from cloudevents_bridge_azure.servicebus.names import Entity
from cloudevents_bridge_azure.servicebus.sdk import Client
from cloudevents_bridge_azure.servicebus.watch import Watch

BATCH_COUNT = 100
SETTLE_COUNT = 20
"""Messages settled in one go, one request after the other: few enough that a link is soon free again."""
RECEIVES = 4
LONGEST_WAIT = 60.0
SLICE = 0.5
"""Seconds after which a receive that waits sees that it is to stop."""
LOOK = 0.2
"""Seconds for which a receive that shall not wait looks: the credit has to travel."""


class Subscriber:
    """Receives from one entity without sessions: a subscription, a queue, or the dead-letter queue of one.

    Args:
        lock: seconds for which the entity locks a message.
        removes_after: deliveries after which Service Bus itself moves a message to the dead letters.
    """

    def __init__(self, client: Client, watch: Watch, of: Entity, *, lock: float, removes_after: int | None) -> None:
        self.traits = ReceiveTraits(
            batch_count=BATCH_COUNT,
            settle_count=SETTLE_COUNT,
            receives=RECEIVES,
            wait=(0.0, LONGEST_WAIT),
            stop_within=SLICE + LOOK,
            nack_delay=0.0,
            lease_total=math.inf,
            removes_after=removes_after,
            settle="each",
            free_release=False,
            dead=not of.dead,
        )
        self._of = of
        self._lock = lock
        self._stopped = False
        self.closed = False
        self._receivers = Pool(lambda: client.receiver(of), watch, RECEIVES)
        self._settlers = Pool(lambda: client.receiver(of), watch, RECEIVES)

    def receive(self, max_messages: int, wait: float) -> Received:
        if self._stopped:
            return Received()
        end = monotonic() + wait
        with self._receivers.one(wait + sdk.OPENING) as link:
            found: list[Inbound] = []
            while not (found or self._stopped):
                left = end - monotonic()
                found = self._look(link, min(max_messages, BATCH_COUNT), max(min(left, SLICE), LOOK))
                if left <= SLICE:
                    break
            if link.is_open:
                with suppress(Exception), link.use(sdk.OPENING) as receiver:  # else what was found is lost
                    began = monotonic()
                    if late := sdk.take_back(receiver):
                        messages = receiver.receive_messages(late, max_wait_time=LOOK)
                        found += [self._inbound(each, monotonic() - began) for each in messages]
            return Received(found)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        if self.closed:
            raise ClosedError(f"this subscriber of {self._of.path} was closed")
        if verb == "dead" and self._of.dead:
            return [settling.NO_DEAD] * len(messages)
        outcomes: list[Done | Fault] = []
        end = monotonic() + timeout
        try:
            with self._one(timeout) as link, link.use(max(end - monotonic(), 0.001)) as receiver:

                def extend(message: Any) -> Done:
                    receiver.renew_message_lock(message, timeout=timeout)
                    return Done(lease=settling.left(message.locked_until_utc, self._lock))

                settling.settle(receiver, verb, messages, outcomes, reason=reason, extend=extend)
        except Exception as error:
            if not outcomes:
                raise
            failed = errors.classify(error)
            outcomes.append(failed)
            outcomes += [replace(failed, maybe_applied=False)] * (len(messages) - len(outcomes))
        return outcomes

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        """The SDK gives back what it has received and nobody has seen."""
        self._stopped = self.closed = True
        self._receivers.close()
        self._settlers.close()

    def _look(self, link: Link, most: int, wait: float) -> list[Inbound]:
        with link.use(wait + sdk.OPENING) as receiver:
            began = monotonic()
            messages = receiver.receive_messages(most, max_wait_time=wait)
            age = min(monotonic() - began, 4 * sdk.TICK)  # of what came first, and waited for the others
            return [self._inbound(each, age) for each in messages]

    def _inbound(self, message: Any, age: float) -> Inbound:
        body, attributes = wire.decode(message, letter=self._of.dead)
        lease = min(settling.left(message.locked_until_utc, self._lock), max(self._lock - age, 0.0))
        attempt = None if self._of.dead else (message.delivery_count or 0) + 1
        return Inbound(body, attributes, None, lease, attempt, native=message)

    @contextmanager
    def _one(self, timeout: float) -> Iterator[Link]:
        """A link to settle on: an open one that does not receive just now, or else one that never does."""
        with ExitStack() as stack:
            link = self._receivers.idle()
            if link is not None:
                stack.callback(self._receivers.done, link)
            else:
                link = stack.enter_context(self._settlers.one(timeout))
            yield link
