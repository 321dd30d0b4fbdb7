"""The contract on Azure Service Bus: a real namespace, or the project's emulator."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.azure import ServiceBusRig


class TestServiceBus(ContractSuite):
    rig = ServiceBusRig()
