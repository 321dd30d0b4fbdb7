"""A condition whose users may be interrupted at any instant."""

from __future__ import annotations

import threading


class Condition(threading.Condition):
    """A condition that keeps its promise where Ctrl-C raises KeyboardInterrupt, or a signal's handler something else.

    CPython's own is written in Python, and has two gaps. One is on the way into it, which leaves it locked: so `lock`
    is entered instead. The other is in `wait`, between giving up the lock and being ready to take it back, which leaves
    a `with` that fails because it holds nothing: so `wait` ends with the lock held, whatever ends it.

    Attributes:
        lock: guards what is waited for; held once by whoever waits.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        super().__init__(self.lock)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified, for `timeout` seconds at most. Gives whether it was."""
        try:
            return super().wait(timeout)
        except BaseException:
            try:
                self.notify(0)
            except RuntimeError:  # not held
                self.lock.acquire()
            raise
