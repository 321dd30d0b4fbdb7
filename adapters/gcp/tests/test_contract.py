"""The contract on Google Cloud Pub/Sub: a real project, or Google's emulator."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.gcp import GcpRig


class TestGcp(ContractSuite):
    rig = GcpRig()
