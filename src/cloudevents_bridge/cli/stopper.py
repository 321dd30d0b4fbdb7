"""What ends a worker from outside: signals, and the word of a supervisor."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any

from cloudevents_bridge import clock

if TYPE_CHECKING:
    from cloudevents_bridge import Worker

IMPATIENCE = 2.0
"""Seconds after the second Ctrl-C, after which one more interrupts whatever is done."""

PATIENCE = 10.0
"""Seconds that threads of the program have to end after the worker, to send what they hold, perhaps."""
LEFT_BEHIND = 1.0
"""The same where a handler was left behind: its thread is likely to be the one."""


class Stopper:
    """Stops a worker when it is asked to, also before there is one.

    Args:
        grace: seconds that the worker leaves its handlers.

    Attributes:
        asked: whether it was asked to.
        interrupts: how often SIGINT came.
    """

    def __init__(self, grace: float) -> None:
        self.asked = False
        self.interrupts = 0
        self._grace = grace
        self._ends_at = self._impatient_at = inf
        self._worker: Worker | None = None

    def take(self, worker: Worker) -> None:
        """Stop this worker when it is asked for, or at once if it was."""
        self._worker = worker
        if self.asked:
            worker.stop()

    def stop(self, grace: float | None = None) -> None:
        """Have the worker stop within `grace` seconds; None: those of the worker. Returns at once."""
        self.asked = True
        self._ends_at = min(self._ends_at, clock.now() + (self._grace if grace is None else grace))
        if self._worker is not None:
            self._worker.stop(grace=grace)

    @property
    def used_up(self) -> bool:
        """Whether the worker has had all its grace: then handlers were left behind."""
        return clock.now() >= self._ends_at

    @contextmanager
    def signals(self) -> Iterator[None]:
        """SIGTERM, SIGHUP and SIGINT stop the worker. The second SIGINT leaves no grace; should that take long, a
        further one interrupts. After the block there is nothing to be interrupted any more.
        """
        before: dict[int, Any] = {}
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.default_int_handler:
                before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                over = number == signal.SIGINT and self.interrupts
                signal.signal(number, signal.SIG_IGN if over else handler)

    def _handle(self, number: int, _: object) -> None:
        self.interrupts += number == signal.SIGINT
        if self.interrupts < 2:
            self.stop()
        elif self._impatient_at == inf:
            self._impatient_at = clock.now() + IMPATIENCE
            self.stop(0.0)
        elif clock.now() > self._impatient_at:
            raise KeyboardInterrupt


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """What is started in the block does not see Ctrl-C before it lets it in: half-way up it could only fall over."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_interrupts_in() -> None:
    """In the process that was started so."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


class Ending(threading.Thread):
    """Ends the process when threads of the program keep it from ending, once it has come to its end. Python waits for
    some, such as those of `asyncio.to_thread`, for ever.

    Attributes:
        patience: seconds that they have.
    """

    def __init__(self) -> None:
        super().__init__(name="ceb-end", daemon=True)
        self.patience = PATIENCE
        self._begun = threading.Event()
        self._code = 0
        self.start()

    def begin(self, code: int) -> None:
        """There is nothing more to do than to exit with this code."""
        self._code = code
        self._begun.set()

    def run(self) -> None:
        self._begun.wait()
        time.sleep(self.patience)
        with suppress(Exception):
            sys.stderr.write("a thread of the program does not end: the process ends without it\n")
            sys.stdout.flush()
        os._exit(self._code)


def begin_to_end(code: int) -> None:
    """The program has come to its end, and exits with this code."""
    for thread in threading.enumerate():
        if isinstance(thread, Ending):
            thread.begin(code)


def exit_within(seconds: float, code: int) -> None:
    """End this process after so many seconds, whatever it does then."""

    def wait() -> None:
        time.sleep(seconds)
        os._exit(code)

    threading.Thread(target=wait, name="ceb-exit", daemon=True).start()
