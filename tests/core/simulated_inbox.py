"""An inbox beside a broker, handlers and a clock that misbehave, in simulated time; its rules are checked at each step.

The simulation does what a shell does, and nothing else: it asks the inbox what to do, does it late or badly, and says
what came of it. Leases are looked after when `lease_at` says, as a thread of its own would.
"""

from __future__ import annotations

import random
from typing import Literal

from cloudevents_bridge.core.inbox import Inbox
from cloudevents_bridge.core.lanes import Entry
from cloudevents_bridge.core.leases import margin
from cloudevents_bridge.core.settlements import Settlement
from cloudevents_bridge.driver import ReceiveTraits

Fate = Literal["ack", "dead", "retry", "by hand"]
LEASE = 10.0
MAX_HELD = 6
MAX_BYTES = 400


class Event:
    """One event at the broker, and what the consumers did with it."""

    def __init__(self, place: int, key: str | None, stream: str | None, size: int, attempts: int) -> None:
        self.place = place
        self.key = key
        self.stream = stream
        self.size = size
        self.attempts = attempts
        self.out: Hand | None = None  # who has it
        self.not_before = 0.0
        self.over: Literal["", "acked", "dead"] = ""
        self.begun = False
        self.well = False  # some run of it ended well
        self.copied = False  # to the dead letters

    def __repr__(self) -> str:
        return f"<event {self.place} of {self.key or self.stream} {self.over}>"


class Hand:
    """One delivery: an event in the hands of the inbox."""

    def __init__(self, event: Event, entry: Entry, until: float) -> None:
        self.event = event
        self.entry = entry
        self.until = until  # on the broker's clock
        self.received = until - entry.lease
        self.refused = False  # an extension failed
        self.fate: Fate | None = None
        self.settling = False
        self.settled = False

    @property
    def gone(self) -> bool:
        """Whether it was settled, given back, or lost."""
        return self.settled or self.entry.state == "gone"


class Simulation:
    """One schedule: the steps in any order, then `finish`."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.prefix = choose.random() < 0.25
        self.ordered = not self.prefix and choose.random() < 0.6
        self.several_of_a_key = choose.random() < 0.6
        self.extends = choose.random() < 0.8
        self.mood = choose.choice((0.0, 0.1, 0.4))
        self.concurrency = choose.choice((1, 2, 3, 5, 12))
        self.takes = choose.choice((0.0, 0.001, 0.001))  # a run, at least
        self.batch = choose.choice((1, 1, 1, 3))
        self.nack_delay = choose.choice((0.0, 3.0, 100.0))
        self.max_lease = choose.choice((15.0, 40.0, 1000.0))
        self.lease = 1e6 if self.prefix else LEASE  # a stream is lost as a whole, and not for its lease
        self.traits = ReceiveTraits(
            batch_count=choose.choice((1, 3, 10)),
            settle_count=choose.choice((1, 3, 10)),
            receives=choose.choice((1, 1, 3)),
            wait=(0.0, 20.0),
            stop_within=0.1,
            nack_delay=self.nack_delay,
            lease_total=1e9,
            removes_after=None,
            settle="prefix" if self.prefix else "each",
            free_release=choose.choice((True, False)),
            dead=not self.prefix,
        )
        self.inbox = Inbox(
            self.traits,
            concurrency=self.concurrency,
            batch=self.batch,
            lease=LEASE,
            extends=self.extends,
            max_lease=self.max_lease,
            settlers=2,
            max_bytes=MAX_BYTES,
            max_held=MAX_HELD,
        )
        self.now = 100.0
        self.events: list[Event] = []
        self.hands: dict[int, Hand] = {}
        self.receives: list[int] = []
        self.runs: list[list[Hand]] = []
        self.settlements: list[Settlement] = []
        self.asked_before = False
        self.last_was_full = False
        self.abandoned = False

    # -- what happens

    def publish(self, key: str | None, size: int, attempts: int = 0) -> None:
        key = key if self.ordered or self.prefix else None
        stream = (key or "plain") if self.prefix else None
        self.events.append(Event(len(self.events), key if self.ordered else None, stream, size, attempts))

    def receive(self) -> bool:
        """Begin a receive; False: none is wanted."""
        asked = self.inbox.wanted(self.now)
        if not asked or len(self.receives) >= self.traits.receives:
            return False
        assert not self.inbox.stopping
        assert asked <= self.traits.batch_count
        assert self.asked_before or asked == 1, "more than one event was asked for at first"
        assert self.last_was_full or not self.receives, "a second receive, and the last one was not full"
        size = sum(hand.event.size for hand in self._in_hand())
        idle = all(hand.entry.state in ("held", "settling") for hand in self._in_hand())
        assert size < MAX_BYTES or idle, "there are bytes enough in memory"
        assert asked + sum(self.receives) <= self._most_active(), "more is asked for than there may be"
        self.asked_before = True
        self.inbox.receiving(asked)
        self.receives.append(asked)
        return True

    def answer(self, which: int = 0, *, fails: bool = False) -> None:
        """A receive returns."""
        asked = self.receives.pop(which % len(self.receives))
        if fails:
            self.last_was_full = False
            self.inbox.receive_failed(asked, self.now + self.choose.choice((0.0, 1.0, 5.0)))
            return
        hands = [self._hand_out(event) for event in self._available(asked)]
        if len(hands) >= asked:
            self.last_was_full = True
        elif not hands:
            self.last_was_full = False
        self.inbox.received(asked, [hand.entry for hand in hands], self.now)
        self._check_bounds()

    def run(self) -> bool:
        """Begin a run; False: nothing can start."""
        before = self.inbox.unsettled
        entries = self.inbox.next_run(self.now)
        if not entries:
            self._check_nothing_starts()
            return self.inbox.unsettled > before  # what is in a suspect's way was given back
        hands = [self._hand(entry) for entry in entries]
        self._check_run(hands)
        for hand in hands:
            hand.event.begun = True
            hand.fate = None
        self.runs.append(hands)
        return True

    def end_run(self, which: int = 0) -> None:
        """A run ends, in some way."""
        self.pass_time(self.takes)
        run = self.runs.pop(which % len(self.runs))
        for hand in run:
            entry = hand.entry
            if entry.state == "running" and not entry.lost and self.now >= entry.ends - margin(entry.lease):
                self._lose(entry)
            hand.fate = self.choose.choices(("ack", "retry", "dead", "by hand"), (70, 20, 5, 5))[0]
            counts = entry.state == "running" and not entry.lost
            if hand.fate == "retry":
                self.inbox.retry(entry, self.choose.choice((0.0, 0.5, 2.0, 8.0, 60.0)), self.now)
                self._check_held(hand, counts)
            elif hand.fate == "by hand":
                hand.event.well |= counts
                if counts and not self.prefix:
                    self._apply(hand, "ack")
                    hand.settled = True
                self.inbox.settled_by_hand(entry, self.now)
            else:
                hand.event.well |= counts and hand.fate == "ack"
                self.inbox.done(entry, hand.fate, self.now)  # type: ignore[arg-type]
        self.inbox.ran([hand.entry for hand in run])

    def settle(self) -> bool:
        """Begin to settle; False: there is nothing to settle now."""
        settlement = self.inbox.next_settlement(self.now)
        if settlement is None:
            return False
        assert len(settlement.entries) >= 1
        assert len(settlement.marks) <= self.traits.settle_count
        assert self.prefix or settlement.marks == [entry for entry in settlement.entries if not entry.lost]
        assert not any(entry.lost for entry in settlement.marks), "settled, and another consumer may have it"
        for entry in settlement.entries:
            self._check_settle(self._hand(entry), settlement)
        self.settlements.append(settlement)
        return True

    def settled(self, which: int = 0, *, fails: bool = False) -> None:
        """A settlement is over: done, or refused, or not."""
        settlement = self.settlements.pop(which % len(self.settlements))
        instead: list[tuple[Entry, float]] = []
        for entry in settlement.marks:
            hand = self._hand(entry)
            if not fails:
                self._apply(hand, settlement.verb, settlement.seconds)
            elif settlement.verb == "dead":
                instead.append((entry, self.choose.choice((0.0, 4.0))))
        again = {id(entry) for entry, _ in instead}
        for entry in settlement.entries:
            hand = self._hand(entry)
            hand.settling = False
            if id(entry) in again:
                hand.fate = "dead" if self.prefix else "retry"
            elif settlement.verb == "dead" and self.prefix and not entry.lost:
                hand.fate = "ack"  # the copy is made
            else:
                hand.settled = True
        self.inbox.settled(settlement, self.now, instead)

    def pass_time(self, seconds: float) -> None:
        """Time goes by; whoever keeps the leases wakes whenever it was told to."""
        target = self.now + seconds
        while (at := self.inbox.lease_at()) is not None and at <= target:
            assert at > self.now or self._keep(), "leases are due, and nothing is to be done for them"
            self.now = max(self.now, at)
            self._keep()
        self.now = target

    def take_stream(self) -> None:
        """The broker takes a stream away."""
        streams = sorted({hand.event.stream for hand in self._in_hand() if hand.event.stream is not None})
        if not streams:
            return
        stream = self.choose.choice(streams)
        for hand in self._in_hand():
            if hand.event.stream == stream:
                if hand.event.out is hand:
                    hand.event.out = None
                self._lose(hand.entry)

    def take_one(self) -> None:
        """The broker gives a delivery to another consumer."""
        hands = [hand for hand in self._in_hand() if hand.event.out is hand and not self.prefix]
        if hands:
            hand = self.choose.choice(hands)
            hand.until = self.now
            self._lose(hand.entry)

    def stop(self) -> None:
        self.inbox.stop(self.now)
        assert not self.inbox.wanted(self.now)
        assert not self.inbox.next_run(self.now)
        running = {id(hand) for run in self.runs for hand in run}
        for hand in self._in_hand():
            assert id(hand) in running or hand.entry.state == "settling", "something waits, and nothing will start"

    def abandon(self) -> None:
        running = [hand for hand in self._running() if hand.entry.state == "running"]
        ours = {id(hand.entry) for hand in running if not hand.entry.lost}
        left = self.inbox.abandon(self.now)
        assert ours <= {id(entry) for entry in left} <= {id(hand.entry) for hand in running}
        assert all(hand.entry.lost for hand in running if hand.entry.state == "running")
        self.abandoned = True

    def finish(self) -> None:
        """Go on as a shell does, until all is over, and check that it ends."""
        self.mood = 0.0
        for _ in range(400 + 60 * len(self.events)):
            if self._settles_all() or self.receive() or self.run():
                continue
            if self.receives and (self._available(1) or self.inbox.stopping):
                self.answer()
            elif self.runs:
                self.end_run(self.choose.randrange(len(self.runs)))
            elif self._all_over():
                break
            else:
                self._check_wakes()
                self._to_the_next_wake()
        assert self._all_over(), "it does not end"
        while self.receives:
            self.answer()
        self._settles_all()
        self._check_end()

    # -- the broker

    def _available(self, most: int) -> list[Event]:
        """What a receive would bring now, and in what order."""
        found: list[Event] = []
        blocked: set[str | None] = set()
        for event in self.events:
            if event.out is not None and self.now >= event.out.until:
                event.out = None
        for event in self.events:
            if event.over or len(found) >= most:
                continue
            lane = event.key if event.stream is None else event.stream
            if lane in blocked and lane is not None:
                continue
            if event.out is not None or event.not_before > self.now:
                if not self.prefix or event.out is None:
                    blocked.add(lane)
                continue
            if self.prefix and any(
                e.out is not None and e.stream == lane and e.place > event.place for e in self.events
            ):
                blocked.add(lane)  # what follows it is still out: it comes again with all of that
                continue
            found.append(event)
            if not self.prefix and not self.several_of_a_key:
                blocked.add(lane)
        return found

    def _hand_out(self, event: Event) -> Hand:
        event.attempts += 1
        item = object()
        entry = Entry(
            item,
            self.now + self.lease,
            self.lease,
            key=event.key,
            stream=event.stream,
            size=event.size,
            suspect=event.attempts > 8,
        )
        hand = event.out = Hand(event, entry, self.now + self.lease)
        self.hands[id(entry)] = hand
        return hand

    def _apply(self, hand: Hand, verb: str, seconds: float = 0.0) -> None:
        """What a settle does at the broker. A delivery whose lease is over is refused."""
        event = hand.event
        if event.out is not hand or self.now >= hand.until:
            return
        if verb == "dead":
            event.copied = True
            if self.prefix:
                return  # a copy, and no more
        event.out = None
        if verb == "ack":
            assert event.well or event.copied, "acked, and no run of it ended well"
            event.over = "acked" if event.well else "dead"
            if self.prefix:
                for other in self.events:
                    if other.stream == event.stream and other.place < event.place and not other.over:
                        assert other.well or other.copied, "an ack covers an event that is not done"
                        other.over, other.out = "acked" if other.well else "dead", None
        elif verb == "dead":
            event.over = "dead"
        else:
            event.not_before = self.now + seconds

    # -- the shell

    def _keep(self) -> bool:
        due, lost = self.inbox.due(self.now)
        for entry in lost:
            assert self.now >= entry.ends - margin(entry.lease), "declared lost too early"
            hand = self._hand(entry)
            assert not self.extends or hand.refused or entry.ends >= entry.last, "not extended in time"
            self._lose(entry)
        for entry in due:
            hand = self._hand(entry)
            assert self.extends
            assert self.now < entry.ends, "extended too late"
            assert entry.ends < entry.last
            if self.choose.random() < self.mood / 2:
                hand.refused = True
                self.inbox.not_extended(entry, self.now)
            elif hand.event.out is hand and self.now < hand.until:
                lease = min(LEASE, entry.last - self.now)
                hand.until = max(self.now + lease, self.now)
                self.inbox.extended(entry, self.now + lease, lease)
                assert entry.ends <= hand.received + self.max_lease + 1e-6, "kept longer than it may be"
            else:
                self._lose(entry)
        return bool(due or lost)

    def _lose(self, entry: Entry) -> None:
        hand = self._hand(entry)
        done = entry.state == "settling"  # its run is over: what is behind it has waited long enough
        before = [each for each in self._in_hand() if each.event.key == entry.key is not None and not done]
        self.inbox.lose(entry, self.now)
        for each in before:
            behind = each.event.place > hand.event.place and not each.settling
            if behind and each.entry.state == "waiting":
                raise AssertionError("what waits behind a lost delivery was not given back")

    def _settles_all(self) -> bool:
        did = False
        while self.settle() or self.settlements:
            did = True
            while self.settlements:
                self.settled(self.choose.randrange(len(self.settlements)))
        return did

    def _to_the_next_wake(self) -> None:
        inbox = self.inbox
        wakes = [inbox.run_at(), inbox.settle_at(), inbox.lease_at()]
        if not self.receives:
            wakes.append(inbox.receive_at())
        dues = [event.not_before for event in self.events if not event.over and event.not_before > self.now]
        dues += [e.out.until for e in self.events if e.out is not None and not e.over and e.out.gone]
        at = min([at for at in (*wakes, *dues) if at is not None and at > self.now], default=None)
        assert at is not None, "stuck: nothing to do, and no time to wake"
        self.pass_time(at - self.now)

    def _all_over(self) -> bool:
        if self.runs or self.settlements or self.inbox.in_memory:
            return False
        return self.inbox.stopping or all(event.over for event in self.events)

    # -- the rules

    def _hand(self, entry: Entry) -> Hand:
        return self.hands[id(entry)]

    def _in_hand(self) -> list[Hand]:
        return [hand for hand in self.hands.values() if not hand.gone]

    def _running(self) -> list[Hand]:
        return [hand for run in self.runs for hand in run]

    def _check_run(self, hands: list[Hand]) -> None:
        assert not self.inbox.stopping
        assert 1 <= len(hands) <= self.batch
        assert len(self.runs) < self.concurrency, "more runs at once than there may be"
        for hand in hands:
            assert not hand.gone, "a delivery runs that was settled or lost"
            assert not hand.entry.lost
            assert not hand.settling
            if hand.event.key is not None:
                self._check_order(hand)
        keys = [hand.event.key for hand in hands if hand.event.key is not None]
        assert len(keys) == len(set(keys)), "two of a key in one batch"
        if any(hand.entry.suspect for hand in hands):
            assert len(hands) == 1
            assert not self.runs, "a suspect does not run alone"
            assert not self.inbox.unsettled, "a suspect runs, and something is not settled yet"
            held = {each.event.key for each in self._in_hand() if each.entry.state == "held"}
            left = [each for each in self._in_hand() if each is not hands[0] and each.entry.state != "held"]
            left = [each for each in left if each.event.key is None or each.event.key not in held]
            if not self.traits.free_release:  # other suspects, and what is behind this or them, wait for their turn
                heads = {each.event.key for each in self._in_hand() if each.entry.suspect}
                left = [each for each in left if not each.entry.suspect and each.event.key not in heads]
            assert not left, "a suspect runs, and others are in memory"
        assert not any(hand.entry.suspect for hand in self._running()), "something starts beside a suspect"

    def _check_order(self, hand: Hand) -> None:
        event = hand.event
        for other in self._running():
            if not other.entry.lost and not (self.abandoned and other.gone):
                assert other.event.key != event.key, "two of a key run at once"
        if not event.begun:
            earlier = [each for each in self.events[: event.place] if each.key == event.key]
            assert all(each.begun or each.over for each in earlier), "out of order at first delivery"
        for other in self._in_hand():
            if other.event.key == event.key and other.entry.state == "held":
                raise AssertionError("a retry is held, and one behind it runs")

    def _check_nothing_starts(self) -> None:
        """Nothing could have started, and nobody has to look again now."""
        at = self.inbox.run_at()
        assert at is None or at > self.now, "a run is to be looked for now, again and again"
        if self.inbox.stopping or len(self.runs) >= self.concurrency:
            return
        waiting = [hand for hand in self._in_hand() if hand.entry.state == "waiting"]
        if any(hand.entry.suspect for hand in self._in_hand()):
            waiting = [hand for hand in waiting if hand.entry.suspect] if not self.inbox.unsettled else []
            waiting = [] if self.runs else waiting
            if len(waiting) > 1:
                return
        taken = {hand.event.key for hand in self._in_hand() if hand.entry.state in ("running", "held")}
        taken |= {hand.event.key for hand in self._running()}
        startable = [hand for hand in waiting if hand.event.key is None or hand.event.key not in taken]
        assert not startable, "a delivery waits, there is a slot, and it does not start"

    def _check_held(self, hand: Hand, counts: bool) -> None:
        held = [each for each in self._in_hand() if each.entry.state == "held" and not self.prefix]
        assert len(held) <= MAX_HELD
        assert 2 * sum(each.event.size for each in held) <= MAX_BYTES
        if hand.entry.state == "held":
            assert counts
            assert not self.inbox.stopping

    def _check_settle(self, hand: Hand, settlement: Settlement) -> None:
        assert not hand.gone, "settled twice"
        assert not hand.settling, "settled twice at once"
        hand.settling = True
        if settlement.verb == "ack":
            assert hand.fate in ("ack", "by hand"), f"acked after {hand.fate}"
        elif settlement.verb == "dead":
            assert hand.fate == "dead"
        if settlement.verb == "nack":
            assert settlement.seconds <= self.nack_delay

    def _check_bounds(self) -> None:
        late = self.traits.settle_count * 3
        most = self._most_active() + late + 2 * MAX_HELD + 2 * self.traits.batch_count
        assert self.inbox.in_memory <= most + len(self._releasing()), "more in memory than there may be"

    def _most_active(self) -> int:
        return self.concurrency * self.batch + self.traits.batch_count * (self.traits.receives + 1)

    def _releasing(self) -> list[Hand]:
        return [hand for hand in self._in_hand() if hand.entry.state == "settling" and hand.fate is None]

    def _check_wakes(self) -> None:
        """Nothing is to be done now: then nobody is to wake now."""
        inbox = self.inbox
        receive_at = None if self.receives else inbox.receive_at()
        for what, at in (
            ("receive", receive_at),
            ("run", inbox.run_at()),
            ("settle", inbox.settle_at()),
            ("lease", inbox.lease_at()),
        ):
            assert at is None or at > self.now, f"{what}: it is to be looked at now, again and again"

    def _check_end(self) -> None:
        inbox = self.inbox
        assert inbox.in_memory == 0
        assert inbox.unsettled == 0
        assert inbox.running == 0
        assert not inbox.entries()
        assert inbox._size == inbox._holding.count == inbox._holding.size == inbox._in_runs == 0
        lanes = inbox._lanes
        assert (lanes.ready, lanes.blocked, lanes.parked, lanes._lanes, lanes.suspects) == (0, 0, 0, {}, [])
        assert not inbox._settlements
        if inbox._marks is not None:
            assert not any(inbox._marks._streams.values())
            assert not inbox._marks._done
        for event in self.events:
            assert event.over or inbox.stopping
            assert event.over != "acked" or event.well
