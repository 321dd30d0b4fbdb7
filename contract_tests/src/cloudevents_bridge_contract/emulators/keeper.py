"""Emulators in the background: `python -m cloudevents_bridge_contract.emulators.keeper CLOUD` keeps those of one cloud
until it is told to end. Whether it lives is told by the lock it holds; where it is, by a file beside that.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from cloudevents_bridge_contract.emulators.catalog import CLOUDS, CannotStartError, Environment
from cloudevents_bridge_contract.emulators.process import ServerError, wait_until

PATIENCE = 120.0
"""Seconds that an emulator has to start, or to end."""
LOOK = 0.5
"""Seconds after which a lock is held by a keeper: who asks whether there is one holds it for a moment."""


class Kept(NamedTuple):
    """Emulators that run in the background. `pid`: their keeper's process id."""

    pid: int
    since: datetime
    environment: Environment


def up(cloud: str) -> Kept:
    """Start the emulators of a cloud, unless they run, and return when they are ready.

    Raises:
        CannotStartError: if one is not on this machine, or does not start.
    """
    if (kept := find(cloud)) is not None:
        return kept
    with _file(cloud, "log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__, cloud],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it outlives the terminal
        )
    # A keeper that found another one has ended, and that other one is waited for.
    wait_until(lambda: find(cloud) is not None or (keeper.poll() is not None and not _is_held(cloud)), PATIENCE)
    kept = find(cloud)
    if kept is None or kept.pid != keeper.pid:
        keeper.terminate()
        keeper.wait()  # else it could still take the place of one that is ended next
    if kept is None:
        said = _file(cloud, "log").read_text(errors="replace").strip()
        raise CannotStartError(said or f"the emulators of {cloud} were not ready within {PATIENCE:g} s")
    return kept


def down(cloud: str) -> bool:
    """End the emulators of a cloud, and return when they have ended. False: they did not run.

    Raises:
        CannotStartError: if they do not end.
    """
    kept = find(cloud)
    if kept is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(kept.pid, signal.SIGTERM)
    if not wait_until(lambda: not _is_held(cloud), PATIENCE):
        raise CannotStartError(f"the emulators of {cloud} do not end: their keeper is process {kept.pid}")
    return True


def find(cloud: str) -> Kept | None:
    """The emulators of a cloud, if they run and are ready."""
    if not _is_held(cloud):
        return None
    try:
        told = json.loads(_file(cloud, "json").read_bytes())
    except FileNotFoundError:
        return None
    return Kept(told["pid"], datetime.fromisoformat(told["since"]), told["environment"])


def main(cloud: str) -> int:
    """Keep the emulators of a cloud until SIGTERM or SIGINT."""
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    place = _file(cloud, "json")
    with _held(cloud, LOOK) as first:
        if not first:
            return 0
        place.unlink(missing_ok=True)
        try:
            with CLOUDS[cloud]() as environment:
                told = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(), "environment": dict(environment)}
                new = place.with_suffix(".new")
                new.write_text(json.dumps(told))
                new.replace(place)
                try:
                    while not end.wait(0.5):  # not longer: a signal that came just before does not end it
                        pass
                finally:
                    place.unlink(missing_ok=True)
        except (CannotStartError, ServerError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def _file(cloud: str, kind: str) -> Path:
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"ceb-emulators-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise CannotStartError(
            f"{folder} was made by others: remove it, or set XDG_RUNTIME_DIR to a directory of yours"
        )
    return folder / f"{cloud}.{kind}"


@contextmanager
def _held(cloud: str, patience: float = 0.0) -> Iterator[bool]:
    """Hold the cloud's lock, which ends with this process. Gives whether it could be had within `patience` seconds."""
    with _file(cloud, "lock").open("ab") as file:
        yield wait_until(lambda: _locks(file), patience, pause=0.01)


def _locks(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(cloud: str) -> bool:
    with _held(cloud) as free:
        return not free


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
