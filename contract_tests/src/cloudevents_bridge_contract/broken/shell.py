"""What every broken shell is: a part of the portable layer with one fault, in place of the right one for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import ClassVar

import pytest

from cloudevents_bridge import consumer, router, worker
from cloudevents_bridge.consumer import Consumer
from cloudevents_bridge.core import inbox
from cloudevents_bridge.core.contact import Contact
from cloudevents_bridge.core.inbox import Inbox
from cloudevents_bridge.core.lanes import Lanes
from cloudevents_bridge.core.leases import Leases
from cloudevents_bridge.core.prefetch import Prefetch
from cloudevents_bridge.inlet import Inlet
from cloudevents_bridge.outcomes import Outcomes
from cloudevents_bridge.runs import Caller, Run

PLACES: dict[type, ModuleType] = {
    Lanes: inbox,
    Leases: inbox,
    Prefetch: inbox,
    Inbox: consumer,
    Outcomes: consumer,
    Contact: consumer,
    Run: consumer,
    Caller: worker,
    Consumer: worker,
    Inlet: worker,
    router._Table: router,
}
"""Each part to the module that makes it."""

AWKWARD = "awkward://{name}?poll=0.1&groups=1"


class BrokenShell:
    """Derive from this and from the part that is broken.

    Attributes:
        caught_by: the case that must fail with it, with its parameters.
        over: the broker under it: the one in memory gives back what is forgotten, and keeps keys in order by itself.
    """

    caught_by: ClassVar[str]
    over: ClassVar[str] = "memory://{name}"

    @classmethod
    @contextmanager
    def at_work(cls) -> Iterator[None]:
        """While it is open, the portable layer is made with this part."""
        part = next(kind for kind in cls.__mro__ if kind in PLACES)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PLACES[part], part.__name__, cls)
            yield
