"""One log line for each event that is handled."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cloudevents_bridge.delivery import Delivery
from cloudevents_bridge.middleware.outcome import outcome_of

_log = logging.getLogger("cloudevents_bridge.events")


def log(delivery: Delivery, call_next: Callable[[Delivery], None]) -> None:
    """Middleware that logs one line for each event, to the logger `cloudevents_bridge.events`: INFO for what is acked,
    WARNING for the rest.

    What a formatter for structured logs wants is in the record's fields: `event_id`, `event_type`, `event_source`,
    `topic`, `subscription`, `attempt`, `outcome` ("ack", "nack", "dead_letter"), `seconds`, and `error`, the name of
    the exception's class or None. The event's data is never logged, nor what an exception says, which may quote it.
    """
    began = time.perf_counter()
    raised: BaseException | None = None
    try:
        call_next(delivery)
    except BaseException as error:
        raised = error
        raise
    finally:
        seconds = time.perf_counter() - began
        outcome = outcome_of(delivery, raised)
        level = logging.INFO if outcome == "ack" else logging.WARNING
        if _log.isEnabledFor(level):
            _write(level, delivery, outcome, seconds, raised)


def _write(level: int, delivery: Delivery, outcome: str, seconds: float, error: BaseException | None) -> None:
    event = delivery.event
    kind = None if error is None else type(error).__qualname__
    _log.log(
        level,
        "%s of event %s (%s) from %s to %s/%s, attempt %d, after %.3f s%s",
        *(
            outcome,
            event.id,
            event.type,
            event.source,
            delivery.topic,
            delivery.subscription,
            delivery.attempt,
            seconds,
        ),
        "" if kind is None else f": {kind}",
        extra={
            "event_id": event.id,
            "event_type": event.type,
            "event_source": event.source,
            "topic": delivery.topic,
            "subscription": delivery.subscription,
            "attempt": delivery.attempt,
            "outcome": outcome,
            "seconds": seconds,
            "error": kind,
        },
    )
