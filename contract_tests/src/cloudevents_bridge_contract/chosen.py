"""The rigs that `ceb contract` chose. A module of its own: the cases are to be imported by pytest, not before it."""

from __future__ import annotations

from cloudevents_bridge_contract.rig import Rig

RIGS: list[Rig] = []
