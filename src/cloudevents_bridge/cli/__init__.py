"""The command line `ceb`, also `cloudevents-bridge` and `python -m cloudevents_bridge`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 something failed or differs, 2 usage or configuration, 3 not found,
    4 denied, 5 unavailable or timed out, 130 interrupted.
    """
    _check_streams()
    code: str | int | None = 130
    try:
        for name in ("SIGTERM", "SIGHUP"):  # end as Ctrl-C does: what was received is given back
            if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
                signal.signal(getattr(signal, name), signal.default_int_handler)
        from cloudevents_bridge.cli.app import app

        app.main(args, prog_name="ceb")
    except SystemExit as done:
        code = done.code
    except KeyboardInterrupt:
        pass
    if code == 130 and any(thread.name == "ceb-show" for thread in threading.enumerate()):
        os._exit(130)  # it hangs in a write that nobody reads, and so would the interpreter's own ending
    if "cloudevents_bridge.cli.stopper" in sys.modules:
        from cloudevents_bridge.cli.stopper import begin_to_end

        begin_to_end(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)


def _check_streams() -> None:
    """A stream that the caller closed is empty, or swallows; but what is written must not be lost in silence."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        sys.stderr.write("error: standard output is closed: give it somewhere to go, /dev/null at least\n")
        sys.exit(1)
