"""Which lease is to be extended when, which is lost, and which held retry is due. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any, NamedTuple

from msgspec import Struct


def margin(lease: float) -> float:
    """Seconds before its end from which a lease counts as lost, for what a request takes on its way."""
    return min(1.0, 0.05 * lease)


class Held(Struct, eq=False):
    """One delivery whose lease is kept.

    Attributes:
        ends: when the lease ends, on the shell's clock.
        lease: seconds of the last grant; the lease is extended when half of them are left.
        until: when it shall be given back; None: kept until it is dropped.
        last: the lease is not extended beyond this.
        again: no extension is tried before this, because the last one failed.
    """

    item: Any
    ends: float
    lease: float
    until: float | None = None
    last: float = inf
    again: float = 0.0

    @property
    def due(self) -> float:
        """When something is to be done for it."""
        lost = self.ends - margin(self.lease)
        extend = lost if self.ends >= self.last else min(max(self.ends - self.lease / 2, self.again), lost)
        return extend if self.until is None else min(extend, self.until)


class Due(NamedTuple):
    """What to do now."""

    extend: list[Held]
    give_back: list[Held]
    lost: list[Held]


class Leases:
    """The leases that are kept. Not thread-safe: the shell holds its lock."""

    def __init__(self) -> None:
        self._held: dict[int, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def keep(self, item: Any, ends: float, lease: float, until: float | None = None) -> None:
        """Keep the lease of an item, until `drop`, or until the time given."""
        self.add(Held(item, ends, lease, until))

    def add(self, held: Held) -> None:
        """Keep a lease."""
        self._held[id(held.item)] = held

    def drop(self, item: Any) -> None:
        """Stop keeping it; silent if it is not kept, and if it is kept until a time of its own."""
        held = self._held.get(id(item))
        if held is not None and held.until is None:
            del self._held[id(item)]

    def extended(self, held: Held, ends: float, lease: float) -> None:
        """The broker granted `lease` seconds more."""
        held.ends, held.lease, held.again = ends, lease, 0.0

    def due(self, now: float) -> Due:
        """What to do now. What is to be given back or is lost is no longer kept."""
        found = Due([], [], [])
        for held in list(self._held.values()):
            if now >= held.ends - margin(held.lease):
                found.lost.append(held)
            elif held.until is not None and now >= held.until:
                found.give_back.append(held)
            elif held.ends < held.last and now >= held.due:
                found.extend.append(held)
                continue
            else:
                continue
            del self._held[id(held.item)]
        return found

    def wake_at(self) -> float | None:
        """When `due` is to be asked next; None: nothing is kept."""
        return min((held.due for held in self._held.values()), default=None)

    def lose(self, held: Held) -> None:
        """The broker did not extend it: it is no longer kept."""
        self._held.pop(id(held.item), None)

    def to_give_back(self) -> list[Any]:
        """What is kept until a time of its own."""
        return [held.item for held in self._held.values() if held.until is not None]
