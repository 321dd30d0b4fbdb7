"""Workers that carry out wrongly what is right."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import ClassVar

from cloudevents_bridge import BridgeError, Delivery, Reject, Retry, clock
from cloudevents_bridge.consumer import Consumer
from cloudevents_bridge.core.contact import Contact, Missed
from cloudevents_bridge.core.lanes import Entry
from cloudevents_bridge.driver import Verb
from cloudevents_bridge.inlet import Inlet, Poison
from cloudevents_bridge.outcomes import Outcomes
from cloudevents_bridge.router import _Route, _Table
from cloudevents_bridge.runs import Caller, Run
from cloudevents_bridge_contract.broken.shell import AWKWARD, BrokenShell


class AcksBeforeTheHandlerReturns(BrokenShell, Caller):
    """Takes a handler for done when it begins."""

    caught_by = "worker.nothing_is_acked_before_its_handler_returns"

    def call(self, run: Run, ended: Callable[[Run], None]) -> bool:
        ended(run)
        super().call(run, lambda run: None)
        return False


class AcksWhatFailed(BrokenShell, Outcomes):
    """Acks whatever a handler does."""

    caught_by = "worker.last_failed_run_dead_letters"

    def conclude(self, entry: Entry, error: BaseException | None, now: float) -> None:
        super().conclude(entry, None, now)


class SwallowsReject(BrokenShell, Outcomes):
    """Acks what a handler rejects."""

    caught_by = "worker.reject_dead_letters_at_once[def]"

    def conclude(self, entry: Entry, error: BaseException | None, now: float) -> None:
        super().conclude(entry, None if isinstance(error, Reject) else error, now)


class IgnoresRetryDelay(BrokenShell, Outcomes):
    """Takes a `Retry` for any other exception."""

    caught_by = "worker.retry_waits_as_long_as_it_says[async]"

    def conclude(self, entry: Entry, error: BaseException | None, now: float) -> None:
        super().conclude(entry, Retry(None) if isinstance(error, Retry) else error, now)


class SettlesLostLeases(BrokenShell, Outcomes):
    """Acks what may be another consumer's by now, and says nothing."""

    caught_by = "worker.lost_lease_is_told_to_the_handler[def]"

    def conclude(self, entry: Entry, error: BaseException | None, now: float) -> None:
        entry.lost = False
        entry.delivery._lost_at = inf
        super().conclude(entry, error, now)


class CancelsNobody(BrokenShell, Run):
    """Lets an async handler run on when its lease is lost."""

    caught_by = "worker.stream_that_is_taken_away_is_told_to_the_handler[async]"

    def cancel(self) -> None:
        """It goes on."""


class KeepsTheSlotOfARetry(BrokenShell, Caller):
    """Waits for the retry where the handler ran, so that nothing else can run there."""

    caught_by = "worker.poison_event_does_not_stop_the_others"

    def call(self, run: Run, ended: Callable[[Run], None]) -> bool:
        def wait(run: Run) -> None:
            if isinstance(run.error, Retry) and run.error.delay:
                time.sleep(run.error.delay)
            ended(run)

        if super().call(run, wait):
            wait(run)
        return False


class DropsWhatItFetchedAhead(BrokenShell, Inlet):
    """Says that it gave back."""

    caught_by = "worker.stop_finishes_what_runs_and_gives_back_the_rest[async]"
    over = AWKWARD

    def settle(
        self, verb: Verb, deliveries: Sequence[Delivery], *, seconds: float = 0.0, timeout: float | None = None
    ) -> list[BridgeError | None]:
        if verb != "release":
            return super().settle(verb, deliveries, seconds=seconds, timeout=timeout)
        with self.guard:
            for delivery in deliveries:
                self._out.pop(delivery, None)
        return [None for _ in deliveries]


class DropsWhatComesLate(BrokenShell, Consumer):
    """Forgets what a receive brings that was under way at stop."""

    caught_by = "worker.what_comes_after_stop_goes_back_at_once"
    over = AWKWARD

    def _received(self, asked: int, deliveries: list[Delivery], poison: list[Poison]) -> bool:
        if self._inbox.stopping:
            for delivery in deliveries:
                self._inlet._out.pop(delivery, None)
            deliveries = []
        return super()._received(asked, deliveries, poison)


class TakesAgainAtStop(BrokenShell, Inlet):
    """Goes on receiving when it is stopped, a dozen times, and gives back what comes: each time spends an attempt."""

    caught_by = "worker.held_retry_goes_back_at_stop"
    over = AWKWARD

    def stop(self) -> None:
        taken = 0
        until = clock.now() + 2.0
        while taken < 12 and clock.now() < until:
            taken += len(again := self.receive_once(1, 0.0)[0])
            self.settle("release", again)
        super().stop()


class LeavesAFileOpen(BrokenShell, Inlet):
    """Opens one for each run of a worker."""

    caught_by = "life.worker_leaves_no_thread_on_a_broker_that_stays_open"
    files: ClassVar[list[int]] = []

    def stop(self) -> None:
        self.files.append(os.open(os.devnull, os.O_RDONLY))
        super().stop()

    @classmethod
    @contextmanager
    def at_work(cls) -> Iterator[None]:
        try:
            with super().at_work():
                yield
        finally:
            while cls.files:
                os.close(cls.files.pop())


class LeavesItsThreads(BrokenShell, Consumer):
    """Ends without its threads."""

    caught_by = "life.worker_leaves_nothing"

    def close(self, until: float) -> None:
        self._inlet.close()


class WaitsForEver(BrokenShell, Consumer):
    """Ends when its handlers do, and not when their grace is over."""

    caught_by = "worker.stop_within_its_grace_of_a_handler_that_hangs[async]"

    def abandon(self) -> None:
        until = clock.now() + 6.0
        while self._runs and clock.now() < until:
            time.sleep(0.01)
        super().abandon()


class GivesUpAtOnce(BrokenShell, Contact):
    """Ends the worker when the broker does not answer."""

    caught_by = "worker.broker_that_is_down_is_waited_for"

    def missed(self, error: BridgeError, now: float) -> Missed:
        return super().missed(error, now)._replace(give_up=True)


class NeverGivesUp(BrokenShell, Contact):
    """Asks for ever for a subscription that does not exist."""

    caught_by = "worker.missing_subscription_comes_out_of_run"

    def missed(self, error: BridgeError, now: float) -> Missed:
        return super().missed(error, now)._replace(give_up=False)


class AlwaysConnected(BrokenShell, Contact):
    """Says that it is connected when it is not."""

    caught_by = "worker.token_that_expires_is_waited_for"

    def missed(self, error: BridgeError, now: float) -> Missed:
        missed = super().missed(error, now)
        self.connected = True
        return missed


class TakesAnyHandler(BrokenShell, _Table):
    """Gives an event to the handler for any type, where there is one, before those for its own."""

    caught_by = "worker.router_picks_the_most_specific[def]"

    def find(self, type: str) -> _Route | None:
        return self.routes.get("*") or super().find(type)
