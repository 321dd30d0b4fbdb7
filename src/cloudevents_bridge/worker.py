"""The worker: calls handlers for the events of subscriptions, and settles for them."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cloudevents_bridge import clock, driver
from cloudevents_bridge.consumer import Consumer
from cloudevents_bridge.delivery import Delivery, log
from cloudevents_bridge.errors import ClosedError, ErrorCode, InvalidArgumentError, make_error
from cloudevents_bridge.handlers import Runner, name_of
from cloudevents_bridge.inlet import Decoder, Inlet
from cloudevents_bridge.router import Router, pipeline
from cloudevents_bridge.runs import Caller, Program
from cloudevents_bridge.session import Closing, Opener
from cloudevents_bridge.stats import NOTHING, Stats, total
from cloudevents_bridge.topics import Subscription

if TYPE_CHECKING:
    from cloudevents_bridge.loops import Home, Loop

LISTEN = 1.0
"""Seconds that the main thread waits at most: a signal that came just before does not wake it."""
LAST_WORDS = 0.8
"""Seconds for giving back, after the grace period, what did not end in it."""


class _Job(NamedTuple):
    """One `add`."""

    of: driver.Subscription
    declared: Subscription
    make: Callable[[Runner], Program]
    threads: int
    concurrency: int
    batch: int
    foreign: tuple[Decoder, ...]
    max_lease: float
    dead_letters: bool


class _Stop(NamedTuple):
    grace: float | None


class _Ended(NamedTuple):
    error: BaseException


class Worker(Closing):
    """Calls handlers for the events of subscriptions and settles for them. Made by `Broker.worker`.

    A handler that returns acks its event. One that raises gives it back, to run again after the subscription's
    redelivery back-off, until `max_attempts` runs have failed: then it is dead-lettered. `Retry` and `Reject` are the
    handler's own words. Leases are extended while handlers run. Of an ordering key one event runs at a time, in order.

    `run` works in the calling thread until it is stopped; `with worker:`, or `start` and `close`, beside it.
    """

    def __init__(
        self,
        opener: Opener,
        place: Callable[[str, str], tuple[driver.Subscription, Subscription]],
        *,
        grace: float = 25.0,
    ) -> None:
        _check_seconds("grace", grace)
        self._opener = opener
        self._place = place
        self._grace = grace
        self._home: Home | None = None
        self._loop: Loop | None = None
        self._jobs: list[_Job] = []
        self._consumers: list[Consumer] = []
        self._past = NOTHING
        self._words: SimpleQueue[_Stop | _Ended | None] = SimpleQueue()  # a signal's handler may put, whatever is held
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._process = 0
        self._error: BaseException | None = None
        self._running = False
        self._beside = False
        self._closed = False

    def add(
        self,
        topic: str,
        subscription: str,
        handler: Router | Callable[..., object],
        *,
        concurrency: int = 1,
        batch: int | None = None,
        foreign: Sequence[Decoder] = (),
        max_lease: float = 3600.0,
        dead_letters: bool = False,
    ) -> Self:
        """Have a handler called for the events of a subscription.

        Args:
            handler: a router, or a function, `def` or `async def`, whose parameters are filled by their annotations.
                With `batch` a function of a list of deliveries: those that it has not settled are acked when it returns
                and given back when it raises.
            concurrency: calls at once, at most.
            batch: deliveries in one call, at most; of each ordering key one.
            foreign: as that of `Broker.subscriber`.
            max_lease: seconds to which the lease of a delivery is extended, at most.
            dead_letters: the handler is called for the subscription's dead letters instead. Those it handles are
                removed; the others stay letters.

        Raises:
            InvalidArgumentError: if a number is out of its range.
            TypeError: if a parameter of the handler cannot be filled.
            BridgeError: FAILED_PRECONDITION while the worker runs.
        """
        for what, number in (("concurrency", concurrency), ("batch", 1 if batch is None else batch)):
            if type(number) is not int or number < 1:
                raise InvalidArgumentError(f"{what} is {number!r}: it must be a whole number of at least 1")
        _check_seconds("max_lease", max_lease)
        of, declared = self._place(topic, subscription)
        make, threads = _program(handler, batch=batch is not None, concurrency=concurrency)
        if (telemetry := self._opener.config.telemetry) is not None:
            make = telemetry.around(make, batch=batch is not None)
        job = _Job(of, declared, make, threads, concurrency, batch or 1, tuple(foreign), max_lease, dead_letters)
        with self._lock:
            if self._running:
                raise make_error(
                    ErrorCode.FAILED_PRECONDITION,
                    f"the worker runs: add {topic}/{subscription} before it is started",
                    broker=self._opener.config.broker,
                )
            self._jobs.append(job)
        return self

    def run(self, *, until_idle: float | None = None, signals: bool = True) -> Stats:
        """Work until `stop`, a signal, or nothing has come for so many seconds.

        Args:
            until_idle: seconds without an event, with nothing in hand, after which it ends; None: never.
            signals: SIGTERM and SIGINT stop it, where this is the main thread. The second SIGINT ends it at once, and
                raises KeyboardInterrupt.

        Raises:
            BridgeError: why consuming cannot go on: the subscription does not exist, or the credentials are refused.
            SystemExit, KeyboardInterrupt: what a handler raised to end the program.
        """
        self._begin(until_idle)
        with self._listening(signals):
            self._work(until_idle)
        self._raise()
        return self.stats

    def start(self) -> None:
        """Work in the background, until `stop` or `close`.

        Raises:
            BridgeError: FAILED_PRECONDITION if it works already.
        """
        self._begin()
        self._beside = True
        threading.Thread(target=self._work, args=(None,), name="ceb-worker", daemon=True).start()

    def stop(self, *, grace: float | None = None) -> None:
        """Fetch no more, let handlers end within `grace` seconds (None: those of the worker), and give the rest back.

        Returns at once, in any thread, in handlers and in a signal's; `run` or `close` wait for the end. While the
        worker does not run, the next run ends before it begins. It dead-letters nothing, and spends no attempt where
        the broker can do so.
        """
        if grace is not None:
            _check_seconds("grace", grace)
        self._words.put(_Stop(grace))

    def close(self, *, timeout: float = 30.0) -> None:
        """Stop, wait for the end, within `timeout` seconds, and work no more. A handler that closes does not wait.

        Raises:
            BridgeError: why consuming could not go on, if `run` has not raised it.
        """
        first, wait = self._stop_for_good(timeout)
        if wait:
            self._over.wait(timeout)
        if first:
            self._raise()

    def _stop_for_good(self, timeout: float) -> tuple[bool, bool]:
        """Begin to close. Gives whether this is the first time, and whether the end is to be waited for."""
        with self._lock:
            closed, self._closed = self._closed, True
            inside = any(consumer.works_here() for consumer in self._consumers)
            inside = inside or (self._loop is not None and self._loop.here)
        works = self._running and self._process == os.getpid()
        if works:
            self.stop(grace=min(self._grace, max(timeout - 1.0, 0.0)))
        return not closed, works and not inside

    def __enter__(self) -> Self:
        self.start()
        return self

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def stats(self) -> Stats:
        """What it did so far, and does now."""
        with self._lock:
            now = [consumer.counts() for consumer in self._consumers]
            past = self._past
        return total([*now, past])._replace(connected=bool(now) and all(each.connected for each in now))

    # -- the life of a worker

    def _begin(self, until_idle: float | None = None, home: Home | None = None) -> None:
        """Make what works. Nothing is received yet. `home`: where coroutines run, if not on a loop of our own."""
        if until_idle is not None:
            _check_seconds("until_idle", until_idle)
        session = self._opener.get()
        with self._lock:
            if self._closed:
                raise ClosedError("the worker was closed: ask the broker for another", broker=session.broker)
            if self._running and self._process == os.getpid():
                raise make_error(
                    ErrorCode.FAILED_PRECONDITION, "the worker runs already: stop it first", broker=session.broker
                )
            if not self._jobs:
                raise InvalidArgumentError("the worker has nothing to do: add() a subscription first")
            self._process = os.getpid()
            self._error = None
            self._home = home
            words = self._words
            self._consumers = [
                Consumer(
                    Inlet(session, job.of, job.declared, job.foreign, of_dead_letters=job.dead_letters),
                    Caller(job.make, self._get_loop),
                    threads=job.threads,
                    concurrency=job.concurrency,
                    batch=job.batch,
                    max_lease=job.max_lease,
                    ended=lambda error: words.put(_Ended(error)),
                    changed=lambda: words.put(None),
                )
                for job in self._jobs
            ]
            self._over.clear()
            self._running, self._beside = True, False

    def _work(self, until_idle: float | None) -> None:
        """From the first receive to the last word."""
        grace = 0.0
        try:
            if self._words.empty():  # else it was stopped before it began
                for consumer in self._consumers:
                    consumer.start()
            grace = self._until_stopped(until_idle)
        finally:
            self._end(grace)

    def _until_stopped(self, until_idle: float | None) -> float:
        """Wait for a reason to stop. Returns the seconds of grace."""
        begun = clock.now()
        while True:
            wait = None if until_idle is None else self._idle_for(begun, until_idle)
            if wait is not None and wait <= 0:
                return self._grace
            try:
                word = self._hear(wait)
            except Empty:
                continue
            if isinstance(word, _Stop):
                return self._grace if word.grace is None else word.grace
            if isinstance(word, _Ended):
                self._fail(word.error)
                return self._grace

    def _idle_for(self, begun: float, until_idle: float) -> float:
        """Seconds until it may have been idle for so long."""
        since = [consumer.idle_since() for consumer in self._consumers]
        if None in since:
            return until_idle
        return max(begun, *(each for each in since if each is not None)) + until_idle - clock.now()

    def _end(self, grace: float) -> None:
        until = clock.now() + grace
        for consumer in self._consumers:
            _say_if_it_fails(consumer.stop)
        until = self._wait(lambda consumer: consumer.drained, until)
        last = until + LAST_WORDS
        for consumer in self._consumers:
            if not consumer.drained:
                consumer.abandon()
        self._wait(lambda consumer: consumer.settled, last)
        for consumer in self._consumers:
            _say_if_it_fails(lambda each=consumer: each.close(last))  # type: ignore[misc]
        if self._loop is not None:
            self._loop.close(max(last - clock.now(), 0.1))
        with self._lock:
            ended = total([self._past, *(consumer.counts() for consumer in self._consumers)])
            self._past = ended._replace(in_flight=0, stalled=0)
            self._consumers = []
            self._loop = None
            self._running = False
            while not self._words.empty():  # what was said to this run is not meant for the next
                self._words.get()
        self._over.set()

    def _wait(self, done: Callable[[Consumer], bool], until: float) -> float:
        """Wait for all consumers, until that time, or the one that a further `stop` names. Returns the time it was."""
        while not all(done(consumer) for consumer in self._consumers):
            left = until - clock.now()
            if left <= 0:
                break
            try:
                word = self._hear(left)
            except Empty:
                continue
            if isinstance(word, _Stop) and word.grace is not None:
                until = min(until, clock.now() + word.grace)
            elif isinstance(word, _Ended):
                self._fail(word.error)
        return min(until, clock.now())

    def _hear(self, wait: float | None) -> _Stop | _Ended | None:
        """The next word. Raises `Empty` after `wait` seconds, or earlier."""
        if _in_main_thread():  # Python runs no handler of a signal in a wait that began after it
            wait = LISTEN if wait is None else min(wait, LISTEN)
        return self._words.get(timeout=wait)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        if self._beside:  # nobody hears of it before `close`
            log.error("the worker stops: %s", error)

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _get_loop(self) -> Loop:
        with self._lock:
            if self._loop is None:
                from cloudevents_bridge.loops import Loop  # asyncio is slow to import, and not every program needs it

                self._loop = Loop(self._home, self._home_ends)
            return self._loop

    def _home_ends(self) -> None:
        """The event loop that is not ours ends: what it has cancelled has not failed."""
        for consumer in self._consumers:
            consumer.stop()
        self._stop_this_run()

    def _stop_this_run(self) -> None:
        """`stop` what runs now, and not the next run."""
        with self._lock:
            if self._running:
                self._words.put(_Stop(None))

    @contextmanager
    def _listening(self, signals: bool) -> Iterator[None]:
        """Listen to signals, if that is asked for and possible. Raises `KeyboardInterrupt` after a second SIGINT."""
        with _signals(self._words) if signals and _in_main_thread() else _no_signals() as interrupted:
            yield
        if interrupted():
            raise KeyboardInterrupt


def _say_if_it_fails(step: Callable[[], object]) -> None:
    """One subscription that cannot be ended well does not keep the others from it."""
    try:
        step()
    except Exception:  # noqa: BLE001 - said, and the others are ended
        log.exception("ending a worker failed; what it had in hand comes again when its leases end")


def _program(
    handler: Router | Callable[..., object], *, batch: bool, concurrency: int
) -> tuple[Callable[[Runner], Program], int]:
    """What runs a handler, and how many threads are to call it."""
    if batch:
        if isinstance(handler, Router):
            raise TypeError("a router takes one event at a time: give a function of a list of deliveries, or no batch")
        if not callable(handler):
            raise TypeError(f"the handler {name_of(handler)} cannot be called")
        function = handler
        starts = inspect.iscoroutinefunction(function)

        def program(deliveries: list[Delivery]) -> object:
            return function(deliveries)

        return (lambda run: program), 1 if starts else concurrency
    if isinstance(handler, Router):
        starts = handler._only_starts()
    else:
        starts = inspect.iscoroutinefunction(pipeline(handler, _nothing))  # also says at once what it cannot fill

    def make(run: Runner) -> Program:
        call = pipeline(handler, run)
        return lambda deliveries: call(deliveries[0])

    return make, 1 if starts else concurrency


def _nothing(_: Any) -> None:
    """Runs no coroutine."""


def _check_seconds(what: str, value: object) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < inf:
        raise InvalidArgumentError(f"{what} is {value!r}: it must be 0 or more seconds")


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _no_signals() -> Iterator[Callable[[], bool]]:
    yield lambda: False


@contextmanager
def _signals(words: SimpleQueue[_Stop | _Ended | None]) -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT stop the worker. Gives whether there was a second SIGINT."""
    interrupts = 0

    def handle(number: int, _: object) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        words.put(_Stop(0.0 if interrupts > 1 else None))

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: interrupts > 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
