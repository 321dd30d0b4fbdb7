"""A stream of lines to publish, in constant memory: what fails is reported with its line and does not stop the rest."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import IO, Any, Protocol

import click

from cloudevents_bridge import BridgeError, CloudEvent, Publisher, PublishError
from cloudevents_bridge.cli.interrupts import Interrupts
from cloudevents_bridge.cli.shell import Shell, complain, event_line, one_line
from cloudevents_bridge.errors import DeadlineExceededError, ErrorCode

LONGEST = 64 * 1024 * 1024
"""Bytes of one line, at most: no broker takes more, and a file without line breaks must not fill the memory."""
PATIENCE = 60.0
"""Seconds in which none of the last events was accepted or failed, after which they are given up."""
INTERRUPTED = 2.0
"""Seconds that what was read before Ctrl-C is given to be accepted."""

_HOPELESS = frozenset(
    {
        ErrorCode.NOT_FOUND,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.UNAVAILABLE,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.UNSUPPORTED,
    }
)
"""What is wrong with the broker and not with a line: when nothing was accepted before, going on is no use."""


class Bar(Protocol):
    """What shows how far it is."""

    def update(self, position: int, published: int, failed: int) -> None: ...
    def complain(self, text: str) -> None: ...


class Lines:
    """The lines of a stream, numbered from 1, without their line ends; blank ones are left out.

    Attributes:
        number: of the line read last.
        position: bytes read.
    """

    def __init__(self, stream: IO[bytes], interrupts: Interrupts) -> None:
        self._stream = stream
        self._interrupts = interrupts
        self.number = 0
        self.position = 0

    def __iter__(self) -> Iterator[bytes | None]:
        """Each line; None for one that is too long."""
        while raw := self._interrupts.window(self._read):
            self.number += 1
            self.position += len(raw)
            if len(raw) == LONGEST and not raw.endswith(b"\n"):
                self._skip()
                yield None
                continue
            if self.number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            line = raw.rstrip(b"\r\n")
            if line.strip():
                yield line

    def _read(self) -> bytes:
        return self._stream.readline(LONGEST)

    def _skip(self) -> None:
        while rest := self._interrupts.window(self._read):
            self.position += len(rest)
            if rest.endswith(b"\n"):
                return


class Tally:
    """What became of the lines. Any thread may report."""

    def __init__(self, bar: Bar) -> None:
        self.published = 0
        self.failed = 0
        self.hopeless: BridgeError | None = None
        self._bar = bar
        self._lock = threading.Lock()

    def done(self, number: int, future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            with self._lock:
                self.published += 1
        else:
            self.fail(number, error)

    def fail(self, number: int, error: BaseException) -> None:
        with self._lock:
            self.failed += 1
            if isinstance(error, BridgeError) and error.code in _HOPELESS and not self.published:
                self.hopeless = self.hopeless or error
            if self.hopeless is None:
                self._bar.complain(f"line {number}: {error}")


def publish_stream(
    shell: Shell, stream: IO[bytes], size: int | None, make: Callable[[bytes], CloudEvent], publisher: Publisher | None,
    delay: float,
) -> int:  # fmt: skip
    """Publish an event per line and say what became of them; without a publisher, print them.

    Args:
        size: bytes of the stream, where they are known.

    Returns:
        0 if all were accepted, 1 if some failed.

    Raises:
        BridgeError: if the broker took nothing at all for a reason that no line is to blame for.
        KeyboardInterrupt: after what was read is accepted, or was given up, and the summary was printed.
    """
    began = time.monotonic()
    with Interrupts() as interrupts, _bar(shell, size) as bar:
        lines = Lines(stream, interrupts)
        tally = Tally(bar)
        try:
            _submit(lines, make, publisher, delay, tally, bar)
            _finish(publisher, tally)
        except KeyboardInterrupt:
            _close(publisher, INTERRUPTED)
            _summary(shell, tally, lines, began, interrupted=True)
            raise
    if tally.hopeless is not None:
        raise tally.hopeless
    _summary(shell, tally, lines, began, dry=publisher is None)
    return 1 if tally.failed else 0


def _submit(
    lines: Lines, make: Callable[[bytes], CloudEvent], publisher: Publisher | None, delay: float, tally: Tally, bar: Bar
) -> None:
    for line in lines:
        number = lines.number
        try:
            if line is None:
                raise ValueError(f"longer than {LONGEST} bytes")
            event = make(line)
        except ValueError as error:
            tally.fail(number, error)
            continue
        if publisher is None:
            click.echo(event_line(event))
            tally.published += 1
        else:
            publisher.submit(event, delay=delay).add_done_callback(partial(tally.done, number))
        if not number % 1000:
            bar.update(lines.position, tally.published, tally.failed)
        if tally.hopeless is not None:
            return


def _finish(publisher: Publisher | None, tally: Tally) -> None:
    """Wait for the last events, for as long as there is progress."""
    settled = -1
    while publisher is not None and settled < tally.published + tally.failed:
        settled = tally.published + tally.failed
        try:
            publisher.flush(timeout=PATIENCE)
        except PublishError:
            break  # all are settled, and each failure was reported with its line
        except DeadlineExceededError:
            continue
        break
    _close(publisher, INTERRUPTED)


def _close(publisher: Publisher | None, timeout: float) -> None:
    if publisher is not None:
        with suppress(PublishError):
            publisher.close(timeout=timeout)


def _summary(
    shell: Shell, tally: Tally, lines: Lines, began: float, *, interrupted: bool = False, dry: bool = False
) -> None:
    seconds = time.monotonic() - began
    if shell.as_json and not dry:
        shell.emit(
            {
                "lines": lines.number,
                "published": tally.published,
                "failed": tally.failed,
                "seconds": round(seconds, 3),
                "interrupted": interrupted,
            }
        )
        return
    word = "would publish" if dry else "published"
    text = f"{word} {tally.published}, failed {tally.failed}, read {lines.number} lines in {seconds:.1f} s"
    shell.note(text + (f"; interrupted after line {lines.number}" if interrupted else ""))


class _NoBar:
    def update(self, position: int, published: int, failed: int) -> None:
        pass

    def complain(self, text: str) -> None:
        complain(text)


class _RichBar:
    def __init__(self, size: int | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = [BarColumn(), TaskProgressColumn(), TimeRemainingColumn()] if size else [SpinnerColumn()]
        counts = TextColumn("{task.fields[published]} published, {task.fields[failed]} failed")
        self._progress = Progress(*columns, counts, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=size, published=0, failed=0)

    def __enter__(self) -> _RichBar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def update(self, position: int, published: int, failed: int) -> None:
        self._progress.update(self._task, completed=position, published=published, failed=failed)

    def complain(self, text: str) -> None:
        self._progress.console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


def _bar(shell: Shell, size: int | None) -> AbstractContextManager[Bar]:
    if shell.quiet or not sys.stderr.isatty():
        return nullcontext(_NoBar())
    return _RichBar(size)
