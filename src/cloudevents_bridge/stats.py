"""What was done with the events of subscriptions, in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple


class Stats(NamedTuple):
    """What a worker did so far, and does now.

    Attributes:
        handled: deliveries whose runs ended well.
        failed: deliveries whose runs did not.
        dead_lettered: deliveries given up on.
        in_flight: runs under way.
        stalled: those of them that take longer than three leases.
        connected: whether the last receive of every subscription worked.
        last_event: when the last event came.
    """

    handled: int
    failed: int
    dead_lettered: int
    in_flight: int
    stalled: int
    connected: bool
    last_event: datetime | None


NOTHING = Stats(0, 0, 0, 0, 0, connected=False, last_event=None)


def total(each: Iterable[Stats]) -> Stats:
    """What several did together; `connected` if all are, and there is one."""
    every = list(each)
    seen = [stats.last_event for stats in every if stats.last_event is not None]
    return Stats(
        sum(stats.handled for stats in every),
        sum(stats.failed for stats in every),
        sum(stats.dead_lettered for stats in every),
        sum(stats.in_flight for stats in every),
        sum(stats.stalled for stats in every),
        connected=bool(every) and all(stats.connected for stats in every),
        last_event=max(seen, default=None),
    )
