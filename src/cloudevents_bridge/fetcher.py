"""The one thread that receives for a subscriber, and the callers that wait for what it brings."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from cloudevents_bridge import clock
from cloudevents_bridge.conditions import Condition
from cloudevents_bridge.delivery import Delivery, log
from cloudevents_bridge.errors import BridgeError, ErrorCode, make_error
from cloudevents_bridge.inlet import Inlet
from cloudevents_bridge.keeper import Keeper

POLL_GRACE = 0.05
"""Seconds that `receive(wait=0)` gives a broker whose own receive cannot be that short."""
KEPT = 0.5
"""Seconds that what came when nobody waited any more is kept for the next receive, before it is given back."""


class Waiting:
    """One caller of `receive`, while it waits.

    Attributes:
        most: deliveries it takes, at most.
        deadline: the end of its wait.
        give_up: when it goes, whether or not the broker has answered by then.
        rounds: native receives that had ended when it came.
        wake: called when there may be something for it, in any thread; False: there is nobody any more. None: it waits
            in a thread.
    """

    __slots__ = ("deadline", "give_up", "most", "rounds", "wake")

    def __init__(
        self, most: int, deadline: float, give_up: float, rounds: int, wake: Callable[[], bool] | None
    ) -> None:
        self.most = most
        self.deadline = deadline
        self.give_up = give_up
        self.rounds = rounds
        self.wake = wake


class Fetcher:
    """The one thread that receives for a subscriber. What it receives belongs to whoever asks next: a caller that
    stopped waiting loses nothing, and what nobody asks for is given back.

    A caller in a thread waits in `take`. One that has no thread to wait in does the same in steps: `enter`, `poll` now
    and after each `wake` until it gives a list, `leave`. None of the steps blocks.
    """

    def __init__(self, inlet: Inlet) -> None:
        self.inlet = inlet
        self.keeper = inlet.holder = Keeper(inlet)
        # Of a key one is out at a time, and whoever settles by hand has no lanes for those behind it.
        several = not (inlet.of.topic.ordered and inlet.traits.key_batches)
        self._most = inlet.traits.batch_count if several else 1
        self._changed = Condition()
        self._lock = self._changed.lock
        self._ready: deque[Delivery] = deque()
        self._wanted = 0
        self._until = 0.0
        self._waiting: dict[Waiting, None] = {}
        self._alone_since = 0.0
        self._receiving = False
        self._rounds = 0
        self._error: BridgeError | None = None
        self._closing = False
        self._thread: threading.Thread | None = None

    def take(self, most: int, wait: float) -> list[Delivery]:
        """Wait for deliveries in this thread.

        Raises:
            BridgeError: what the receive failed with.
        """
        with self._lock:
            waiting = self.enter(most, wait)
            try:
                while (taken := self.poll(waiting)) is None:
                    self._changed.wait(waiting.give_up - clock.now())
                return taken
            finally:
                self.leave(waiting)

    def enter(self, most: int, wait: float, wake: Callable[[], bool] | None = None) -> Waiting:
        """Begin to wait."""
        now = clock.now()
        patience = wait
        if not wait:
            shortest = self.inlet.traits.wait[0]
            patience = POLL_GRACE if shortest else self.inlet.session.config.timeout
        with self._lock:
            if not wait and self._receiving:
                patience = 0.0  # a receive is under way and has found nothing so far
            waiting = Waiting(most, now + wait, now + patience, self._rounds, wake)
            self._waiting[waiting] = None
            return waiting

    def poll(self, waiting: Waiting) -> list[Delivery] | None:
        """What there is for a caller; an empty list: its wait is over; None: wait, until `give_up` at most.

        Raises:
            BridgeError: what the receive failed with.
        """
        with self._lock:
            if taken := self._pop(waiting.most):
                return taken
            if self._closing:
                return []
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            now = clock.now()
            if now >= waiting.give_up or (now >= waiting.deadline and self._rounds > waiting.rounds):
                return []
            self._ask(waiting.most, waiting.deadline)
            return None

    def leave(self, waiting: Waiting) -> None:
        """Wait no more."""
        with self._lock:
            self._waiting.pop(waiting, None)
            if not self._waiting:
                self._wanted, self._until, self._error = 0, 0.0, None
                self._alone_since = clock.now()
                if self._ready:
                    self._changed.notify_all()

    def stop(self) -> None:
        """Receive no more. A receive that waits gives an empty list."""
        with self._lock:
            self._closing = True
            self._tell()
        self.inlet.stop()

    def close(self, timeout: float) -> None:
        """Stop, and give back what is not settled."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout)
        self.keeper.close()
        self.inlet.close()

    def _pop(self, most: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while self._ready and len(taken) < most:
            delivery = self._ready.popleft()
            if not delivery.lease_lost:
                taken.append(delivery)
        return taken

    def _ask(self, most: int, until: float) -> None:
        if self._thread is None:
            name = f"ceb-receive-{self.inlet.of.topic.name}/{self.inlet.of.name}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()  # first: an interrupt in between must not leave a thread to join that never ran
            self._thread = thread
        if most > self._wanted or until > self._until:  # else callers that wait would wake each other for ever
            self._wanted = max(self._wanted, most)
            self._until = max(self._until, until)
            self._changed.notify_all()

    def _tell(self) -> None:
        self._changed.notify_all()
        for waiting in list(self._waiting):
            if waiting.wake is not None and not waiting.wake():
                self.leave(waiting)

    # -- the thread

    def _work(self) -> None:
        shortest, longest = self.inlet.traits.wait
        while True:
            with self._lock:
                left_over = self._await_work()
                if self._closing:
                    return
                most = min(self._wanted, self._most)
                wait = min(max(self._until - clock.now(), shortest), longest)
                self._receiving = not left_over
            if left_over:
                self._give_back(left_over)
                continue
            received, error = self._receive(most, wait)
            with self._lock:  # after close, what came is given back there
                self._receiving = False
                self._rounds += 1
                self._ready.extend(received)
                self._alone_since = clock.now()
                if error is not None and self._waiting:
                    self._error = error
                if received or error is not None or clock.now() >= self._until:
                    self._wanted, self._until = 0, 0.0
                self._tell()
            self.inlet.bury_poison()

    def _await_work(self) -> list[Delivery]:
        """Wait until somebody asks, or for the end. Gives what has been left over for too long, if that comes first."""
        while not (self._wanted or self._closing):
            patience = None
            if self._ready and not self._waiting:
                patience = self._alone_since + KEPT - clock.now()
                if patience <= 0:
                    if left_over := self._pop(len(self._ready)):
                        return left_over
                    continue
            self._changed.wait(patience)
        return []

    def _give_back(self, deliveries: list[Delivery]) -> None:
        for error in self.inlet.settle("release", deliveries):
            if error is not None:
                log.warning("what nobody asked for any more could not be given back: %s", error)

    def _receive(self, most: int, wait: float) -> tuple[list[Delivery], BridgeError | None]:
        try:
            return self.inlet.receive(most, wait), None
        except BridgeError as error:
            return [], error
        except Exception as bug:  # noqa: BLE001 - whoever waits is told, and the thread goes on
            log.exception("receiving failed")
            told = make_error(ErrorCode.INTERNAL, f"receiving failed: {bug}", broker=self.inlet.session.broker)
            told.__cause__ = bug
            return [], told
