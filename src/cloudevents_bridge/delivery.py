"""One delivery, and the words that settle it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from cloudevents_bridge import clock, driver
from cloudevents_bridge._members import Value
from cloudevents_bridge.core.leases import margin
from cloudevents_bridge.driver import Capability, Inbound
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    ErrorCode,
    InvalidArgumentError,
    LeaseLostError,
    make_error,
)
from cloudevents_bridge.event import CloudEvent

if TYPE_CHECKING:
    from cloudevents_bridge.inlet import Inlet

log = logging.getLogger("cloudevents_bridge")
Word = Literal["acked", "given back", "dead-lettered"]


class Retry(Exception):  # noqa: N818 - a handler's word, not a failure of the library
    """Raised by a handler: give the delivery back, to be delivered again.

    Args:
        delay: seconds until then; None: the subscription's redelivery back-off for this attempt.
        reason: for the log, and for the dead letter if this was the last attempt.

    Raises:
        InvalidArgumentError: if the delay is negative or no number.
    """

    def __init__(self, delay: float | None = None, reason: str = "") -> None:
        if delay is not None and not 0 <= delay < float("inf"):
            raise InvalidArgumentError(
                f"Retry({delay!r}): the delay must be 0 or more seconds, or None for the back-off"
            )
        super().__init__(delay, reason)
        self.delay = delay
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "retry"


class Postponed(Retry):
    """The event was not run, through no fault of its own: it comes again, and is never dead-lettered for it."""


class Reject(Exception):  # noqa: N818 - a handler's word, not a failure of the library
    """Raised by a handler: the event can never be handled; dead-letter it now, with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RawMessage(NamedTuple):
    """A native message as it came: its body, its attributes, and the SDK's own object where there is one."""

    body: bytes
    attributes: Mapping[str, Value]
    native: Any


class Verdict(NamedTuple):
    """What becomes of a delivery whose run failed: a nack with a delay, or a dead letter with a reason."""

    verb: Literal["nack", "dead"]
    delay: float = 0.0
    reason: str = ""


class Delivery:
    """One attempt to hand one event to one consumer. As a context manager it gives the event, acks when the block
    ends well and gives the delivery back, with back-off, when it raises.

    Attributes:
        event: the event.
        attempt: 1 for the first delivery; an upper bound.
        native: the SDK's own object.
    """

    __slots__ = (
        *(
            "__weakref__",
            "_again",
            "_ends",
            "_inbound",
            "_inlet",
            "_lease",
            "_lost_at",
            "_postponed",
            "_unrun",
            "_word",
        ),
        *("attempt", "event"),
    )

    def __init__(self, inlet: Inlet, inbound: Inbound, event: CloudEvent, received: float) -> None:
        self.event = event
        self.attempt = inbound.attempt or 1
        self._inlet = inlet
        self._inbound = inbound
        self._grant(inbound.lease, received + inbound.lease)
        self._word: Word | None = None
        self._again: float | None = None  # seconds until the worker runs it again, when it was given back by hand
        self._postponed = False  # it was given back by `Postponed`
        self._unrun = 0  # how often it was postponed before, and held here

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._inlet.of.topic.name

    @property
    def subscription(self) -> str:
        """The subscription's name."""
        return self._inlet.of.name

    @property
    def native(self) -> Any:
        return self._inbound.native

    @property
    def lease_lost(self) -> bool:
        """Whether other consumers may have it by now. False once it is settled."""
        return self._word is None and clock.now() >= self._lost_at

    def ack(self) -> None:
        """It is done: never deliver it again. Acking twice is harmless.

        Raises:
            LeaseLostError: if the lease ended before; the event is delivered again.
            BridgeError: FAILED_PRECONDITION if it was given back or dead-lettered, or what the broker said.
        """
        if self._claim("acked"):
            self._settle("ack")

    def nack(self, *, delay: float | None = None) -> None:
        """It failed: give it back, to be delivered again after `delay` seconds (None: the subscription's redelivery
        back-off for this attempt). After the subscription's `max_attempts` it is dead-lettered instead.

        Raises:
            LeaseLostError: if the lease ended before; the event is delivered again all the same.
            BridgeError: FAILED_PRECONDITION if it was acked or dead-lettered, or what the broker said.
        """
        self._fail(delay, None)

    def dead_letter(self, reason: str) -> None:
        """Give it up: move it to the subscription's dead letters, with the reason.

        Raises:
            LeaseLostError: if the lease ended before; the event is delivered again.
            BridgeError: FAILED_PRECONDITION if it was acked or given back, or what the broker said.
        """
        self._bury(reason, None)

    def extend(self, seconds: float) -> None:
        """Keep the lease for `seconds` from now; the broker may grant less.

        Raises:
            UnsupportedError: if the broker has no `Capability.EXTEND`.
            LeaseLostError: if the lease had ended.
        """
        if not 0 < seconds < math.inf:
            raise InvalidArgumentError(f"extend by {seconds!r}: it must be more than 0 seconds")
        self._inlet.check()
        self._inlet.session.require(Capability.EXTEND, "declare the subscription with a longer lease")
        self._check_open("extended")
        self._check_lease()
        error = self._inlet.settle("extend", [self], seconds=seconds)[0]
        if error:
            raise error

    def give_back(self) -> None:
        """Give it back at once without calling it a failure; no attempt is spent where the broker can do so.

        Raises:
            BridgeError: as `nack`.
        """
        if self._claim("given back"):
            self._settle("release")

    def __enter__(self) -> CloudEvent:
        return self.event

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._word is not None:
            return
        if error is None:
            self.ack()
            return
        try:
            if isinstance(error, Reject):
                self._bury(error.reason, None)
            elif isinstance(error, Retry):
                self._fail(error.delay, error)
            elif isinstance(error, Exception):
                self._fail(None, error)
            else:
                self.give_back()
        except BridgeError as unsettled:
            log.warning("event %s (%s) could not be settled: %s", self.event.id, self.event.type, unsettled)

    def __reduce__(self) -> tuple[Any, ...]:
        of = self._inlet.of
        return _elsewhere, (self.event, self.attempt, of.topic.name, of.name, self._inlet.session.broker)

    def __repr__(self) -> str:
        return (
            f"<Delivery of {self.event!r} to {self.topic}/{self.subscription}, attempt {self.attempt}, "
            f"{self._word or 'not settled'}>"
        )

    def _fail(self, delay: float | None, error: BaseException | None) -> None:
        if self._word is None:
            self._inlet.check()
        verdict = self._judge(delay, error)
        self._postponed = isinstance(error, Postponed)
        if verdict.verb == "dead":
            self._bury(verdict.reason, error)
        elif self._claim("given back"):
            try:
                self._inlet.nack(self, verdict.delay)
            except BaseException:
                self._unclaim()
                raise

    def _judge(self, delay: float | None, error: BaseException | None) -> Verdict:
        """What becomes of it after a run that raised `error`, for which `delay` seconds were asked, or None."""
        policy = self._inlet.declared
        failed = not isinstance(error, Postponed)
        if failed and self.attempt >= policy.max_attempts and not self._inlet.of_dead_letters:
            runs = "run" if self.attempt == 1 else "runs"
            reason = f"{self.attempt} {runs} failed, and max_attempts is {policy.max_attempts}"
            return Verdict("dead", reason=reason)
        if delay is None:
            delay = self._inlet.redelivery.jitter(self.attempt)
        elif not 0 <= delay < math.inf:
            raise InvalidArgumentError(f"nack with delay {delay!r}: it must be 0 or more seconds")
        return Verdict("nack", delay)

    def _renewed(self) -> Delivery:
        """The same, for one more run here: the broker has not delivered it again."""
        again = Delivery(self._inlet, self._inbound, self.event, 0.0)
        again._grant(self._lease, self._ends)
        again.attempt, again._unrun = self.attempt + (not self._postponed), self._unrun + self._postponed
        return again

    def _bury(self, reason: str, error: BaseException | None) -> None:
        if self._claim("dead-lettered"):
            try:
                self._inlet.bury(self, reason, error)
            except BaseException:
                self._unclaim()
                raise

    def _settle(self, verb: Literal["ack", "release"]) -> None:
        if self._inlet.deferred:
            self._again = 0.0 if verb == "release" else None
            return
        try:
            error = self._inlet.settle(verb, [self])[0]
        except BaseException:
            self._unclaim()
            raise
        if error:
            self._unclaim()
            raise error

    def _claim(self, word: Word) -> bool:
        """Take the right to settle. False: it is settled so already.

        Raises:
            BridgeError: if it is settled in another way, or its lease is lost.
        """
        if self._word == word:
            return False
        self._inlet.check()
        with self._inlet.guard:
            if self._word == word:
                return False
            self._check_open(word)
            self._check_lease()
            self._word = word
            return True

    def _grant(self, lease: float, ends: float) -> None:
        """It is ours for so many seconds, until then."""
        self._lease = lease
        self._ends = ends
        self._lost_at = ends - margin(lease)  # by our own clock, from when other consumers may have it

    def _lose(self) -> None:
        """The broker said that the lease is lost."""
        self._grant(self._lease, min(self._ends, clock.now()))

    def _unclaim(self) -> None:
        self._word = None

    def _check_open(self, word: str) -> None:
        if self._word is not None:
            raise make_error(
                ErrorCode.FAILED_PRECONDITION,
                f"{self._name()} was {self._word} and cannot be {word} any more: settle a delivery once",
                broker=self._inlet.session.broker,
            )

    def _check_lease(self) -> None:
        if self.lease_lost:
            raise LeaseLostError(
                f"the lease of {self._name()} ended {clock.now() - self._lost_at:.3g} s ago and the "
                "event is delivered again: declare a longer lease, or extend it while working",
                broker=self._inlet.session.broker,
            )

    def _name(self) -> str:
        return (
            f"the delivery of event {self.event.id} to {self.topic}/{self.subscription} on {self._inlet.session.broker}"
        )


class _Elsewhere:
    """In place of the subscriber, in a process that a delivery was pickled to: there it can be looked at."""

    def __init__(self, of: driver.Subscription, broker: str) -> None:
        self.of = of
        self.of_dead_letters = False
        self._broker = broker

    def check(self) -> None:
        raise ClosedError(
            f"this is a copy of a delivery of {self.of.topic.name}/{self.of.name}: settle it where it was received",
            broker=self._broker,
        )


def _elsewhere(event: CloudEvent, attempt: int, topic: str, subscription: str, broker: str) -> Delivery:
    inlet = _Elsewhere(driver.Subscription(driver.Topic(topic), subscription), broker)
    return Delivery(cast("Inlet", inlet), Inbound(b"", {}, None, 0.0, attempt), event, clock.now())
