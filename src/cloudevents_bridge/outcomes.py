"""What becomes of a delivery whose run ended: ack, another run, or a dead letter; decided, said and carried out."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from cloudevents_bridge import clock
from cloudevents_bridge.core.inbox import Inbox
from cloudevents_bridge.core.lanes import Entry
from cloudevents_bridge.core.settlements import Settlement
from cloudevents_bridge.delivery import Delivery, Postponed, Reject, Retry, Word, log
from cloudevents_bridge.errors import BridgeError, DecodeError
from cloudevents_bridge.handlers import is_of

if TYPE_CHECKING:
    from cloudevents_bridge.inlet import Inlet


def ends_program(error: BaseException | None) -> bool:
    """Whether what a handler raised is meant for the program (SystemExit, KeyboardInterrupt), not for its event."""
    if error is None or isinstance(error, Exception):
        return False
    asyncio = sys.modules.get("asyncio")  # what was not imported has cancelled nothing
    return asyncio is None or not isinstance(error, asyncio.CancelledError)


class Outcomes:
    """Settles the deliveries of one inbox.

    Attributes:
        handled: runs that ended well.
        failed: runs that did not.
        dead_lettered: deliveries given up on.
    """

    def __init__(self, inbox: Inbox, inlet: Inlet) -> None:
        self._inbox = inbox
        self._inlet = inlet
        self.handled = self.failed = self.dead_lettered = 0

    def conclude(self, entry: Entry, error: BaseException | None, now: float) -> None:
        """Take the outcome of a run: what its handler raised, or None. The caller holds the inbox's lock."""
        delivery: Delivery = entry.delivery
        inbox = self._inbox
        if now >= delivery._lost_at and delivery._word is None and entry.state == "running" and not entry.lost:
            inbox.lose(entry, now)
        if entry.lost or entry.state != "running":
            self.failed += 1
            if not inbox.stopping:
                log.warning("the lease of %s ended while its handler ran: it is delivered again", name(delivery))
            inbox.done(entry, "ack", now)
        elif delivery._again is not None:
            self.failed += not delivery._postponed
            self._retry(entry, delivery._again, now)
        elif delivery._word is not None:
            self._count(delivery._word)
            inbox.settled_by_hand(entry, now)
        elif error is None:
            self.handled += 1
            delivery._word = "acked"
            inbox.done(entry, "ack", now)
        else:
            delivery._postponed = isinstance(error, Postponed)
            self.failed += not delivery._postponed
            self._fail(entry, error, now)

    def _fail(self, entry: Entry, error: BaseException, now: float) -> None:
        delivery: Delivery = entry.delivery
        if ends_program(error):
            self._inbox.stop(now)
            self._release(entry, now)
            return
        if (isinstance(error, Reject) or is_of(error, delivery)) and not self._inlet.of_dead_letters:
            reason = error.reason if isinstance(error, Reject) else str(error)
            self._bury(entry, reason, None, error, now)
            return
        verdict = delivery._judge(error.delay if isinstance(error, Retry) else None, error)
        uncounted = verdict.verb == "dead" or delivery._postponed
        if self._inbox.stopping and uncounted:  # which never dead-letters
            self._release(entry, now)
            _say(delivery, error, "it is given back")
        elif verdict.verb == "nack":
            self._retry(entry, verdict.delay, now)
            _say(delivery, error, f"it runs again in about {verdict.delay:.3g} s")
        else:
            self._bury(entry, verdict.reason, error, error, now)

    def _retry(self, entry: Entry, delay: float, now: float) -> None:
        delivery: Delivery = entry.delivery
        delivery._word = "given back"
        self._inbox.retry(entry, delay, now, unrun=delivery._postponed)
        if entry.state == "held":
            entry.delivery = self._inlet.renew(delivery)

    def _release(self, entry: Entry, now: float) -> None:
        entry.delivery._word = "given back"
        self._inbox.release(entry, now)

    def _bury(
        self, entry: Entry, reason: str, kept: BaseException | None, error: BaseException | None, now: float
    ) -> None:
        entry.delivery._word = "dead-lettered"
        entry.why = (reason, kept)
        _say(entry.delivery, error, f"it is dead-lettered: {reason}")
        self._inbox.done(entry, "dead", now)

    def _count(self, word: Word) -> None:
        if word == "acked":
            self.handled += 1
        else:
            self.failed += 1
            self.dead_lettered += word == "dead-lettered"

    def carry_out(self, settlement: Settlement) -> list[tuple[Entry, float]]:
        """Settle, with requests; without the lock.

        Returns:
            What could not be dead-lettered, each with the seconds after which it shall come again.
        """
        if settlement.verb == "dead":
            return [failed for entry in settlement.marks if (failed := self._dead_letter(entry)) is not None]
        deliveries: list[Delivery] = [entry.delivery for entry in settlement.marks]
        for delivery in deliveries:
            if delivery._word is None:
                delivery._word = "given back"
        if settlement.verb == "ack":  # asked again at the last moment: some brokers take a stale ack for a good one
            now = clock.now()
            late = [delivery for delivery in deliveries if now >= delivery._lost_at]
            for delivery in late:
                log.warning("the lease of %s ended before it could be acked: it is delivered again", name(delivery))
            deliveries = [delivery for delivery in deliveries if delivery not in late] if late else deliveries
        for error in self._inlet.settle(settlement.verb, deliveries, seconds=settlement.seconds):
            if error is not None:
                log.warning("%s; the event is delivered again when its lease ends", error)
        return []

    def carried_out(self, settlement: Settlement, failed: list[tuple[Entry, float]], now: float) -> None:
        """Take what came of a settlement. The caller holds the inbox's lock."""
        if settlement.verb == "dead":
            self.dead_lettered += len(settlement.marks) - len(failed)
        self._inbox.settled(settlement, now, failed)

    def _dead_letter(self, entry: Entry) -> tuple[Entry, float] | None:
        delivery: Delivery = entry.delivery
        reason, kept = entry.why
        try:
            self._inlet.bury(delivery, reason, kept)
        except BridgeError as error:
            log.error("%s; %s is not lost, and is delivered again", error, name(delivery))
            return entry, self._inlet.redelivery.jitter(delivery.attempt)
        return None


def name(delivery: Delivery) -> str:
    """The event of a delivery, as the log names it."""
    return f"event {delivery.event.id} ({delivery.event.type}) of {delivery.topic}/{delivery.subscription}"


def _say(delivery: Delivery, error: BaseException | None, then: str) -> None:
    if isinstance(error, Postponed):
        log.info("%s, attempt %d, was not run (%s); %s", name(delivery), delivery.attempt, error, then)
        return
    expected = isinstance(error, (Retry, Reject, DecodeError))
    why = f" ({error})" if isinstance(error, Retry) and error.reason else ""
    log.warning(
        "the run of %s, attempt %d, failed%s; %s",
        name(delivery),
        delivery.attempt,
        why,
        then,
        exc_info=None if expected or error is None else (type(error), error, _own_trace(error)),
    )


def _own_trace(error: BaseException) -> TracebackType | None:
    """The stack from the handler on: how it came to be called says nothing about its failure."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("cloudevents_bridge."):
        trace = trace.tb_next
    return trace or error.__traceback__
