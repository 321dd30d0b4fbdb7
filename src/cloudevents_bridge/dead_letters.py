"""The dead letters of a subscription: to be found, replayed and purged."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

from cloudevents_bridge import clock, driver
from cloudevents_bridge.core.leases import margin
from cloudevents_bridge.delivery import RawMessage
from cloudevents_bridge.driver import DEAD_LETTER, TARGET, Capability, Fault, Inbound, Outbound
from cloudevents_bridge.errors import DecodeError, InvalidArgumentError, NotFoundError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.faults import place_name, to_error
from cloudevents_bridge.obituary import read
from cloudevents_bridge.outlet import Receipt
from cloudevents_bridge.session import Opener, Session
from cloudevents_bridge.settling import settle

LAST_LOOK = 1.0
"""Seconds to wait for a further letter before the place counts as read to its end."""


STALE_LOOKS = 3
"""Receives in a row that bring nothing new, after which the place counts as read: where a receive takes longer than the
lease, what is held comes again and again."""

BEYOND = 1000
"""Letters that are read beyond those wanted, for the copies of theirs that a crash has left."""


class DeadLetter(NamedTuple):
    """A delivery given up on.

    Attributes:
        id: stable over listings and replays: a hash of the subscription and the event's source and id.
        event: the event; None if it could not be decoded.
        raw: the native message, bytes intact.
        error: what the last run raised, if it did.
        attempts: runs, an upper bound.
        died: when it was given up.
    """

    id: str
    event: CloudEvent | None
    raw: RawMessage
    reason: str
    error: str | None
    attempts: int
    topic: str
    subscription: str
    died: datetime


class _InHand(NamedTuple):
    letter: DeadLetter
    inbound: Inbound
    reader: _Reader


class DeadLetters:
    """The dead letters of one subscription. Made by `Broker.dead_letters`; for one thread at a time.

    Not every broker can show a letter without handing it out. While letters are listed other readers do not see them;
    they are given back when the listing ends, or at the latest when their lease does. What a listing of this object
    has in hand can be replayed and purged meanwhile.
    """

    def __init__(self, opener: Opener, of: driver.Subscription) -> None:
        self._opener = opener
        self._of = of
        self._listings: set[_Reader] = set()

    def find(
        self,
        *,
        type: str | None = None,
        reason: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[DeadLetter]:
        """The letters, oldest first where the broker keeps an order.

        Args:
            type: the event's type, or a beginning of it followed by `*`.
            reason: a part of the reason or the error, in any case.
            since: letters that died at that time or later; with a time zone.
            limit: how many at most; None: all.

        Raises:
            NotFoundError: if the subscription does not exist.
            BridgeError: what the broker said.
        """
        if since is not None and since.tzinfo is None:
            raise InvalidArgumentError(f"since is {since.isoformat()}, without a time zone: give one, such as UTC")
        with _Reader(self._opener.get(), self._of) as reader:
            self._listings.add(reader)
            try:
                found = (each.letter for each in reader.read() if _matches(each.letter, type, reason, since))
                yield from islice(found, limit)
            finally:
                self._listings.discard(reader)

    def replay(
        self, letters: Iterable[DeadLetter | str], *, topic: str | None = None, rate: float | None = None
    ) -> list[Receipt]:
        """Publish letters again, to this subscription only; each one goes after its receipt.

        A replay that is interrupted can be repeated: what was replayed is gone from the letters.

        Args:
            letters: letters, or their ids.
            topic: publish to all subscriptions of this topic instead.
            rate: letters per second at most; None: as fast as it goes.

        Raises:
            NotFoundError: if an id is not, or no longer, among the letters; then nothing was replayed.
            UnsupportedError: if the broker cannot reach one subscription, and no topic is given.
            BridgeError: what the broker said.
        """
        return self._replay(letters, topic, rate, threading.Event())

    def _replay(
        self, letters: Iterable[DeadLetter | str], topic: str | None, rate: float | None, stop: threading.Event
    ) -> list[Receipt]:
        """`replay`, which ends with the letter in hand once `stop` is set."""
        session = self._opener.get()
        if rate is not None and not rate > 0:
            raise InvalidArgumentError(f"rate is {rate!r}: it must be more than 0 letters per second")
        if topic is None:
            session.require(Capability.REPLAY, "republish knowingly to a topic, with topic=…")
        wanted = _ids(letters)
        receipts: list[Receipt] = []
        if not wanted:
            return receipts
        with _Reader(session, self._of) as reader, _Replay(session, self._of, self._to(topic)) as out:
            begun = clock.now()
            for number, in_hand in enumerate(self._take(reader, wanted)):
                reader.keep_until(begun if rate is None else begun + number / rate, stop)
                if stop.is_set():
                    break
                receipts.append(out.send(in_hand))
                in_hand.reader.remove([in_hand.letter.id])
        return receipts

    def purge(self, letters: Iterable[DeadLetter | str]) -> int:
        """Delete letters for good.

        Returns:
            How many were deleted.

        Raises:
            NotFoundError: if an id is not, or no longer, among the letters; then nothing was deleted.
            BridgeError: what the broker said.
        """
        wanted = _ids(letters)
        if not wanted:
            return 0
        with _Reader(self._opener.get(), self._of) as reader:
            found = self._take(reader, wanted)
            for each in {in_hand.reader for in_hand in found}:
                each.remove([in_hand.letter.id for in_hand in found if in_hand.reader is each])
            return len(found)

    def _to(self, topic: str | None) -> driver.Topic | None:
        return None if topic is None else self._opener.config.declared.topic(topic)

    def _take(self, reader: _Reader, wanted: set[str]) -> list[_InHand]:
        found = [in_hand for listing in self._listings for in_hand in listing.holding(wanted)]
        missing = wanted - {each.letter.id for each in found}
        if missing:
            beyond = 0
            for in_hand in reader.read():
                if in_hand.letter.id in missing:
                    found.append(in_hand)
                    missing.discard(in_hand.letter.id)
                elif not missing:
                    beyond += 1
                    if beyond >= BEYOND:
                        break
            reader.give_back_but(wanted)
        if missing:
            raise NotFoundError(
                f"{place_name(driver.DeadLetters(self._of))} on {reader.broker} do not have "
                f"{', '.join(sorted(missing))}: list them again; a letter that is being "
                "replayed or listed elsewhere is not seen until that ends",
                broker=reader.broker,
            )
        return found


class _Reader:
    """Takes the letters of a place one batch after the other, and gives back what was not removed."""

    def __init__(self, session: Session, of: driver.Subscription) -> None:
        session.ensure(of)
        self.broker = session.broker
        self._session = session
        self._of = of
        self._doing = f"read {place_name(driver.DeadLetters(of))}"
        self._driver = session.connection.open_subscriber(driver.DeadLetters(of))
        self._held: dict[str, list[_InHand]] = {}
        self._lease = float("inf")
        self._renew_at = float("inf")

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._settle("release", self._all())
        finally:
            self._driver.stop()
            self._driver.close()

    def read(self) -> Iterator[_InHand]:
        """The letters, each once: a copy made twice, or one whose lease ended on the way, is the same letter."""
        traits = self._driver.traits
        wait = min(max(LAST_LOOK, traits.wait[0]), traits.wait[1]) if traits.wait[0] else 0.0
        stale = 0
        while stale < STALE_LOOKS:
            self.keep_until(0.0, threading.Event())
            received = self._session.call(self._doing, lambda _: self._driver.receive(traits.batch_count, wait))
            arrived = clock.now()
            if not received.messages:
                return
            fresh: list[_InHand] = []
            for inbound in received.messages:
                self._lease = min(self._lease, inbound.lease)
                self._renew_at = min(self._renew_at, arrived + inbound.lease / 2)
                in_hand = _InHand(self._letter(inbound), inbound, self)
                held = self._held.setdefault(in_hand.letter.id, [])
                held.append(in_hand)
                if len(held) == 1:
                    fresh.append(in_hand)
            stale = 0 if fresh else stale + 1
            yield from fresh

    def holding(self, ids: set[str]) -> list[_InHand]:
        """Those of the letters that are surely in hand."""
        if clock.now() >= self._renew_at + self._lease / 2 - margin(self._lease):
            return []
        return [self._held[id][-1] for id in ids if id in self._held]

    def give_back_but(self, ids: Iterable[str]) -> None:
        """Let others have what is in hand, but for these letters. Nothing is read any more."""
        kept = {id: self._held[id] for id in ids if id in self._held}
        others = [in_hand.inbound for id, group in self._held.items() if id not in kept for in_hand in group]
        self._held = kept
        self._settle("release", others)

    def keep_until(self, time: float, stop: threading.Event) -> None:
        """Wait until then, or until the stop, and keep the leases of what is held."""
        while True:
            now = clock.now()
            if now >= self._renew_at and Capability.EXTEND in self._session.connection.capabilities:
                self._settle("extend", self._all(), seconds=self._lease)
                self._renew_at = now + self._lease / 2
            if now >= time or stop.is_set():
                return
            stop.wait(max(min(time, self._renew_at) - now, 0.001))

    def remove(self, ids: Iterable[str]) -> None:
        """Delete letters, with their copies.

        Raises:
            BridgeError: if one could not be deleted.
        """
        taken = {id: self._held[id] for id in ids}
        self._settle("ack", [group[-1].inbound for group in taken.values()])
        for id in taken:
            del self._held[id]
        copies = [copy.inbound for group in taken.values() for copy in group[:-1]]
        settle(self._session, self._driver, "ack", copies)  # those whose lease has ended are the same letter

    def _all(self) -> list[Inbound]:
        return [in_hand.inbound for group in self._held.values() for in_hand in group]

    def _settle(self, verb: driver.Verb, messages: list[Inbound], *, seconds: float = 0.0) -> None:
        for outcome in settle(self._session, self._driver, verb, messages, seconds=seconds):
            if isinstance(outcome, Fault) and verb == "ack":
                raise to_error(outcome, self._doing, self.broker)

    def _letter(self, inbound: Inbound) -> DeadLetter:
        said = read(inbound.attributes.get(DEAD_LETTER))
        event: CloudEvent | None
        try:
            event = self._session.connection.wire.decode(inbound.attributes, inbound.body)
        except DecodeError:
            event = None
        topic, name = self._of.topic.name, self._of.name
        return DeadLetter(
            id=_letter_id(f"{topic}/{name}", event, inbound.body),
            event=event,
            raw=RawMessage(inbound.body, inbound.attributes, inbound.native),
            reason=said.reason,
            error=said.error,
            attempts=said.attempts,
            topic=said.topic or topic,
            subscription=said.subscription or name,
            died=said.died or datetime.now(UTC),
        )


class _Replay:
    """Sends letters on their way again: to their subscription, or to a topic."""

    def __init__(self, session: Session, of: driver.Subscription, topic: driver.Topic | None) -> None:
        self._session = session
        self._target = None if topic is not None or session.connection.direct else of.name
        place = topic or (of if session.connection.direct else of.topic)
        self._doing = f"replay to {place_name(place)}"
        self._driver = session.connection.open_publisher(place)

    def __enter__(self) -> _Replay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._driver.close()

    def send(self, in_hand: _InHand) -> Receipt:
        attributes = {k: v for k, v in in_hand.inbound.attributes.items() if k not in (DEAD_LETTER, TARGET)}
        if self._target is not None:
            attributes[TARGET] = self._target
        event = in_hand.letter.event
        key = in_hand.inbound.key if event is None else event.partitionkey
        # A fresh deduplication id: under the event's own the broker would accept it and deliver nothing.
        message = Outbound(in_hand.inbound.body, attributes, key, uuid.uuid4().hex)
        name = f"event {event.id} ({event.type})" if event is not None else f"letter {in_hand.letter.id}"

        def attempt(left: float) -> driver.Done:
            outcome = self._driver.send([message], timeout=left)[0]
            if isinstance(outcome, Fault):
                raise to_error(outcome, self._doing, self._session.broker, subject=name)
            return outcome

        done = self._session.call(self._doing, attempt)
        return Receipt("" if event is None else event.id, done.id, done.sequence)


def _letter_id(subscription: str, event: CloudEvent | None, body: bytes) -> str:
    import hashlib  # slow to import, and rarely needed

    told = body if event is None else f"{event.source} {event.id}".encode()
    return hashlib.sha256(subscription.encode() + b"\0" + told).hexdigest()[:16]


def several(letters: Iterable[DeadLetter | str]) -> list[DeadLetter | str]:
    """The letters, or ids of letters, of a call.

    Raises:
        InvalidArgumentError: if it is one.
    """
    if isinstance(letters, (str, DeadLetter)):
        raise InvalidArgumentError("one letter was given where several are expected: put it into a list")
    return list(letters)


def _ids(letters: Iterable[DeadLetter | str]) -> set[str]:
    letters = several(letters)
    return {letter if isinstance(letter, str) else letter.id for letter in letters}


def _matches(letter: DeadLetter, type: str | None, reason: str | None, since: datetime | None) -> bool:
    if type is not None:
        have = "" if letter.event is None else letter.event.type
        if not (have.startswith(type[:-1]) if type.endswith("*") else have == type):
            return False
    if reason is not None and reason.lower() not in f"{letter.reason}\n{letter.error or ''}".lower():
        return False
    return since is None or letter.died >= since
