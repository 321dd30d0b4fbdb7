"""One subscription of a worker: the threads around an inbox. What to do is decided there; here it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import inf

from cloudevents_bridge import clock
from cloudevents_bridge.core.contact import Contact
from cloudevents_bridge.core.inbox import Inbox
from cloudevents_bridge.core.lanes import Entry
from cloudevents_bridge.crew import Crew
from cloudevents_bridge.delivery import Delivery, log
from cloudevents_bridge.driver import Capability
from cloudevents_bridge.errors import BridgeError, ErrorCode, make_error
from cloudevents_bridge.faults import place_name
from cloudevents_bridge.inlet import Inlet, Poison
from cloudevents_bridge.outcomes import Outcomes, ends_program, name
from cloudevents_bridge.runs import Caller, Run
from cloudevents_bridge.settling import handle_size
from cloudevents_bridge.stats import Stats

SETTLERS = 4
"""Settle requests of one subscription under way at once, at most, and no more than its receives."""
POLL = 20.0
"""Seconds that one receive waits for an event, at most."""
STALL = 3
"""A run that lasts as many leases as this is reported, with its stack."""
LAST_WORDS = 0.5
"""Seconds for giving back what a receive brought that could not be cut short."""


class Consumer:
    """Consumes one subscription: receives, runs, settles and keeps leases, each in threads of its own.

    Args:
        caller: calls the handler.
        threads: in which it may be called at once.
        concurrency: runs at once.
        batch: deliveries in one run, at most.
        max_lease: seconds to which a delivery is kept, at most.
        ended: told why consuming cannot go on: an error, or what a handler ended the program with. Neither it nor
            `changed` may wait: the lock may be held.
        changed: told, after `stop`, when there is less to wait for.
    """

    def __init__(
        self,
        inlet: Inlet,
        caller: Caller,
        *,
        threads: int,
        concurrency: int,
        batch: int,
        max_lease: float,
        ended: Callable[[BaseException], None],
        changed: Callable[[], None],
    ) -> None:
        traits = inlet.traits
        settlers = min(SETTLERS, traits.receives)
        self.name = place_name(inlet.place)
        self._inlet = inlet
        self._caller = caller
        self._ended = ended
        self._changed = changed
        self._lock = threading.Lock()
        self._inbox = Inbox(
            traits,
            concurrency=concurrency,
            batch=batch,
            lease=inlet.declared.lease,
            extends=Capability.EXTEND in inlet.session.connection.capabilities,
            max_lease=max_lease,
            settlers=settlers,
        )
        self._outcomes = Outcomes(self._inbox, inlet)
        self._contact = Contact(inlet.session.config.backoff.jitter)
        self._poison: list[Poison] = []
        self._giving_up = 0
        self._runs: dict[int, Run] = {}
        self._runs_at = inf
        self._settles_at = inf
        self._keeps_at = inf
        self._active_at = clock.now()
        self._stall = STALL * inlet.declared.lease
        self._closing = False
        self._suspicious = inf if inlet.of_dead_letters else inlet.declared.max_attempts
        self._last_event: datetime | None = None
        of = f"{inlet.of.topic.name}/{inlet.of.name}"
        self._receivers = Crew(self._lock, f"ceb-receive-{of}", traits.receives, self._guarded(self._receive))
        self._runners = Crew(self._lock, f"ceb-run-{of}", threads, self._guarded(self._run))
        self._settlers = Crew(self._lock, f"ceb-settle-{of}", settlers, self._guarded(self._settle))
        self._keeper = Crew(self._lock, f"ceb-lease-{of}", 1, self._guarded(self._keep))
        inlet.holder = self
        inlet.lost = self._streams_lost
        inlet.deferred = traits.settle == "prefix"

    # -- for the worker

    def start(self) -> None:
        with self._lock:
            self._receivers.wake()

    def stop(self) -> None:
        """Fetch and start nothing more, and give back what does not run. Does not wait for what does."""
        with self._lock:
            self._inbox.stop(clock.now())
            self._receivers.wake_all()
            self._runners.wake_all()
            self._look(clock.now())
        self._inlet.stop()

    def abandon(self) -> None:
        """Give back what still runs."""
        with self._lock:
            left = self._inbox.abandon(clock.now())
            runs = list(self._runs.values())
            for entry in left:
                entry.delivery._word = entry.delivery._word or "given back"
            self._look(clock.now())
        for entry in left:
            log.warning(
                "the handler of %s runs on after the grace period: the event is given back", name(entry.delivery)
            )
        for run in runs:
            run.cancel()

    def close(self, until: float) -> None:
        """End, by that time on our clock. What is not settled by then comes again when its lease ends."""
        crews = (self._receivers, self._settlers, self._keeper, self._runners)
        with self._lock:
            self._closing = True
            for crew in crews:
                crew.wake_all()
            left_behind = self._inbox.running
        for crew in crews:
            if crew is not self._runners or not left_behind:  # a handler that hangs is not waited for
                crew.join(until)
        with self._lock:
            receiving = self._inbox.receiving_now
        if not receiving:  # else whoever receives closes it: such a receive cannot be cut short
            self._inlet.close(timeout=max(until - clock.now(), 0.1))

    @property
    def settled(self) -> bool:
        """Whether nothing waits to be settled."""
        with self._lock:
            return not (self._inbox.unsettled or self._poison or self._giving_up)

    @property
    def drained(self) -> bool:
        """Whether all that was received is settled, and no receive is under way."""
        with self._lock:
            return self._empty and not self._inbox.receiving_now

    def works_here(self) -> bool:
        """Whether this thread runs its handler."""
        return self._runners.here

    def idle_since(self) -> float | None:
        """Since when nothing came and nothing ran, on our clock; None: something does, or there is no contact."""
        with self._lock:
            return self._active_at if self._empty and self._contact.connected else None

    def counts(self) -> Stats:
        with self._lock:
            return Stats(
                self._outcomes.handled,
                self._outcomes.failed,
                self._outcomes.dead_lettered,
                self._inbox.running,
                sum(run.stalled for run in self._runs.values()),
                self._contact.connected,
                self._last_event,
            )

    # -- for the inlet

    def hold(self, delivery: Delivery, delay: float) -> bool:
        """A handler gives its delivery back: where it is to be held, that is done when the handler returns."""
        natively = delivery._inbound.key is None and self._inlet.traits.delays(delay)
        if natively and not self._inlet.deferred and not delivery._postponed:
            return False
        delivery._again = delay
        return True

    def _streams_lost(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            lost = {id(delivery) for delivery in deliveries}
            self._lose([entry for entry in self._inbox.entries() if id(entry.delivery) in lost], clock.now())

    # -- receiving

    def _receive(self) -> None:
        traits = self._inlet.traits
        while True:
            with self._lock:
                while not (asked := self._inbox.wanted(clock.now())):
                    if self._inbox.stopping:
                        return
                    self._receivers.wait(self._inbox.receive_at())
                self._inbox.receiving(asked)
                # The first one returns at once, to say that there is contact.
                wait = min(max(POLL, traits.wait[0]), traits.wait[1]) if self._contact.connected else traits.wait[0]
            try:
                deliveries, poison = self._inlet.receive_once(asked, wait)
            except Exception as error:  # noqa: BLE001 - the worker goes on, or ends and says why
                closing = self._missed(asked, error)
            else:
                closing = self._received(asked, deliveries, poison)
            if closing:  # without waiting for this receive, which was the last
                self._inlet.close(timeout=LAST_WORDS)

    def _received(self, asked: int, deliveries: list[Delivery], poison: list[Poison]) -> bool:
        """Take what a receive brought. Returns whether it is left to this thread to close."""
        entries = [self._entry(delivery) for delivery in deliveries]
        due = min([entry.ends - entry.lease / 2 for entry in entries], default=inf)  # or later, where it cannot be kept
        with self._lock:
            now = clock.now()
            if self._contact.reached():
                log.warning("receiving from %s on %s works again", self.name, self._inlet.session.broker)
            self._inbox.received(asked, entries, now)
            if entries or poison:
                self._poison += poison
                self._active_at = now
                self._last_event = datetime.now(UTC)
            self._keep_time(due)
            if poison:
                self._settlers.wake()
            self._look(now)
            return self._closing and not self._inbox.receiving_now

    def _missed(self, asked: int, error: Exception) -> bool:
        """A receive failed. Returns whether it is left to this thread to close."""
        if not isinstance(error, BridgeError):
            log.exception("receiving from %s failed", self.name)
            told = make_error(ErrorCode.INTERNAL, f"receiving from {self.name} failed: {error}")
            told.__cause__ = error
            error = told
        with self._lock:
            now = clock.now()
            missed = self._contact.missed(error, now)
            self._inbox.receive_failed(asked, now + missed.delay)
            stopping = self._inbox.stopping
            closing = self._closing and not self._inbox.receiving_now
            self._look(now)
        if missed.give_up and not stopping:
            self._ended(error)
        elif missed.news and not stopping:
            log.warning("%s; trying again until it works", error)
        return closing

    # -- running

    def _run(self) -> None:
        over: Run | None = None
        while True:
            with self._lock:  # once for the end of a run and the start of the next one
                now = clock.now()
                if over is not None:
                    self._conclude(over, now)
                while not (entries := self._inbox.next_run(now)):
                    at = self._inbox.run_at()
                    self._runs_at = inf if at is None else at
                    self._look(now)
                    if self._inbox.stopping:
                        return
                    self._runners.wait(at)
                    now = clock.now()
                run = Run(entries, now)
                self._runs[id(run)] = run
                self._runs_at = inf
                self._keep_time(now + self._stall)
                self._look(now)
            over = run if self._caller.call(run, self._ran) else None

    def _ran(self, run: Run) -> None:
        with self._lock:
            now = clock.now()
            self._conclude(run, now)
            self._look(now)

    def _conclude(self, run: Run, now: float) -> None:
        self._active_at = now
        del self._runs[id(run)]
        for entry in run.entries:
            self._outcomes.conclude(entry, run.error, now)
        self._inbox.ran(run.entries)
        if ends_program(run.error):
            assert run.error is not None
            self._ended(run.error)

    # -- settling

    def _settle(self) -> None:
        while True:
            with self._lock:
                settlement = None
                while not self._poison and (settlement := self._inbox.next_settlement(clock.now())) is None:
                    if self._closing:
                        return
                    self._settles_at = inf
                    self._settlers.wait(None)
                self._settles_at = inf
                poison, self._poison = self._poison, []
                self._giving_up += len(poison)
                self._look(clock.now())
            given_up = sum(self._inlet.give_up(each) for each in poison)
            failed = [] if settlement is None else self._outcomes.carry_out(settlement)
            with self._lock:
                now = self._active_at = clock.now()
                self._giving_up -= len(poison)
                self._outcomes.dead_lettered += given_up
                if settlement is not None:
                    self._outcomes.carried_out(settlement, failed, now)
                self._look(now)

    # -- keeping

    def _keep(self) -> None:
        while True:
            with self._lock:
                while True:
                    if self._closing:
                        return
                    now = clock.now()
                    due, lost = self._inbox.due(now)
                    stalled = self._stalled(now)
                    self._lose(lost, now)
                    if due or stalled:
                        break
                    at = self._inbox.lease_at()
                    starts = [run.started for run in self._runs.values() if not run.stalled]
                    asked = self._keeps_at if self._keeps_at > now else inf
                    self._keeps_at = min(asked, inf if at is None else at, min(starts, default=inf) + self._stall)
                    self._look(now)
                    self._keeper.wait(None if self._keeps_at == inf else self._keeps_at)
            for run in stalled:
                log.warning(
                    "the handler of %s has been running for %.3g s. It is here:\n%s",
                    name(run.entries[0].delivery),
                    now - run.started,
                    run.stack(),
                )
            self._extend(due)

    def _extend(self, due: list[Entry]) -> None:
        groups: dict[float, list[Entry]] = {}
        with self._lock:
            now = clock.now()
            for entry in due:
                delivery: Delivery = entry.delivery
                if delivery._ends > entry.ends:  # the handler did it
                    self._inbox.extended(entry, delivery._ends, delivery._lease)
                else:
                    seconds = min(delivery._inbound.lease, entry.last - now)
                    groups.setdefault(max(seconds, 0.001), []).append(entry)
        for seconds, entries in groups.items():
            left = min(entry.ends for entry in entries) - clock.now()
            errors = self._inlet.settle(
                "extend", [e.delivery for e in entries], seconds=seconds, timeout=max(left, 0.1)
            )
            with self._lock:
                now = clock.now()
                for entry, error in zip(entries, errors, strict=True):
                    if error is None:
                        self._inbox.extended(entry, entry.delivery._ends, entry.delivery._lease)
                    elif entry.state in ("settling", "gone"):
                        continue
                    elif error.code is ErrorCode.LEASE_LOST:
                        self._lose([entry], now)
                    else:
                        log.warning("%s", error)
                        self._inbox.not_extended(entry, now)
                self._look(now)

    def _lose(self, entries: list[Entry], now: float) -> None:
        for entry in entries:
            delivery: Delivery = entry.delivery
            if delivery._word is None and not delivery.lease_lost:  # the handler extended it
                entry.ends, entry.lease = delivery._ends, delivery._lease
                self._inbox.keep(entry)
                continue
            if entry.state == "settling" and delivery._word == "acked":
                log.warning("the lease of %s ended before it could be acked: it is delivered again", name(delivery))
            self._inbox.lose(entry, now)
            for run in self._runs.values():
                if len(run.entries) == 1 and run.entries[0] is entry:
                    run.cancel()
        if entries:
            self._look(now)

    def _stalled(self, now: float) -> list[Run]:
        found = [run for run in self._runs.values() if not run.stalled and now - run.started >= self._stall]
        for run in found:
            run.stalled = True
        return found

    # -- inside

    @property
    def _empty(self) -> bool:
        return not (self._inbox.in_memory or self._poison or self._giving_up)

    def _look(self, now: float) -> None:
        """Bring to work who has something to do. The lock is held."""
        inbox = self._inbox
        if self._runners.available:
            at = inbox.run_at()
            due = at is not None and at < self._runs_at
            if due or inbox.startable:
                if at is not None:
                    self._runs_at = at
                self._runners.wake()
        at = inbox.settle_at()
        if at is not None and at > now:  # the keeper keeps that time, too, and looks then: settlers come for work only
            self._keep_time(at)
        elif at is not None and at < self._settles_at and self._settlers.available:
            self._settles_at = at
            self._settlers.wake()
        if self._receivers.available and inbox.wanted(now):
            self._receivers.wake()
        if inbox.stopping:
            self._changed()

    def _keep_time(self, at: float) -> None:
        """Have the keeper look at that time, if it would not look before."""
        if at < self._keeps_at:
            self._keeps_at = at
            self._keeper.wake()

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the worker ends, and says why
                log.exception("a thread of the worker for %s failed", self.name)
                self._ended(error)

        return guarded

    def _entry(self, delivery: Delivery) -> Entry:
        inbound = delivery._inbound
        return Entry(
            inbound,
            delivery._ends,
            delivery._lease,
            delivery=delivery,
            key=inbound.key,
            stream=inbound.stream,
            size=len(inbound.body),
            handle_size=handle_size(inbound),
            # A run that fails this often is dead-lettered, so this one did not live to say that it failed.
            suspect=delivery.attempt > self._suspicious,
        )
