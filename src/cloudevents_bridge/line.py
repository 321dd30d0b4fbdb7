"""What all publishers of a topic share: one outlet, and one buffer for each way of buffering."""

from __future__ import annotations

from typing import Any

from cloudevents_bridge import driver
from cloudevents_bridge.buffer import Buffer
from cloudevents_bridge.errors import PublishError
from cloudevents_bridge.outlet import Outlet
from cloudevents_bridge.session import Opener


class Line:
    """The way out to one topic, made by the broker and closed with it. In the child of a fork it starts anew, empty."""

    def __init__(self, opener: Opener, to: driver.Topic) -> None:
        self.opener = opener
        self.topic = to.name
        self._to = to
        self._outlet: Outlet | None = None
        self._buffers: dict[tuple[Any, ...], Buffer] = {}

    def outlet(self) -> Outlet:
        """The outlet of this process.

        Raises:
            ClosedError: if the broker was closed.
        """
        session = self.opener.get()
        outlet = self._outlet
        if outlet is not None and outlet.session is session:
            return outlet
        with self.opener.lock:
            if self._outlet is None or self._outlet.session is not session:
                self._outlet, self._buffers = Outlet(session, self._to), {}
            return self._outlet

    def buffer(self, options: tuple[float, int, str]) -> Buffer:
        """The buffer with these options, started on first use."""
        outlet = self.outlet()
        buffer = self._buffers.get(options)
        if buffer is None:
            with self.opener.lock:
                buffer = self._buffers.get(options)
                if buffer is None:
                    buffer = self._buffers[options] = Buffer(outlet, self.topic, *options)
        return buffer

    def buffers(self) -> list[Buffer]:
        """The buffers started so far in this process."""
        self.outlet()
        return list(self._buffers.values())

    def close(self, timeout: float) -> None:
        """Flush within `timeout` seconds and end.

        Raises:
            PublishError: for the submitted events that failed, or were not accepted in time, and were not reported.
        """
        outlet = self._outlet
        if outlet is None or outlet.session is not self.opener.peek():
            return
        lost: PublishError | None = None
        for buffer in self._buffers.values():
            try:
                buffer.close(timeout)
            except PublishError as error:
                lost = merged(lost, error)
        outlet.close()
        if lost is not None:
            raise lost


def merged(one: PublishError | None, other: PublishError) -> PublishError:
    """Both errors in one."""
    if one is not None:
        other.failed = one.failed + other.failed
    return other
