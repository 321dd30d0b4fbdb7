"""What becomes of the deliveries of one subscription: fetched, run, retried, settled, kept, given back. Sans-I/O.

`wanted`, `next_run` and `next_settlement` say what to do now, and `due` which leases to extend; `received`, `done`,
`retry`, `ran` and `settled` take what came of it; `receive_at`, `run_at`, `settle_at` and `lease_at` say when to look
again. Three rules stand above all: what was received is settled once or comes again; within an ordering key one runs at
a time and none overtakes; what is in memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Literal, cast

from cloudevents_bridge.core.holding import Holding
from cloudevents_bridge.core.lanes import Entry, Lanes
from cloudevents_bridge.core.leases import Leases, margin
from cloudevents_bridge.core.prefetch import AHEAD, MAX_BYTES, Prefetch
from cloudevents_bridge.core.settlements import Settlement, Settlements, Verb, Watermarks
from cloudevents_bridge.driver import ReceiveTraits

LINGER = 0.1
"""Seconds that a settled delivery waits for company, while others run."""
LINGER_IN_ORDER = 0.01
"""The same where it keeps back what follows it of its ordering key."""
UNRUN = 10
"""Deliveries held that could not be run, through no fault of theirs, from which nothing more is fetched: it would fare
no better."""
MAX_HELD = 1000
"""Deliveries held for a later run, with those behind them, at most; beyond, they are given back."""


class Inbox:
    """The deliveries that one worker has of one subscription. Not thread-safe: the shell holds its lock.

    Args:
        traits: what the driver offers.
        concurrency: runs at once.
        batch: deliveries in one run, at most.
        lease: seconds, as declared.
        extends: whether leases can be extended.
        max_lease: seconds from its receipt to which a delivery is kept, at most.
        settlers: settlements that the shell can have under way at once.
        max_bytes: bytes in memory from which nothing more is fetched; half as many may be held.
        max_held: deliveries held for a later run, with those behind them, at most.

    Attributes:
        running: runs under way.
        stopping: nothing is fetched, started or held any more.
    """

    def __init__(
        self,
        traits: ReceiveTraits,
        *,
        concurrency: int = 1,
        batch: int = 1,
        lease: float = 60.0,
        extends: bool = True,
        max_lease: float = 3600.0,
        settlers: int = 1,
        max_bytes: int | None = None,
        max_held: int | None = None,
    ) -> None:
        self._concurrency = concurrency
        self._batch = batch
        self._extends = extends
        self._max_lease = min(max_lease, traits.lease_total)
        self._nack_delay = traits.nack_delay
        self._delays = traits.delays
        self._free_release = traits.free_release
        self._max_bytes = MAX_BYTES if max_bytes is None else max_bytes
        self._max_held = MAX_HELD if max_held is None else max_held
        self._unsettled_most = traits.settle_count * (settlers + 1)
        self._futile = max(UNRUN, concurrency * batch)
        self._blocked_most = min(2 * traits.batch_count, self._max_held)
        self._prefetch = Prefetch(
            concurrency * batch,
            traits.batch_count,
            traits.receives,
            ahead=min(AHEAD, lease / 4),
            max_bytes=self._max_bytes,
        )
        self._lanes = Lanes()
        self._leases = Leases()
        linger = LINGER_IN_ORDER if traits.key_batches else LINGER
        self._settlements = Settlements(traits.settle_count, traits.settle_bytes, linger)
        self._marks = Watermarks() if traits.settle == "prefix" else None
        self._holding = Holding()
        self._in_runs = 0
        self._unsettled = 0
        self._size = 0
        self._alone: Entry | None = None
        self.running = 0
        self.stopping = False

    # -- fetching

    def wanted(self, now: float) -> int:
        """How many deliveries one more receive is to ask for now; 0: none is to begin."""
        if self._fetches_nothing:
            return 0
        lanes = self._lanes
        full = self._size >= self._max_bytes
        late = self._unsettled if full else max(self._unsettled - self._unsettled_most, 0)
        free = (self._concurrency - self.running) * self._batch
        blocked = lanes.blocked - lanes.parked
        if free > lanes.ready:  # what waits behind others of its key leaves these slots to other keys
            blocked = max(blocked - self._blocked_most, 0)
        return self._prefetch.wanted(
            now,
            active=lanes.ready + blocked + self._in_runs + late,
            ready=lanes.ready,
            free=free,
            size=self._size,
        )

    def receiving(self, asked: int) -> None:
        """A receive for `asked` deliveries begins."""
        self._prefetch.begin(asked)

    def received(self, asked: int, entries: Sequence[Entry], now: float) -> None:
        """A receive for `asked` deliveries came back with these, in order."""
        self._prefetch.received(asked, [entry.size for entry in entries])
        for entry in entries:
            entry.last = now + self._max_lease if self._extends else entry.ends
            self._size += entry.size
            self._leases.add(entry)
            if self.stopping:
                self._settle(entry, "release", 0.0, now)
                continue
            if self._marks is not None:
                self._marks.add(entry)
                entry.suspect = False  # it could not have the process for itself without giving others back
            elif entry.suspect:
                self._prefetch.restart()
            self._lanes.add(entry)
            if entry.key is not None and self._marks is None and self._holds_too_much:
                head = self._lanes.head(entry.key)
                if head is not None and head.state == "held":
                    self._give_back(head, self._left(head, now), now)

    def receive_failed(self, asked: int, until: float) -> None:
        """A receive failed; the next one begins at `until` at the earliest."""
        self._prefetch.failed(asked, until)

    # -- running

    def next_run(self, now: float) -> list[Entry]:
        """The deliveries of one more run, which begins now; none: nothing can start."""
        if self.stopping or self._alone is not None or self.running >= self._concurrency:
            return []
        while self._holding.count and (entry := self._holding.due(now)) is not None:
            if now < entry.runs_at:
                self._give_back(entry, self._left(entry, now), now)
            else:
                self._holding.remove(entry)
                self._lanes.resume(entry)
        run = self._lanes.start(self._batch) or self._start_alone(now)
        if run:
            self.running += 1
            self._in_runs += len(run)
        return run

    def done(self, entry: Entry, verb: Literal["ack", "dead"], now: float) -> None:
        """Its run ended, and this is to become of it."""
        self._prefetch.handled(now, well=verb == "ack" and not entry.suspect)
        if self._ended(entry):
            self._settle(entry, verb, 0.0, now)

    def settled_by_hand(self, entry: Entry, now: float) -> None:
        """Its run ended, and the handler has settled it."""
        self._prefetch.handled(now, well=not entry.suspect)
        if self._ended(entry):
            if self._marks is None:
                self._forget(entry)
            else:
                self._settle(entry, "ack", 0.0, now)

    def retry(self, entry: Entry, delay: float, now: float, *, unrun: bool = False) -> None:
        """Its run failed: it shall run again after `delay` seconds.

        Where it has no ordering key and the broker has a delay that long, the broker does that. Else it is held here,
        and its lane with it: `state` is "held" then. What cannot be kept that long is held as long as it can be, if
        that is longer than the longest delay of the broker, and then given back. Where there is no room to hold it, it
        is given back with the longest delay that the broker has. Those behind it are given back at once. Where an ack
        covers a prefix nothing can be given back without all that follows: there nothing more is fetched instead.

        Args:
            unrun: it could not be run, through no fault of its own. So it is held: giving back may spend attempts.
        """
        self._prefetch.handled(now, well=False)
        if entry.state != "running":
            return
        natively = not unrun and entry.key is None and self._marks is None and self._delays(delay)
        until = self._held_until(entry, now + delay)
        if entry.lost or natively or (self.stopping and self._marks is not None):
            self._lanes.end(entry, "settling")
            if entry.lost:
                self._forget(entry)
            elif natively:
                self._settle(entry, "nack", delay, now)
            else:
                self._release([entry], now)
                self._rewind(entry, now)
        elif not self.stopping and self._has_room(entry) and until >= now + min(delay, self._nack_delay):
            entry.runs_at = now + delay
            entry.unrun = unrun
            self._lanes.hold(entry)
            self._holding.add(entry, until)
        else:
            self._give_back(entry, min(delay, self._nack_delay), now)

    def release(self, entry: Entry, now: float) -> None:
        """Its run ended, and counts as none: give it back as it came."""
        self._prefetch.handled(now, well=False)
        if self._ended(entry):
            self._release([entry], now)
            self._rewind(entry, now)

    def ran(self, run: Sequence[Entry]) -> None:
        """A run is over, after the outcome of each of its deliveries was given."""
        self.running -= 1
        self._in_runs -= len(run)
        if run[0] is self._alone:
            self._alone = None

    # -- settling

    def next_settlement(self, now: float) -> Settlement | None:
        """What to settle in one go, now; what was lost while it waited is not named to the broker. Nothing waits for
        company while nothing runs.
        """
        settlement = self._settlements.next(now, hurry=self._hurry)
        if settlement is not None:
            settlement.marks = [entry for entry in settlement.marks if not entry.lost]
        return settlement

    def settled(self, settlement: Settlement, now: float, nack: Iterable[tuple[Entry, float]] = ()) -> None:
        """A settlement is over. What failed comes again when its lease ends.

        Args:
            nack: what could not be dead-lettered, and is to be given back with a delay of so many seconds. Where an
                ack covers a prefix that is tried again after them.
        """
        instead = {id(entry): delay for entry, delay in nack}
        for entry in settlement.entries:
            self._unsettled -= 1
            if id(entry) in instead and not entry.lost:
                self._not_dead(entry, instead[id(entry)], now)
            elif settlement.verb == "dead" and self._marks is not None and not entry.lost:
                self._settle(entry, "ack", 0.0, now)  # the copy is made, and the ack takes its turn
            else:
                self._forget(entry)

    # -- leases

    def due(self, now: float) -> tuple[list[Entry], list[Entry]]:
        """The leases to extend now, and those that ended: `lose` each of them."""
        due = self._leases.due(now)
        return cast("list[Entry]", due.extend), cast("list[Entry]", due.lost)

    def keep(self, entry: Entry) -> None:
        """It is not lost after all: whoever handles it has extended the lease."""
        self._leases.add(entry)

    def extended(self, entry: Entry, ends: float, lease: float) -> None:
        """The broker granted `lease` seconds more."""
        self._leases.extended(entry, ends, lease)

    def not_extended(self, entry: Entry, now: float) -> None:
        """The request failed, and another may succeed."""
        entry.again = now + entry.lease / 10

    def lose(self, entry: Entry, now: float) -> None:
        """Its lease is lost: another consumer may have it. What waits behind it is given back, to come in order."""
        self._leases.lose(entry)
        entry.lost = True
        self._drop(entry, now)

    # -- the end

    def stop(self, now: float) -> None:
        """Fetch and start nothing more, and give back what does not run."""
        self.stopping = True
        for entry in self._settlements.recall():
            self._unsettled -= 1
            self._not_dead(entry, 0.0, now)
        for entry in self.entries():
            if entry.state == "held" and self._marks is None:
                self._give_back(entry, self._left(entry, now), now)
            elif entry.state in ("waiting", "held"):
                self._drop(entry, now)

    def abandon(self, now: float) -> list[Entry]:
        """Give back what still runs, and return it. Its outcome does not count any more."""
        left = [entry for entry in self.entries() if entry.state == "running"]
        for entry in left:
            self._lanes.end(entry, "settling")
        self._release(left, now)
        for entry in left:
            self._rewind(entry, now)
        return left

    @property
    def startable(self) -> bool:
        """Whether `next_run` has something now."""
        lanes = self._lanes
        if self.stopping or self._alone is not None or self.running >= self._concurrency:
            return False
        return lanes.ready > 0 or (bool(lanes.suspects) and not self.running and not self._unsettled)

    @property
    def unsettled(self) -> int:
        """Deliveries that are being settled, or wait for it."""
        return self._unsettled

    @property
    def in_memory(self) -> int:
        """Deliveries received and not settled."""
        lanes = self._lanes
        return lanes.ready + len(lanes.suspects) + lanes.blocked + self._holding.count + self._in_runs + self._unsettled

    @property
    def receiving_now(self) -> bool:
        """Whether a receive is under way."""
        return self._prefetch.polls > 0

    def receive_at(self) -> float | None:
        """When to ask `wanted` although nothing happened."""
        return None if self._fetches_nothing else self._prefetch.wake_at()

    def run_at(self) -> float | None:
        """When to ask `next_run` although nothing happened. While nothing can start, the end of a run says it."""
        if self.stopping or self._alone is not None or self.running >= self._concurrency:
            return None
        return self._holding.wake_at() if self._holding.count else None

    def settle_at(self) -> float | None:
        """When to ask `next_settlement` although nothing happened."""
        return self._settlements.wake_at(hurry=self._hurry)

    def lease_at(self) -> float | None:
        """When to ask `due`."""
        return self._leases.wake_at()

    # -- inside

    @property
    def _fetches_nothing(self) -> bool:
        return (
            self.stopping
            or self._alone is not None
            or bool(self._lanes.suspects)
            or self._holding.unrun >= self._futile
            or (self._marks is not None and self._holds_too_much)
        )

    @property
    def _holds_too_much(self) -> bool:
        held = self._holding.count + self._lanes.parked
        return held > self._max_held or (held > 0 and self._size > self._max_bytes)

    @property
    def _hurry(self) -> bool:
        lanes = self._lanes
        return self.stopping or bool(lanes.suspects) or not (self.running or lanes.ready)

    def entries(self) -> list[Entry]:
        """What is in memory, in the order it came."""
        return cast("list[Entry]", list(self._leases))

    def _start_alone(self, now: float) -> list[Entry]:
        """A delivery that seems to have ended processes takes nothing with it: it starts when all else that was there
        is done and settled, or given back. Where giving back spends an attempt, others like it wait in memory instead:
        they may be its victims, and would spend attempt after attempt without one run.
        """
        suspects = self._lanes.suspects
        if not suspects or self.running or self._unsettled:
            return []
        entry = suspects[0]
        if self._free_release:
            for other in suspects[1:]:
                self._drop(other, now)
            self._release(self._lanes.drop_behind(entry), now)
            if self.unsettled:
                return []
        self._lanes.start_alone(entry)
        self._alone = entry
        return [entry]

    def _ended(self, entry: Entry) -> bool:
        """Its run ended. False: it was lost or given back meanwhile, and nothing more is to be done."""
        if entry.state != "running":
            return False
        self._lanes.end(entry, "settling")
        if entry.lost:
            self._forget(entry)
        return not entry.lost

    def _has_room(self, entry: Entry) -> bool:
        if self._marks is not None:
            return True
        room = self._lanes.parked + self._holding.count + self._lanes.behind(entry) < self._max_held
        return room and 2 * (self._holding.size + entry.size) <= self._max_bytes

    def _held_until(self, entry: Entry, runs_at: float) -> float:
        """How long it can be held for a run at that time. If not so long, there is to be time for giving it back."""
        kept = entry.last if self._extends else entry.ends
        if runs_at < kept - margin(entry.lease) or self._marks is not None:
            return runs_at
        return kept - max(entry.lease / 4, margin(entry.lease))

    def _left(self, entry: Entry, now: float) -> float:
        """The delay with which what is held is given back, in whole seconds: what has one delay is one request."""
        return min(float(ceil(max(entry.runs_at - now, 0.0))), self._nack_delay)

    def _settle(self, entry: Entry, verb: Verb, seconds: float, now: float) -> None:
        entry.state = "settling"
        self._unsettled += 1
        if verb == "ack" and self._marks is not None:
            covered = self._marks.done(entry)
            if covered:
                self._settlements.add(covered, covered[-1], verb, seconds, now)
        else:
            self._settlements.add([entry], entry, verb, seconds, now)

    def _give_back(self, entry: Entry, delay: float, now: float) -> None:
        """Give back what ran, or is held, with a delay, and what waits behind it at once."""
        if entry.state == "held":
            self._holding.remove(entry)
        behind = [each for each in self._lanes.drop(entry) if each is not entry]
        if entry.state == "running":
            self._lanes.end(entry, "settling")
        self._settle(entry, "nack", delay, now)
        self._release(behind, now)

    def _drop(self, entry: Entry, now: float) -> None:
        """Its lease is lost, or it shall not run: take it and what is behind it out of its lane, and give that back."""
        if entry.state == "held":
            self._holding.remove(entry)
        if entry.state in ("waiting", "held", "running"):
            self._release(self._lanes.drop(entry), now)
        self._rewind(entry, now)

    def _not_dead(self, entry: Entry, delay: float, now: float) -> None:
        if self._marks is None:
            self._settle(entry, "nack", min(delay, self._nack_delay), now)
        elif self.stopping:
            self._release([entry], now)
            self._rewind(entry, now)
        else:
            self._unsettled += 1
            self._settlements.postpone(entry, "dead", now + delay)

    def _release(self, entries: list[Entry], now: float) -> None:
        for entry in entries:
            if entry.lost:
                self._forget(entry)
            else:
                self._settle(entry, "release", 0.0, now)

    def _rewind(self, entry: Entry, now: float) -> None:
        """Where an ack covers a prefix: what comes again takes all that follows it in its stream along."""
        if self._marks is None:
            return
        for each, was_done in self._marks.rewind(entry):
            if was_done:  # and not to be acked before the others
                self._unsettled -= 1
                self._release([each], now)
            elif each is entry:
                continue
            elif each.state in ("waiting", "held"):
                if each.state == "held":
                    self._holding.remove(each)
                self._release(self._lanes.drop(each), now)
            else:
                each.lost = True

    def _forget(self, entry: Entry) -> None:
        entry.state = "gone"
        self._leases.lose(entry)
        self._size -= entry.size
