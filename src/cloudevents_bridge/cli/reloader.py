"""One process that is started again when its code changes, for development."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import TypeAlias

from cloudevents_bridge import clock
from cloudevents_bridge.cli.children import Child
from cloudevents_bridge.cli.link import STOP
from cloudevents_bridge.cli.shell import complain
from cloudevents_bridge.cli.supervisor import PATIENCE, Slot, Supervisor, how

EVERY = 0.5
"""Seconds between two looks at the files."""
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages"})

State: TypeAlias = dict[str, tuple[int, int]]


class Files:
    """The `.py` files under a directory. Hidden directories and virtual environments are left out."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._state = self._look()

    def changed(self) -> list[str]:
        """Those that were changed, added or removed since the last time, by their paths from the root."""
        before, self._state = self._state, self._look()
        differ = {path for path, _ in before.items() ^ self._state.items()}
        return sorted(os.path.relpath(path, self._root) for path in differ)

    def _look(self) -> State:
        return dict(_scan(str(self._root)))


def _scan(directory: str) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        entries = list(os.scandir(directory))
    except OSError:  # it went away, or is not ours to read
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in _LEFT_OUT:
                    yield from _scan(entry.path)
            elif entry.name.endswith(".py"):
                status = entry.stat()
                yield entry.path, (status.st_mtime_ns, status.st_size)
        except OSError:
            continue


class Reloader(Supervisor):
    """Starts its process again when a file changes. One that fails or dies is said, and waits for the next change.

    Args:
        start: starts the process.
        grace: seconds that handlers have to end.
        files: what is watched.
        note: says what happens, to people.
    """

    def __init__(self, start: Callable[[int], Child], grace: float, files: Files, note: Callable[[str], None]) -> None:
        super().__init__(start, 1, grace)
        self._files = files
        self._note = note
        self._look_at = 0.0
        self._kill_at = inf

    def _turn(self) -> bool:
        now = clock.now()
        [slot] = self._slots
        if now >= self._look_at and not self._stopping:
            self._look_at = now + EVERY
            if changed := self._files.changed():
                self._note(f"{', '.join(changed[:3])}{' …' if len(changed) > 3 else ''} changed: starting anew")
                self._restart(slot, now)
        if now >= self._kill_at and slot.child is not None:
            self._kill_at = inf
            self._note("the process does not end: it is killed")
            slot.child.kill()
        return super()._turn()

    def _due(self) -> float:
        return min(super()._due(), self._look_at, self._kill_at)

    def _restart(self, slot: Slot, now: float) -> None:
        if slot.child is None:
            slot.start_at = now
        elif not slot.child.told:
            slot.child.tell(STOP)
            self._kill_at = now + self._grace + PATIENCE

    def _ended(self, slot: Slot, child: Child, code: int, now: float) -> None:
        self._kill_at = inf
        farewell = child.farewell
        if child.told:
            slot.start_at = now
        elif farewell is not None and farewell.why == "idle":
            slot.done = True
        else:
            slot.start_at = inf
            if farewell is not None and farewell.error:
                complain(f"error: {farewell.error}", fg="red")
            else:
                complain(f"the process {how(code)}", fg="yellow")
            self._note("waiting for a change")

    def _again(self, slot: Slot, now: float, what: str) -> None:
        slot.start_at = inf
        complain(f"error: {what}", fg="red")
