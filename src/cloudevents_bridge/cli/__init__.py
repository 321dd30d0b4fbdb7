"""The command line `ceb`, also `cloudevents-bridge` and `python -m cloudevents_bridge`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 something failed or differs, 2 usage or configuration, 3 not found,
    4 denied, 5 unavailable or timed out, 130 interrupted.
    """
    try:
        for name in ("SIGTERM", "SIGHUP"):  # end as Ctrl-C does: what was received is given back
            if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
                signal.signal(getattr(signal, name), signal.default_int_handler)
        from cloudevents_bridge.cli.app import app

        app.main(args, prog_name="ceb")
    except KeyboardInterrupt:
        pass
    sys.exit(130)
