"""Runs a server for the process whose pipe is our standard input, and ends it with that process, however it ends.

`python guard.py FOLDER GRACE COMMAND…`. A file of its own without imports of ours: it starts in milliseconds. FOLDER is
removed with the server, but left where that ended by itself, for its log. GRACE: seconds between SIGTERM and SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time


def main(folder: str, grace: float, command: list[str]) -> int:
    """Returns the server's exit status; that of `sh` where a signal ended it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    unwanted = threading.Event()
    try:
        threading.Thread(target=_until_unwanted, args=[server.pid, grace, unwanted], daemon=True).start()
        status = server.wait()
    except SystemExit:
        unwanted.set()
        raise
    finally:
        _kill(server.pid, signal.SIGKILL)  # what it started and left
        server.wait()
        if unwanted.is_set():
            shutil.rmtree(folder, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _until_unwanted(server: int, grace: float, unwanted: threading.Event) -> None:
    """Reads until the other end of the pipe is closed: by its owner, or by the system when that has died."""
    while os.read(0, 512):
        pass
    unwanted.set()
    _kill(server, signal.SIGTERM if grace else signal.SIGKILL)
    time.sleep(grace)
    _kill(server, signal.SIGKILL)


def _kill(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
