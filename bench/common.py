"""What the measurements share: events of a known size, a place on a real disk, and a table."""

from __future__ import annotations

import gc
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudevents_bridge import CloudEvent

SIZE = 300
"""Bytes of one event in the JSON format."""


def make_event(number: int, size: int = SIZE) -> CloudEvent:
    """An event that is `size` bytes long as JSON."""
    fields: dict[str, Any] = {
        "type": "com.example.order.created",
        "source": "/bench",
        "id": f"{number:012}",
        "time": None,
    }
    bare = CloudEvent(**fields, data={"note": ""})
    return CloudEvent(**fields, data={"note": "x" * (size - len(bare.to_json()))})


def make_events(count: int, first: int = 0, size: int = SIZE) -> list[CloudEvent]:
    """That many events of `size` bytes with different ids."""
    pattern = make_event(0, size)
    return [pattern.replace(id=f"{number:012}") for number in range(first, first + count)]


@contextmanager
def workdir() -> Iterator[Path]:
    """A directory on the disk of the working directory: a temporary one is often in memory and flatters the rest."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as name:
        yield Path(name)


@contextmanager
def one_processor() -> Iterator[None]:
    """This thread, and those that it starts, on one processor, where the system can do that. Threads that take turns at
    one interpreter cost then what they compute, and not what it costs to wake another processor: in a virtual machine
    that may be a tenth of a millisecond each time.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine() -> str:
    """What the figures were taken on."""
    return (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


def cpu_cost(count: int, work: Callable[[], object]) -> float:
    """Microseconds of this process's CPU for each of `count` events."""
    gc.collect()
    began = time.process_time()
    work()
    return (time.process_time() - began) / count * 1e6


def beside(group: Sequence[str], costs: dict[str, list[float]]) -> str:
    """The CPU of several ways, and how the first of them stands to each other one."""
    middle = {name: median(costs[name]) for name in group}
    ours, *others = group
    ratios = [f"{ours} takes {middle[ours] / middle[other]:.2f} x of {other}" for other in others]
    rows = [(name, f"{cost:.1f} µs") for name, cost in middle.items()]
    return "\n".join([table(("", "CPU per event"), rows), *ratios, ""])


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def rate(value: float) -> str:
    """Events per second, for people."""
    return f"{value:,.0f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is also readable as it stands; all columns but the first and the last are figures."""
    cells = [list(headings), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    last = len(headings) - 1

    def line(row: Sequence[str]) -> str:
        return (
            "| "
            + " | ".join(
                cell.ljust(width) if column in (0, last) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            + " |"
        )

    rule = (
        "|"
        + "|".join(
            "-" * (width + 2) if column in (0, last) else "-" * (width + 1) + ":" for column, width in enumerate(widths)
        )
        + "|"
    )
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])
