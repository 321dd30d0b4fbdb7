"""The contract on the broker in memory."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.rigs import MemoryRig


class TestMemory(ContractSuite):
    rig = MemoryRig()
