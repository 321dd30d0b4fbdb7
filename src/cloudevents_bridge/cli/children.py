"""A process under a supervisor, as the supervisor holds it."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cloudevents_bridge import clock
from cloudevents_bridge.cli.link import Farewell, decode
from cloudevents_bridge.cli.stopper import interrupts_blocked
from cloudevents_bridge.stats import NOTHING, Stats


class Child:
    """Runs `ceb` with these words, and what connects it to us.

    Args:
        words: the command line after `ceb`.
        number: which of the processes it is, from 1; 0: the only one.
        interactive: whether it reads our standard input.

    Attributes:
        started: when, on our clock.
        heard: when it last reported; None: not yet.
        stats: what it did, as it last said.
        farewell: why it ended, if it could say.
        told: whether it was told to stop.

    Raises:
        OSError: if no process can be started.
    """

    def __init__(self, words: list[str], number: int, *, interactive: bool = False) -> None:
        self.number = number
        self.started = clock.now()
        self.heard: float | None = None
        self.stats: Stats = NOTHING
        self.farewell: Farewell | None = None
        self.told = False
        self.open = True
        self._unread = b""
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        try:
            with theirs, interrupts_blocked():
                descriptor = theirs.fileno()
                self._process = subprocess.Popen(  # noqa: S603 - our own command line
                    [*_interpreter(), "-m", "cloudevents_bridge", *words, "--supervised", str(descriptor), str(number)],
                    pass_fds=[descriptor],
                    stdin=None if interactive else subprocess.DEVNULL,
                )
        except BaseException:
            self._socket.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """The socket to wait for."""
        return self._socket.fileno()

    def tell(self, word: bytes) -> None:
        """Say `STOP` or `NOW`."""
        self.told = True
        with suppress(OSError):  # it has ended
            self._socket.send(word)

    def listen(self) -> None:
        """Take what it has reported."""
        while self.open:
            try:
                read = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                read = b""
            self.open = bool(read)
            *lines, self._unread = (self._unread + read).split(b"\n")
            for line in lines:
                report = decode(line)
                if report is not None:
                    self.heard = clock.now()
                    self.stats = report.stats
                if isinstance(report, Farewell):
                    self.farewell = report

    def ended(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self.listen()
        return code

    def kill(self) -> None:
        """End it now. Only this very process: its id is ours until it is waited for."""
        self._process.kill()

    def close(self) -> None:
        """Leave nothing of it behind."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._socket.close()


def _interpreter() -> list[str]:
    """The Python we run in, with the options that the environment does not carry on."""
    options = [f"-W{each}" for each in sys.warnoptions]
    options += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    if sys.path[0] not in ("", str(Path.cwd())):
        options.append("-P")  # else a module of the working directory could stand in for one of the library's
    return [sys.executable, *options]
