"""The contract on Azure Event Grid: a real namespace, or our emulator."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.eventgrid import EventGridRig


class TestEventGrid(ContractSuite):
    rig = EventGridRig()
