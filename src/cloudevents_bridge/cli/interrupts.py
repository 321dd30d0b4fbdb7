"""Ctrl-C at safe places only, so that nothing stays locked.

Between any two instructions it could leave a lock taken, or a temporary subscription behind.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import click

SHOWING = "ceb-show"
"""Name of the thread that receives and writes."""
PATIENCE = 2.0
"""Seconds that it is given to end; it may hang in a write that nobody reads."""


class Interrupts:
    """As a context manager: Ctrl-C waits for a `window`. The second one waits for nothing."""

    def __init__(self) -> None:
        self._pending = False
        self._open = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is signal.default_int_handler:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._pending and exc[0] is None:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._pending = self._pending, True
        if self._open or again:
            self._open = False
            raise KeyboardInterrupt

    def window(self, wait: Callable[[], Any]) -> Any:
        """Wait for something that Ctrl-C may end.

        Raises:
            KeyboardInterrupt: then, or if it came before.
        """
        self._open = True
        try:
            if self._pending:
                raise KeyboardInterrupt
            return wait()
        finally:
            self._open = False

    def run(self, show: Callable[[], Any], stop: Callable[[], Any]) -> None:
        """Receive and write in a thread, until it is done or Ctrl-C comes; `stop` then ends a receive that waits.

        Raises:
            KeyboardInterrupt: after `stop`.
            BaseException: what `show` raised.
        """
        failed: list[BaseException] = []
        context = click.get_current_context()

        def work() -> None:
            try:
                with context.scope(cleanup=False):
                    show()
            except BaseException as error:  # noqa: BLE001 - raised again by the main thread
                failed.append(error)

        thread = threading.Thread(target=work, name=SHOWING, daemon=True)
        thread.start()
        try:
            self.window(thread.join)
        except KeyboardInterrupt:
            stop()
            thread.join(PATIENCE)
            raise
        if failed:
            raise failed[0]
