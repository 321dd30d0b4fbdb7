"""Settling on a subscriber driver: native batches, retries, and one outcome for each message."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from msgspec.structs import replace

from cloudevents_bridge import clock
from cloudevents_bridge.driver import Done, Fault, Inbound, ReceiveTraits, SubscriberDriver, Verb
from cloudevents_bridge.errors import BridgeError, ErrorCode
from cloudevents_bridge.faults import fault_of, to_error
from cloudevents_bridge.session import Session

_UNTRIED = Fault(ErrorCode.INTERNAL, retryable=False, maybe_applied=False, message="it was not tried")


def settle(
    session: Session,
    driver: SubscriberDriver,
    verb: Verb,
    messages: Sequence[Inbound],
    *,
    seconds: float = 0.0,
    reason: str = "",
    timeout: float | None = None,
) -> list[Done | Fault]:
    """Apply one verb to messages; `seconds` is its delay or lease. Only what failed and may succeed is tried again.

    Args:
        timeout: seconds for all of it; None: as the session says.
    """
    outcomes: list[Done | Fault] = [_UNTRIED] * len(messages)
    todo: Sequence[int] = range(len(messages))

    def attempt(left: float) -> None:
        nonlocal todo
        again: list[int] = []
        for chunk in _cut(todo, messages, driver.traits):
            results = _send(session, driver, verb, [messages[place] for place in chunk], seconds, reason, left)
            for place, said in zip(chunk, results, strict=True):
                if isinstance(said, Fault):
                    outcomes[place] = fault = _with_lost_answer(said, outcomes[place])
                    if fault.retryable:
                        again.append(place)
                else:
                    outcomes[place] = said
        todo = again
        if again:
            first = outcomes[again[0]]
            assert isinstance(first, Fault)
            raise to_error(first, verb, session.broker)

    # What still fails in the end has its own outcome.
    with suppress(BridgeError):
        config = session.config
        limit = config.timeout if timeout is None else timeout
        config.backoff.call(attempt, timeout=limit, clock=clock.now, sleep=time.sleep)
    return outcomes


def handle_size(message: Inbound) -> int:
    """Bytes of what names it in a settle; 0 where that is an object of the driver's."""
    return len(message.handle) if isinstance(message.handle, (str, bytes)) else 0


def _cut(places: Sequence[int], messages: Sequence[Inbound], traits: ReceiveTraits) -> Iterator[Sequence[int]]:
    """What goes into each request."""
    if not traits.settle_bytes:
        for start in range(0, len(places), traits.settle_count):
            yield places[start : start + traits.settle_count]
        return
    chunk: list[int] = []
    size = 0
    for place in places:
        more = handle_size(messages[place])
        if chunk and (len(chunk) >= traits.settle_count or traits.settle_bytes < size + more):
            yield chunk
            chunk, size = [], 0
        chunk.append(place)
        size += more
    if chunk:
        yield chunk


def _send(
    session: Session,
    driver: SubscriberDriver,
    verb: Verb,
    chunk: list[Inbound],
    seconds: float,
    reason: str,
    timeout: float,
) -> Sequence[Done | Fault]:
    try:
        outcomes = driver.settle(verb, chunk, seconds=seconds, reason=reason, timeout=timeout)
    except Exception as error:  # noqa: BLE001 - every error becomes the outcome of each message
        return [fault_of(session.connection, error)] * len(chunk)
    if len(outcomes) != len(chunk):
        text = f"the driver gave {len(outcomes)} outcomes for {len(chunk)} deliveries"
        return [Fault(ErrorCode.INTERNAL, retryable=False, maybe_applied=True, message=text)] * len(chunk)
    return outcomes


def _with_lost_answer(fault: Fault, earlier: Done | Fault) -> Fault:
    """A failure after a lost answer: it may have been done all the same."""
    lost = isinstance(earlier, Fault) and earlier.maybe_applied
    return replace(fault, maybe_applied=True) if lost else fault
