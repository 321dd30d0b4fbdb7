"""Workers that decide wrongly what becomes of their deliveries."""

from __future__ import annotations

from typing import Any, Literal

from cloudevents_bridge.core.inbox import Inbox
from cloudevents_bridge.core.lanes import Entry, Lanes
from cloudevents_bridge.core.leases import Due, Leases
from cloudevents_bridge.core.prefetch import Prefetch
from cloudevents_bridge_contract.broken.shell import AWKWARD, BrokenShell


class HotLoops(BrokenShell, Inbox):
    """Runs what failed again at once."""

    caught_by = "worker.failed_run_is_repeated_with_a_growing_delay[def]"

    def retry(self, entry: Entry, delay: float, now: float, *, unrun: bool = False) -> None:
        super().retry(entry, 0.0, now, unrun=unrun)


class RetriesBehindItsKey(BrokenShell, Inbox):
    """Lets the next of the key run while one that failed waits for its retry."""

    caught_by = "order.retries_neither_overtake_nor_are_overtaken"
    over = AWKWARD

    def retry(self, entry: Entry, delay: float, now: float, *, unrun: bool = False) -> None:
        if entry.state == "running" and not entry.lost:
            self._lanes.end(entry, "settling")
            self._settle(entry, "nack", min(delay, self._nack_delay), now)


class RunsTwoOfAKey(BrokenShell, Lanes):
    """Knows no ordering keys."""

    caught_by = "order.keys_run_side_by_side"
    over = AWKWARD

    def add(self, entry: Entry) -> None:
        entry.key = None
        super().add(entry)


class OneKeyAtATime(BrokenShell, Lanes):
    """Puts all ordering keys into one lane."""

    caught_by = "order.failed_key_holds_only_its_own_in_a_worker"
    over = AWKWARD

    def add(self, entry: Entry) -> None:
        entry.key = entry.key and "all"
        super().add(entry)


class FollowersOutliveTheirHead(BrokenShell, Inbox):
    """Keeps what waits behind an event whose lease is lost, and runs it before that comes again."""

    caught_by = "order.lost_lease_of_the_head_drops_its_key"
    over = AWKWARD

    def lose(self, entry: Entry, now: float) -> None:
        self._leases.lose(entry)
        entry.lost = True


class BuriesFollowers(BrokenShell, Inbox):
    """Dead-letters what waits behind a dead one."""

    caught_by = "traps.head_that_fails_for_ever_dies_alone"
    over = AWKWARD

    def done(self, entry: Entry, verb: Literal["ack", "dead"], now: float) -> None:
        behind = self._lanes.drop_behind(entry) if verb == "dead" else []
        for each in behind:
            each.why = entry.why
            self._settle(each, "dead", 0.0, now)
        super().done(entry, verb, now)


class ExceedsConcurrency(BrokenShell, Inbox):
    """Starts one handler more than it may."""

    caught_by = "worker.concurrency_is_reached_and_never_exceeded[4-async]"

    def __init__(self, traits: Any, *, concurrency: int, **settings: Any) -> None:
        super().__init__(traits, concurrency=concurrency + 1, **settings)


class OneAtATime(BrokenShell, Inbox):
    """Starts one handler, however many it may."""

    caught_by = "worker.concurrency_is_reached_and_never_exceeded[4-def]"

    def __init__(self, traits: Any, *, concurrency: int, **settings: Any) -> None:
        super().__init__(traits, concurrency=1, **settings)


class NeverAsksToExtend(BrokenShell, Leases):
    """Lets the leases of slow handlers end."""

    caught_by = "worker.handler_slower_than_the_lease_is_not_run_twice[def]"

    def due(self, now: float) -> Due:
        return super().due(now)._replace(extend=[])

    def wake_at(self) -> float | None:
        return min((held.ends for held in self), default=None)


class DeadLettersAtStop(BrokenShell, Inbox):
    """Dead-letters what it has not run when it is stopped."""

    caught_by = "worker.rolling_restarts_dead_letter_nothing"

    def _release(self, entries: list[Entry], now: float) -> None:
        for entry in entries:
            entry.why = ("the worker was stopped", None)
            self._settle(entry, "dead", 0.0, now)


class AcksWhatHangs(BrokenShell, Inbox):
    """Acks what its handlers have not finished when the grace period is over."""

    caught_by = "worker.stop_within_its_grace_of_a_handler_that_hangs[def]"

    def abandon(self, now: float) -> list[Entry]:
        left = [entry for entry in self.entries() if entry.state == "running"]
        for entry in left:
            self._lanes.end(entry, "settling")
            self._settle(entry, "ack", 0.0, now)
        return left


class CutsHandlersOff(BrokenShell, Inbox):
    """Gives back what runs as soon as it is stopped, without grace."""

    caught_by = "worker.stop_finishes_what_runs_and_gives_back_the_rest[def]"

    def stop(self, now: float) -> None:
        super().stop(now)
        self.abandon(now)


class ForgetsHeldRetries(BrokenShell, Inbox):
    """Gives back at stop what waits for its first run, and not what is held for another."""

    caught_by = "worker.held_retry_goes_back_at_stop"

    def stop(self, now: float) -> None:
        self.stopping = True
        for entry in self.entries():
            if entry.state == "waiting":
                self._drop(entry, now)

    @property
    def in_memory(self) -> int:
        return super().in_memory - self._holding.count


class FetchesWithoutBound(BrokenShell, Prefetch):
    """Fetches whatever there is."""

    caught_by = "worker.slow_handler_bounds_what_is_held"

    def wanted(self, now: float, *, active: int, ready: int, free: int, size: int) -> int:
        return 0 if self.polls else self._batch


class CountsNoBytes(BrokenShell, Prefetch):
    """Bounds the number of deliveries in memory, and not their size."""

    caught_by = "worker.large_events_bound_what_is_held"

    def wanted(self, now: float, *, active: int, ready: int, free: int, size: int) -> int:
        return super().wanted(now, active=active, ready=ready, free=free, size=0)

    def received(self, asked: int, sizes: list[int]) -> None:
        super().received(asked, [0] * len(sizes))

    def _rate_until(self, now: float) -> None:
        super()._rate_until(now)
        self.most = self._slots + self._deepest  # on a slow machine, too


class BeginsBig(BrokenShell, Prefetch):
    """Fetches as many as it may from the first moment on."""

    caught_by = "worker.receives_begin_small"

    def __init__(self, slots: int, batch_count: int, receives: int, **settings: Any) -> None:
        super().__init__(slots, batch_count, receives, **settings)
        self._window = slots


class NeverGrows(BrokenShell, Prefetch):
    """Fetches one by one for ever."""

    caught_by = "worker.batch_handler_gets_lists"

    def wanted(self, now: float, *, active: int, ready: int, free: int, size: int) -> int:
        return min(super().wanted(now, active=active, ready=ready, free=free, size=size), 1 - min(active, 1))
