"""The one clock that leases and deadlines are counted on."""

from __future__ import annotations

import time

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)

if _BOOTTIME is not None:
    _clock: int = _BOOTTIME

    def now() -> float:
        """Seconds that no change of the wall clock moves, and that go on while the machine is suspended."""
        return time.clock_gettime(_clock)

else:

    def now() -> float:
        """Seconds that no change of the wall clock moves."""
        return time.monotonic()
