"""What a process under a supervisor and the supervisor tell each other: lines over a pair of sockets."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeAlias

import msgspec

from cloudevents_bridge.cli.stopper import Stopper, exit_within
from cloudevents_bridge.delivery import log
from cloudevents_bridge.stats import Stats

BEAT = 1.0
"""Seconds between two reports."""
ORPHANED = 5.0
"""Seconds, besides the grace, that a process without its supervisor has to end."""

STOP, NOW = b"stop\n", b"now\n"
"""What the supervisor says: stop in grace, stop without."""


class Beat(msgspec.Struct, tag="beat"):
    """The process works, and has come so far."""

    stats: Stats


class Farewell(msgspec.Struct, tag="farewell"):
    """The process ends in good order.

    Attributes:
        why: it was idle for long enough, it was told to stop, or it cannot go on.
        code: its exit code.
        error: the line to say.
    """

    why: Literal["idle", "stopped", "failed"]
    code: int
    error: str
    stats: Stats


Report: TypeAlias = Beat | Farewell
_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def decode(line: bytes) -> Report | None:
    """One line of a process; None if it is none of ours."""
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError:
        return None


class Link:
    """The side of the process. It reports, and stops the worker when it is told to or the supervisor is gone.

    Args:
        descriptor: of the socket that was inherited.
        grace: seconds that handlers have to end.
        stats: tells what was done so far.
    """

    def __init__(self, descriptor: int, stopper: Stopper, grace: float, stats: Callable[[], Stats]) -> None:
        os.set_inheritable(descriptor, False)  # a program that a handler starts must not keep it open
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(BEAT)
        self._stopper = stopper
        self._grace = grace
        self._stats = stats
        self._sending = threading.Lock()
        threading.Thread(target=self._serve, name="ceb-link", daemon=True).start()

    def end(self, why: Literal["idle", "stopped", "failed"], code: int, error: str = "") -> None:
        """Say why this process ends."""
        self._send(Farewell(why, code, error, self._stats()))

    def _send(self, report: Report) -> None:
        with self._sending, suppress(OSError):  # a supervisor that is gone, or does not read, is no reason to fail
            self._socket.sendall(msgspec.json.encode(report) + b"\n")

    def _serve(self) -> None:
        told = b""
        while True:
            try:
                heard = self._socket.recv(64)
            except TimeoutError:
                self._send(Beat(self._stats()))
                continue
            except OSError:
                heard = b""
            if not heard:
                break
            *words, told = (told + heard).split(b"\n")
            for word in words:
                self._stopper.stop(0.0 if word + b"\n" == NOW else None)
        exit_within(self._grace + ORPHANED, 1)
        log.warning("the supervisor is gone: the process stops")
        self._stopper.stop()
