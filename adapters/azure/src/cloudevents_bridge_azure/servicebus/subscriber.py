"""Receiving and settling where nothing is ordered: what came on a link is settled on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
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
"""Seconds after which a receive that waits asks anew, and the SDK sees to its tokens."""
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
            stop_within=LOOK,
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

    def receive(self, max_messages: int, wait: float) -> Received:
        if self._stopped:
            return Received()
        with self._receivers.one(wait + sdk.OPENING) as link:
            end = monotonic() + max(wait, LOOK)
            found: list[Any] = []
            while not (found or self._stopped) and (left := end - monotonic()) > 0:
                found = self._look(link, min(max_messages, BATCH_COUNT), min(left, SLICE))
                if not found:
                    link.turns.let_pass()
            came = monotonic()
            if link.is_open:
                with suppress(Exception), link.use(sdk.OPENING) as receiver:  # else what was found would be lost
                    found += sdk.drained(receiver)
            age = monotonic() - came + 2 * sdk.TICK  # of what came first, and waited for the others
            return Received([self._inbound(each, link, age) for each in found])

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        if self.closed:
            raise ClosedError(f"this subscriber of {self._of.path} was closed")
        if verb == "dead" and self._of.dead:
            return [settling.NO_DEAD] * len(messages)
        end = monotonic() + timeout
        outcomes: dict[int, Done | Fault] = {}
        groups: dict[Link, list[int]] = {}
        for place, each in enumerate(messages):
            groups.setdefault(each.handle, []).append(place)
        for came, places in groups.items():
            here = [messages[place] for place in places]
            try:
                found = self._settle(came, verb, here, reason, max(end - monotonic(), 0.001))
            except Exception as error:
                if len(groups) == 1:
                    raise
                found = [errors.classify(error)] * len(here)
            outcomes.update(zip(places, found, strict=True))
        return [outcomes[place] for place in range(len(messages))]

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        """The SDK gives back what it has received and nobody has seen."""
        self._stopped = self.closed = True
        self._receivers.close()

    def _look(self, link: Link, most: int, wait: float) -> list[Any]:
        with link.use(wait + sdk.OPENING) as receiver:
            return sdk.received(receiver, most, wait, lambda: self._stopped or link.turns.wanted)

    def _inbound(self, message: Any, came: Link, age: float) -> Inbound:
        body, attributes = wire.decode(message, letter=self._of.dead)
        lease = min(settling.left(message.locked_until_utc, self._lock), max(self._lock - age, 0.0))
        attempt = None if self._of.dead else wire.attempt(message)
        return Inbound(body, attributes, came, lease, attempt, native=message)

    def _settle(
        self, came: Link, verb: Verb, messages: Sequence[Inbound], reason: str, timeout: float
    ) -> list[Done | Fault]:
        """Settle what came on one link, on that one. Another would do it by lock token, at twice the cost, and what the
        SDK keeps of the message at the first would stay there.

        Raises:
            Exception: one of the SDK, if it came before any outcome.
        """
        outcomes: list[Done | Fault] = []
        end = monotonic() + timeout
        try:
            with self._receivers.turn(came, timeout), came.use(max(end - monotonic(), 0.001)) as receiver:

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
