"""Drivers, and workers, that are broken on purpose. Each names the case that must catch it: this is how the suite is
tested.

`faulty://loses-one-in-fifty?over=memory://x` is such a broker; `ceb contract` on it shows what a failure looks like.
"""

from __future__ import annotations

from cloudevents_bridge_contract.broken import deciding, places, receiving, sending, settling, working
from cloudevents_bridge_contract.broken.base import Broken
from cloudevents_bridge_contract.broken.shell import BrokenShell
from cloudevents_bridge_contract.faulty import register

__all__ = ["BROKEN", "SHELLS", "Broken", "BrokenShell"]


def _hyphenated(kind: type) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__).strip("-")


BROKEN: dict[str, type[Broken]] = {
    _hyphenated(kind): kind
    for room in (sending, receiving, settling, places)
    for kind in vars(room).values()
    if isinstance(kind, type) and issubclass(kind, Broken) and hasattr(kind, "caught_by")
}
"""The name in URLs to the driver."""

SHELLS: dict[str, type[BrokenShell]] = {
    _hyphenated(kind): kind
    for room in (deciding, working)
    for kind in vars(room).values()
    if isinstance(kind, type) and issubclass(kind, BrokenShell) and hasattr(kind, "caught_by")
}
"""The name to a part of the portable layer that is wrong."""

for _name, _kind in BROKEN.items():
    register(_name, _kind)
