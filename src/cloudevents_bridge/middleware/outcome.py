"""What becomes of a delivery after a run, as middleware can tell it."""

from __future__ import annotations

from cloudevents_bridge.delivery import Delivery, Postponed, Reject
from cloudevents_bridge.router import Action

_SAID: dict[str, Action] = {"acked": "ack", "given back": "nack", "dead-lettered": "dead_letter"}


def outcome_of(delivery: Delivery, error: BaseException | None) -> Action:
    """What the handler said itself, or else what follows from what it raised. Settling may still fail."""
    if delivery._word is not None:
        return _SAID[delivery._word]
    if error is None:
        return "ack"
    if isinstance(error, Reject):
        return "dead_letter"
    failed = isinstance(error, Exception) and not isinstance(error, Postponed)
    return "dead_letter" if failed and delivery.attempt >= delivery._inlet.declared.max_attempts else "nack"
