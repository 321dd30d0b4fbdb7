"""One verb for several messages on one receiver: one request for each, and one outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from cloudevents_bridge.driver import Done, Fault, Inbound, Verb
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_azure.servicebus import errors, wire
from cloudevents_bridge_azure.servicebus.links import survives

NO_DEAD = Fault(
    ErrorCode.FAILED_PRECONDITION,
    False,
    False,
    None,
    "a dead letter cannot be dead-lettered: ack it, or publish it to its topic",
)


def settle(
    receiver: Any,
    verb: Verb,
    messages: Sequence[Inbound],
    outcomes: list[Done | Fault],
    *,
    reason: str,
    extend: Callable[[Any], Done],
) -> None:
    """Settle them one after the other, and add an outcome for each.

    Raises:
        Exception: one that the connection does not survive; then there is no outcome for that message and those after.
    """
    for each in messages:
        try:
            outcomes.append(extend(each.native) if verb == "extend" else _settle(receiver, verb, each.native, reason))
        except Exception as error:
            if not survives(error):
                raise
            outcomes.append(errors.classify(error))


def _settle(receiver: Any, verb: Verb, message: Any, reason: str) -> Done:
    if verb == "ack":
        receiver.complete_message(message)
    elif verb == "dead":
        title, text = wire.reasons(reason)
        receiver.dead_letter_message(message, reason=title, error_description=text)
    else:
        receiver.abandon_message(message)
    return Done()


def left(until: datetime | None, longest: float) -> float:
    """Seconds of a lock that ends then, by this machine's clock; where that is not to be believed, the longest."""
    if until is None:
        return longest
    seconds = (until - datetime.now(UTC)).total_seconds()
    return seconds if 0 < seconds < longest else longest
