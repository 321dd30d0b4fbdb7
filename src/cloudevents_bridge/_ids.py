"""Ids for events that were given none."""

from __future__ import annotations

import os
from struct import Struct

# Ids are drawn sixty-four at a time: uuid4 costs more than all the rest of an event. A fork must not repeat them.
_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)
_groups = Struct("8s4sx3sx3s12s").iter_unpack


def new_id() -> str:
    """A random UUID, version 4."""
    try:
        return _ids.pop()
    except IndexError:
        drawn = [(b"%s-%s-4%s-8%s-%s" % groups).decode() for groups in _groups(os.urandom(1024).hex().encode())]
        _ids.extend(drawn[1:])
        return drawn[0]
