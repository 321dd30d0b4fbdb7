"""The contract on the broker with every bad manner that the seam allows."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.rigs import AwkwardRig


class TestAwkward(ContractSuite):
    rig = AwkwardRig()
