"""The buffer behind `Publisher.submit`: one thread that batches what is submitted and sends it."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from weakref import WeakSet

from cloudevents_bridge import clock
from cloudevents_bridge.conditions import Condition
from cloudevents_bridge.core.outbox import Resolved
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    DeadlineExceededError,
    ErrorCode,
    PublishError,
    make_error,
)
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.outlet import Outlet, Receipt, publish_error

AT_EXIT = 10.0
"""Seconds that a program which ends with events buffered spends on sending them."""
MAX_FAILURES = 10_000
"""Failed events kept for the next flush; of more only the number is kept."""


class Account:
    """What one publisher has submitted to a buffer that it may share: how much is pending, and what has failed and was
    not yet reported.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, None] = {}  # by number, so the first is the oldest
        self.submitted = 0
        self.failures = 0
        self.failed: list[tuple[CloudEvent, BridgeError]] = []


Item = tuple[CloudEvent, float, "Future[Receipt]", Account]


class Buffer:
    """Events submitted and not yet accepted. Thread-safe."""

    def __init__(self, outlet: Outlet, topic: str, linger: float, max_buffered: int, on_full: str) -> None:
        self._outlet = outlet
        self.session = outlet.session
        self._topic = topic
        self._linger = linger
        self._max = max_buffered
        self._block = on_full == "block"
        self._broker = outlet.session.broker
        self._changed = Condition()
        self._lock = self._changed.lock
        self._incoming: deque[Item] = deque()
        self._since = 0.0  # when the oldest of the incoming came
        self._hurry = 0  # flushes that wait: do not linger
        self._closing = False
        self._unresolved: dict[Future[Receipt], tuple[CloudEvent, Account, int]] = {}
        self._number = 0
        self._owing: set[Account] = set()
        self._told: list[Callable[[], object]] = []
        self.waiting: dict[int, None] = {}
        self.failures = 0
        self._outbox = outlet.outbox()
        self._thread = threading.Thread(target=self._work, name=f"ceb-publish-{topic}", daemon=True)
        self._thread.start()
        _live.add(self)
        _flush_in_children()

    def submit(self, event: CloudEvent, delay: float, account: Account, sent: CloudEvent) -> Future[Receipt]:
        """Take an event in. `sent`: the same, as it is to be sent."""
        future: Future[Receipt] = Future()
        with self._lock:
            while len(self.waiting) >= self._max and not self._closing:
                if not self._block or threading.current_thread() is self._thread:
                    raise make_error(
                        ErrorCode.RESOURCE_EXHAUSTED,
                        f"{len(self.waiting)} events for topic {self._topic} on {self._broker} are buffered, and no "
                        "more than that may be: submit more slowly, raise max_buffered, or open with on_full='block'",
                        retryable=True,
                        broker=self._broker,
                    )
                self._changed.wait()
            if self._closing:
                raise ClosedError(f"the publisher for topic {self._topic} on {self._broker} was closed")
            if not self._incoming:
                self._since = clock.now()
            self._incoming.append((sent, delay, future, account))
            self._number += 1
            self._unresolved[future] = event, account, self._number
            self.waiting[self._number] = account.waiting[self._number] = None
            account.submitted += 1
            if len(self._incoming) == 1 or len(self._incoming) == self._outlet.batch_count:
                self._changed.notify_all()
        return future

    @contextmanager
    def room(self, told: Callable[[], object]) -> Iterator[bool]:
        """Whether `submit` need not wait; that stays so in the block. If it has to, `told` is called when that may have
        changed, once and in any thread.
        """
        with self._lock:
            full = self._block and len(self.waiting) >= self._max and not self._closing
            if full:
                self._told.append(told)
            yield not full

    def wait_sent(self, timeout: float, account: Account | None = None) -> None:
        """Wait until everything submitted so far is accepted or has failed, of that account or at all.

        Raises:
            DeadlineExceededError: if that took longer than `timeout` seconds.
        """
        of = account or self
        if threading.current_thread() is self._thread:
            raise make_error(
                ErrorCode.FAILED_PRECONDITION,
                f"the publisher for topic {self._topic} on {self._broker} was flushed or closed by a callback of one "
                "of its futures, which runs in the thread that publishes: do that in another thread",
                broker=self._broker,
            )
        with self._lock:
            self._hurry += 1
            self._changed.notify_all()
            last = self._number
            try:
                if not self._changed.wait_for(lambda: next(iter(of.waiting), last + 1) > last, timeout):
                    raise DeadlineExceededError(
                        f"{len(of.waiting)} events for topic {self._topic} on {self._broker} are still buffered after "
                        f"{timeout:g} s: flush again, or give it a longer timeout",
                        retryable=True,
                        broker=self._broker,
                    )
            finally:
                self._hurry -= 1

    def flush(self, timeout: float, account: Account) -> None:
        """Wait until everything of the account is accepted or has failed, and raise what failed."""
        self.wait_sent(timeout, account)
        self._raise_failures([account])

    def settle_up(self, timeout: float, account: Account) -> None:
        """Send what the account has pending within `timeout` seconds, give up the rest, and raise all that failed."""
        try:
            self.wait_sent(timeout, account)
        except DeadlineExceededError:
            self._give_up(account)
        self._raise_failures([account])

    def close(self, timeout: float) -> None:
        """Settle up with all, and end."""
        late = False
        try:
            self.wait_sent(timeout)
        except DeadlineExceededError:
            late = True
        with self._lock:
            self._closing = True
            self._tell()
        if late:
            self._give_up(None)  # the thread ends when its last send does
        else:
            self._thread.join()
        _live.discard(self)
        self._raise_failures(list(self._owing))

    def _give_up(self, of: Account | None) -> None:
        with self._lock:
            left = [future for future, (_, account, _) in self._unresolved.items() if of in (account, None)]
        error = self._too_late()
        self._resolve([(future, error) for future in left if not future.cancelled()])

    def _too_late(self) -> BridgeError:
        return DeadlineExceededError(
            f"the publisher for topic {self._topic} on {self._broker} was closed before the event was accepted; it may "
            "have been accepted all the same: publish it again, or give close a longer timeout",
            retryable=True,
            broker=self._broker,
            maybe_applied=True,
        )

    def _raise_failures(self, accounts: list[Account]) -> None:
        failed: list[tuple[CloudEvent, BridgeError]] = []
        failures = submitted = 0
        with self._lock:
            for account in accounts:
                failed += account.failed
                failures += account.failures
                submitted += account.submitted
                account.failed, account.failures, account.submitted = [], 0, len(account.waiting)
                self._owing.discard(account)
        if failures:
            error: PublishError = publish_error(failed, submitted, self._topic)
            if failures > len(failed):
                error.add_note(f"{failures} failed in all; .failed holds the first {len(failed)}")
            raise error

    # -- the thread

    def _work(self) -> None:
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._incoming or self._closing)
                if not self._incoming:
                    return
                self._changed.wait_for(self._full_enough, max(self._since + self._linger - clock.now(), 0.0))
            self._take_incoming()
            try:
                self._outlet.run(self._outbox, self._finish, self._pause, self._take_incoming)
            except BridgeError as error:
                self._fail_all(error)
            except Exception as error:
                logging.getLogger("cloudevents_bridge").exception("publishing in the background failed")
                self._fail_all(make_error(ErrorCode.INTERNAL, f"publishing failed: {error}", broker=self._broker))

    def _full_enough(self) -> bool:
        return self._hurry > 0 or self._closing or len(self._incoming) >= self._outlet.batch_count

    def _take_incoming(self) -> None:
        cancelled: list[tuple[Account, int]] = []
        taken: list[Item] = []
        with self._lock:
            if self._closing:
                self._outbox.abandon()
            for item in self._incoming:
                future = item[2]
                if future not in self._unresolved:
                    continue  # given up by a close
                if future.set_running_or_notify_cancel():
                    taken.append(item)
                else:
                    cancelled.append(self._unresolved.pop(future)[1:])
            self._incoming.clear()
        if cancelled:
            self._finished(cancelled)
        deadline = clock.now() + self._outlet.session.config.timeout
        for event, delay, future, _ in taken:
            self._outbox.add(self._outlet.entry(event, (event, future), delay, deadline))

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._changed.wait_for(lambda: self._closing or self._incoming, seconds)

    def _finish(self, resolved: list[Resolved]) -> None:
        told = []
        for entry, outcome in resolved:
            event, future = entry.tag
            told.append((future, self._outlet.outcome(event, entry, outcome)))
        self._resolve(told)

    def _fail_all(self, error: BridgeError) -> None:
        self._outbox = self._outlet.outbox()  # what was in flight is lost to the old one
        with self._lock:
            taken = [future for future in self._unresolved if future.running()]
        self._resolve([(future, error) for future in taken])

    def _resolve(self, told: list[tuple[Future[Receipt], Receipt | BridgeError]]) -> None:
        """Tell the callers. What `close` has given up meanwhile is passed over."""
        done: list[tuple[Account, int]] = []
        mine: list[tuple[Future[Receipt], Receipt | BridgeError]] = []
        with self._lock:
            for future, outcome in told:
                if (known := self._unresolved.pop(future, None)) is None:
                    continue
                event, account, number = known
                mine.append((future, outcome))
                done.append((account, number))
                if isinstance(outcome, BridgeError):
                    self._owing.add(account)
                    self.failures += 1
                    account.failures += 1
                    if len(account.failed) < MAX_FAILURES:
                        account.failed.append((event, outcome))
        for future, outcome in mine:
            if isinstance(outcome, BridgeError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._finished(done)

    def _finished(self, done: list[tuple[Account, int]]) -> None:
        with self._lock:
            for account, number in done:
                del self.waiting[number], account.waiting[number]
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        told, self._told = self._told, []
        for each in told:
            each()


_live: WeakSet[Buffer] = WeakSet()


def _flush_at_exit() -> None:
    """A program that ends with events buffered sends them now, or says how many were lost and exits with 1."""
    lost = 0
    for buffer in list(_live):
        failed_before = buffer.failures
        with suppress(DeadlineExceededError):
            buffer.wait_sent(AT_EXIT)
        if left := len(buffer.waiting) + buffer.failures - failed_before:
            lost += left
            print(
                f"cloudevents_bridge: {left} events for topic {buffer._topic} on {buffer._broker} were not "
                "accepted before the program ended: close the publisher or the broker before",
                file=sys.stderr,
            )
    if lost:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _flush_in_children() -> None:
    """Processes of `multiprocessing` end without `atexit`, and run finalizers of their own."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _flush_at_exit, exitpriority=10)


atexit.register(_flush_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_live.clear)
