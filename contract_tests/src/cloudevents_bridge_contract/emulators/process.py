"""A server process of ours on the loopback interface: started, waited for, restarted, and surely ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
_GUARD = Path(__file__).with_name("guard.py")
_TRIES = 3  # another process may take the free port between our finding it and the server's using it


class ServerError(RuntimeError):
    """A server that ended before it was ready, or was not ready in time; the message ends with its log."""


class Server:
    """A server that runs while it is open (`with Server(…) as server`), and no longer than this process.

    A small process of its own guards it, so that a test run that is killed leaves no server behind.

    Attributes:
        name: what it is called in errors.
        port: a port that was free; the same after `restart`.
        folder: a new folder for what the server writes, removed at the end.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[Server], Sequence[str]],
        ready: Callable[[Server], bool],
        *,
        environment: Callable[[Server], Mapping[str, str]] = lambda server: {},
        patience: float = 60.0,
        grace: float = 0.0,
    ) -> None:
        """Nothing is started yet.

        Args:
            name: for errors and the log file.
            command: the program and its arguments, once port and folder are known.
            ready: whether it serves; asked again and again. An `OSError` counts as no.
            environment: set beside what this process has.
            patience: seconds until it must be ready.
            grace: seconds between SIGTERM and SIGKILL; 0: SIGKILL at once.
        """
        self.name = name
        self.port = 0
        self.folder = Path()
        self._command, self._ready, self._environment = command, ready, environment
        self._patience, self._grace = patience, grace
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The file that takes what the server says on standard output and error."""
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def start(self) -> Self:
        """Start it on a free port and return when it is ready.

        Raises:
            ServerError: if it ends first, or is not ready in time. The message has the end of its log.
        """
        for left in reversed(range(_TRIES)):
            self.port = free_port()
            try:
                self._start()
                break
            except ServerError:
                slow = self.running
                self.stop()
                if slow or not left:
                    raise
        return self

    def stop(self) -> None:
        """End it and all that it started; its folder is removed. Idempotent."""
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            try:
                self._guard.wait(self._grace + 10.0)
            except subprocess.TimeoutExpired:
                self._guard.terminate()
                self._guard.wait()
            self._guard = None
        if self.folder.parts:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = Path()

    def restart(self) -> None:
        """Stop it and start it again on the same port, without what it kept in memory and in its folder.

        Raises:
            ServerError: as `start`.
        """
        self.stop()
        self._start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"ceb-{self.name}-"))
        guard = [sys.executable, "-I", "-S", str(_GUARD), str(self.folder), str(self._grace)]
        with self.log.open("ab") as log:
            guarding = subprocess.Popen(
                [*guard, *self._command(self)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment(self)},
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for the test run, which then closes the pipe
            )
        self._guard = guarding
        in_time = wait_until(lambda: guarding.poll() is not None or self._is_ready(), self._patience)
        if guarding.returncode is not None:
            raise ServerError(self._trouble(f"{self.name} ended with status {guarding.returncode}"))
        if not in_time:
            raise ServerError(self._trouble(f"{self.name} was not ready within {self._patience:g} s"))

    def _is_ready(self) -> bool:
        try:
            return self._ready(self)
        except OSError:
            return False

    def _trouble(self, what: str) -> str:
        try:
            said = self.log.read_text(errors="replace")[-2000:].strip()
        except OSError:
            said = ""
        return f"{what} on {self.address}; it said: {said or 'nothing'}"


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(done: Callable[[], bool], patience: float, *, pause: float = 0.05) -> bool:
    """Whether `done` came true within `patience` seconds; it is asked every `pause` seconds."""
    deadline = time.monotonic() + patience
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True
