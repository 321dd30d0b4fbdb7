"""The contract on Azure Event Grid: a namespace, real or our emulator; and custom topics, on our emulators."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.eventgrid import EventGridRig, EventGridTopicRig


class TestEventGrid(ContractSuite):
    rig = EventGridRig()


class TestEventGridTopic(ContractSuite):
    rig = EventGridTopicRig()
