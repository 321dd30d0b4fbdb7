"""Links that stay open: a sender or receiver of the SDK, which is not thread-safe, one user at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_azure.servicebus import sdk
from cloudevents_bridge_azure.servicebus.errors import OpeningError, StalledError
from cloudevents_bridge_azure.servicebus.turns import Turns
from cloudevents_bridge_azure.servicebus.watch import Watch

IDLE = 100.0
"""Seconds without use after which a link is opened anew: the service closes connections on which nothing moves."""


class Link:
    """One sender or receiver, opened on use and again after an error. Use it in one's turn.

    Args:
        make: gives one that is not open.
    """

    def __init__(self, make: Callable[[], Any], watch: Watch) -> None:
        self.turns = Turns()
        self._make = make
        self._watch = watch
        self._native: Any = None
        self._used = 0.0
        self._closed = False

    @property
    def is_open(self) -> bool:
        return self._native is not None

    @contextmanager
    def use(self, timeout: float) -> Iterator[Any]:
        """The native object, open. After `timeout` seconds, or an error that it may not survive, its connection is cut.

        Raises:
            OpeningError: if it cannot be opened.
            StalledError: if the time is over.
        """
        end = monotonic() + timeout
        native = self._opened(timeout)
        alarm = self._watch.set(max(end - monotonic(), 0.001), lambda: sdk.cut(native))
        try:
            yield native
        except Exception as error:
            alarm.off = True
            if alarm.rang or not survives(error):
                self.drop()
            if alarm.rang:
                raise StalledError(f"there was no answer within {timeout:g} s") from error
            raise
        except BaseException:  # interrupted within a request, whose answer would be taken for another's
            self.drop()
            raise
        finally:
            alarm.off = True
            self._used = monotonic()

    def drop(self) -> None:
        """Break the connection and forget it. The next use opens another."""
        native, self._native = self._native, None
        if native is not None:
            sdk.cut(native)
            with suppress(Exception):
                native.close()

    def cut(self) -> None:
        """From any thread: whoever uses it gets an error."""
        self._closed = True
        sdk.cut(self._native)

    def close(self) -> None:
        """In good order. Waits for whoever uses it."""
        with self.turns:
            self._closed = True
            native, self._native = self._native, None
            if native is not None:
                with self._watch.limit(2.0, lambda: sdk.cut(native)), suppress(Exception):
                    native.close()

    def _opened(self, timeout: float) -> Any:
        if self._closed:
            raise ClosedError("its connection was closed meanwhile: ask the broker for another")
        if self._native is not None and monotonic() - self._used > IDLE:
            self.drop()
        if self._native is None:
            native = self._make()
            with self._watch.limit(min(timeout, sdk.OPENING), lambda: sdk.cut(native)) as alarm:
                try:
                    sdk.open_(native)
                except Exception as error:
                    with suppress(Exception):
                        native.close()
                    if alarm.rang:
                        text = f"no connection within {min(timeout, sdk.OPENING):g} s"
                        raise OpeningError from StalledError(text)
                    raise OpeningError from error
            self._native = native
            self._used = monotonic()
        return self._native


class Pool:
    """A few links of one kind, each opened when those before it are in use.

    Args:
        most: links, at most.
    """

    def __init__(self, make: Callable[[], Any], watch: Watch, most: int) -> None:
        self._make, self._watch, self._most = make, watch, most
        self._free = threading.Condition()
        self._links: list[Link] = []
        self._closed = False

    @contextmanager
    def one(self, timeout: float) -> Iterator[Link]:
        """A link that nobody else uses, in our turn.

        Raises:
            StalledError: if all were in use for so long.
            ClosedError: if it was closed.
        """
        link = self._take(timeout)
        try:
            yield link
        finally:
            self._done(link)

    @contextmanager
    def turn(self, link: Link, timeout: float) -> Iterator[None]:
        """A link of ours, in turn, whoever uses it now.

        Raises:
            StalledError: if others used it for so long.
        """
        if not link.turns.acquire(timeout):
            raise StalledError(f"the connection was in use for {timeout:g} s")
        try:
            yield
        finally:
            self._done(link)

    def close(self) -> None:
        with self._free:
            self._closed = True
            links, self._links = self._links, []
            self._free.notify_all()
        close_all(links)

    def _done(self, link: Link) -> None:
        link.turns.release()
        with self._free:
            self._free.notify()

    def _take(self, timeout: float) -> Link:
        end = monotonic() + timeout
        with self._free:
            while True:
                if self._closed:
                    raise ClosedError("its connection was closed meanwhile: ask the broker for another")
                for link in sorted(self._links, key=lambda each: not each.is_open):
                    if link.turns.acquire(0):
                        return link
                if len(self._links) < self._most:
                    link = Link(self._make, self._watch)
                    link.turns.acquire(0)
                    self._links.append(link)
                    return link
                left = end - monotonic()
                if left <= 0:
                    raise StalledError(f"{self._most} requests were under way for {timeout:g} s")
                self._free.wait(left)


def survives(error: BaseException) -> bool:
    """Whether the connection is as good as before: the service, or the SDK, has refused one thing."""
    return type(error).__name__ in _REFUSALS


_REFUSALS = frozenset(
    {
        "MessageLockLostError",
        "MessageAlreadySettled",
        "MessageNotFoundError",
        "MessageSizeExceededError",
        "ClosedError",
        "InvalidArgumentError",
    }
)


def close_all(links: list[Link]) -> None:
    """Close them side by side: each takes a while."""
    threads = [threading.Thread(target=link.close, name="ceb-servicebus-close") for link in links[1:]]
    for thread in threads:
        thread.start()
    for link in links[:1]:
        link.close()
    for thread in threads:
        thread.join()
