"""Several processes that do the same: started, started again when they die, and stopped together."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf
from types import FrameType
from typing import Any, NamedTuple, Self

from cloudevents_bridge import clock
from cloudevents_bridge.cli.children import Child
from cloudevents_bridge.cli.failures import INTERRUPTED
from cloudevents_bridge.cli.health import Condition
from cloudevents_bridge.cli.link import NOW, STOP
from cloudevents_bridge.delivery import log
from cloudevents_bridge.stats import NOTHING, Stats, total

PATIENCE = 5.0
"""Seconds after the grace in which a process that was told to stop has to end."""
AT_ONCE = 2.0
"""The same, when there is no grace."""
INITIAL, MAXIMUM = 0.5, 30.0
"""Seconds until a process that died is started again: at first, and at most. They double with each death."""
STEADY = 60.0
"""Seconds after which a process that dies counts as dying for the first time."""
SILENT = 15.0
"""Seconds without a report, after which a process counts as dead although it runs."""


class Verdict(NamedTuple):
    """How it ended: the exit code, the error if there is one, and what all processes did."""

    code: int
    error: str
    stats: Stats


class Slot:
    """The place of one process, and what is known of those that had it before."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        self.start_at = 0.0
        self.deaths = 0
        self.past: list[Stats] = []
        self.done = False


class Supervisor:
    """Keeps processes running until they are done or it is stopped, by SIGTERM, SIGHUP or SIGINT.

    A process that dies is started again, after a while that grows. One that cannot go on says so, and ends all.

    Args:
        start: starts a process, given its number.
        processes: how many.
        grace: seconds that handlers have to end.
        now: the clock.
    """

    def __init__(
        self, start: Callable[[int], Child], processes: int, grace: float, *, now: Callable[[], float] = clock.now
    ) -> None:
        self._start = start
        self._grace = grace
        self._now = now
        self._slots = [Slot(0 if processes == 1 else number) for number in range(1, processes + 1)]
        self._signals = Signals()
        self._code, self._error = 0, ""
        self._deadline = inf
        self._hurried = False

    def run(self) -> Verdict:
        """Run the processes until all have ended; none is left, however this ends."""
        with self._signals:
            try:
                while self._turn():
                    pass
            finally:
                for slot in self._slots:
                    if slot.child is not None:
                        slot.child.close()
        code = self._code or (INTERRUPTED if self._signals.interrupts else 0)
        return Verdict(code, self._error, self._stats())

    def condition(self) -> Condition:
        """How the processes are. Any thread may ask."""
        now = self._now()
        slots = [slot for slot in self._slots if not slot.done]
        children = [child for slot in slots if (child := slot.child) is not None]
        stats = self._stats()
        return Condition(
            live=stats.stalled == 0 and all(now - (child.heard or child.started) < SILENT for child in children),
            ready=stats.connected and not self._stopping,
            stats=stats,
        )

    # -- one turn after the other

    def _turn(self) -> bool:
        """Do what is due, and wait for the next thing. Returns whether there is more to do."""
        now = self._now()
        if self._signals.asked and not self._stopping:
            self._stop(now)
        if self._signals.interrupts > 1 and not self._hurried:
            self._hurried = True
            self._tell(NOW)
            self._deadline = min(self._deadline, now + AT_ONCE)
        for slot in self._slots:
            if slot.child is None and not slot.done and slot.start_at <= now and not self._stopping:
                self._begin(slot, now)
        self._kill_stragglers(now)
        self._signals.wait([slot.child for slot in self._slots if slot.child is not None], self._due() - self._now())
        for slot in self._slots:
            if slot.child is not None:
                slot.child.listen()
                code = slot.child.ended()
                if code is not None:
                    self._reap(slot, slot.child, code)
        return any(slot.child is not None or not (slot.done or self._stopping) for slot in self._slots)

    @property
    def _stopping(self) -> bool:
        return self._deadline < inf

    def _due(self) -> float:
        """When there is something to do, at the latest."""
        starts = [slot.start_at for slot in self._slots if slot.child is None and not slot.done]
        return min([self._deadline, *([] if self._stopping else starts)])

    def _begin(self, slot: Slot, now: float) -> None:
        try:
            slot.child = self._start(slot.number)
        except OSError as error:
            self._again(slot, now, f"{_name(slot)} cannot be started: {error}")

    def _stop(self, now: float) -> None:
        self._deadline = now + self._grace + PATIENCE
        self._tell(STOP)

    def _tell(self, word: bytes) -> None:
        for slot in self._slots:
            if slot.child is not None:
                slot.child.tell(word)

    def _kill_stragglers(self, now: float) -> None:
        if now < self._deadline:
            return
        self._deadline = now + AT_ONCE
        for slot in self._slots:
            if slot.child is not None:
                log.warning("%s does not end: it is killed", _name(slot))
                slot.child.kill()

    def _reap(self, slot: Slot, child: Child, code: int) -> None:
        child.close()
        slot.child = None
        slot.past = [total([*slot.past, child.stats._replace(in_flight=0, stalled=0, connected=False)])]
        if not (self._stopping or self._signals.asked):
            self._ended(slot, child, code, self._now())

    def _ended(self, slot: Slot, child: Child, code: int, now: float) -> None:
        """A process has ended by itself."""
        farewell = child.farewell
        if farewell is not None and farewell.why == "idle":
            slot.done = True
        elif farewell is not None and farewell.why == "failed":
            self._code, self._error = farewell.code, farewell.error
            self._stop(now)
        else:
            if now - child.started >= STEADY:
                slot.deaths = 0
            self._again(slot, now, f"{_name(slot)} {how(code)}")

    def _again(self, slot: Slot, now: float, what: str) -> None:
        delay = min(INITIAL * 2.0 ** min(slot.deaths, 10), MAXIMUM)
        slot.deaths += 1
        slot.start_at = now + delay
        log.warning("%s: it is started again in %g s", what, delay)

    def _stats(self) -> Stats:
        slots = list(self._slots)
        past = total(each for slot in slots for each in slot.past)
        now = [NOTHING if (child := slot.child) is None else child.stats for slot in slots if not slot.done]
        return total([past, *now])._replace(connected=bool(now) and all(each.connected for each in now))


class Signals:
    """SIGTERM, SIGHUP and SIGINT ask to stop; waiting ends when one comes, or a process has ended.

    Attributes:
        asked: whether one came.
        interrupts: how often SIGINT did.
    """

    def __init__(self) -> None:
        self.asked = False
        self.interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._woken, waking = socket.socketpair()
        self._waking = waking
        for each in (self._woken, waking):
            each.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it wakes us
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.default_int_handler:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            over = number == signal.SIGINT and self.interrupts  # there is nothing to be interrupted any more
            signal.signal(number, signal.SIG_IGN if over else handler)
        signal.set_wakeup_fd(self._wakeup)
        self._woken.close()
        self._waking.close()

    def wait(self, children: Iterable[Child], seconds: float) -> None:
        """Until a signal comes, a child reports or ends, or the time is over."""
        with selectors.PollSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for child in children:
                if child.open:
                    selector.register(child, selectors.EVENT_READ)
            selector.select(None if seconds == inf else max(seconds, 0.0))
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.asked = True
        self.interrupts += number == signal.SIGINT


def how(code: int) -> str:
    """How a process ended, of its exit code as `subprocess` says it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _name(slot: Slot) -> str:
    return f"process {slot.number}" if slot.number else "the process"
