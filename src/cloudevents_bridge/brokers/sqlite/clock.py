"""Time that neither suspend nor a change of the wall clock disturbs, and that goes on after a reboot.

Every time in the file is seconds on one clock of the file's own. While the machine is up it runs with the boot clock;
over a reboot it is carried on by the wall clock. So a delay keeps its end, and a lease of an earlier boot is void.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Clock(NamedTuple):
    """What a machine knows of time.

    Attributes:
        boot: changes with each start of the machine.
        ticks: seconds since some instant of this boot, the same in every process; suspend counts.
        wall: seconds since 1970, which people and NTP may move.
    """

    boot: str
    ticks: Callable[[], float]
    wall: Callable[[], float] = time.time


def system_clock() -> Clock:
    """The clock of the machine; where the system tells no boot id it is the wall clock, with its jumps."""
    boot = _boot_id()
    if boot is None:
        return Clock("wall", time.time)
    if hasattr(time, "CLOCK_BOOTTIME"):
        return Clock(boot, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    if sys.platform == "darwin":  # time.monotonic stands still in sleep there, CLOCK_MONOTONIC does not
        return Clock(boot, lambda: time.clock_gettime(time.CLOCK_MONOTONIC))
    return Clock(boot, time.monotonic)


def _boot_id() -> str | None:
    try:
        if sys.platform == "darwin":
            return _darwin_boot_id()
        if sys.platform == "win32":
            return _windows_boot_id()
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip() or None
    except (OSError, ValueError, AttributeError):
        return None


def _darwin_boot_id() -> str | None:
    import ctypes

    text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, ctypes.c_size_t(0))
    return None if failed else text.value.decode("ascii") or None


def _windows_boot_id() -> str | None:
    import importlib

    winreg = importlib.import_module("winreg")
    key = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as handle:
        return f"windows-{winreg.QueryValueEx(handle, 'BootId')[0]}"


def base_of(db: sqlite3.Connection, clock: Clock) -> float | None:
    """What to add to `clock.ticks()` for the time of the file; None: the file has not met this boot yet."""
    row = db.execute("SELECT base FROM clock WHERE boot = ?", (clock.boot,)).fetchone()
    return None if row is None else row[0]


def meet(db: sqlite3.Connection, clock: Clock) -> float:
    """Carry the file's time on into this boot, in the caller's transaction, and give `base_of`."""
    base = base_of(db, clock)
    if base is not None:
        return base
    wall = clock.wall()
    last = db.execute("SELECT now, wall FROM clock ORDER BY now DESC LIMIT 1").fetchone()
    now = wall if last is None else max(last[0], last[0] + wall - last[1])
    base = now - clock.ticks()
    db.execute("INSERT INTO clock (boot, base, now, wall) VALUES (?, ?, ?, ?)", (clock.boot, base, now, wall))
    db.execute("UPDATE deliveries SET due = ? WHERE serial & 1", (now,))
    return base


def mark(db: sqlite3.Connection, clock: Clock, now: float) -> None:
    """Note where both clocks stand, for the boot to come."""
    db.execute("UPDATE clock SET now = ?, wall = ? WHERE boot = ?", (now, clock.wall(), clock.boot))
