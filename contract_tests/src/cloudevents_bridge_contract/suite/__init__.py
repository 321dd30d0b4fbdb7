"""The cases: a module or two per group, named `GROUP` or `GROUP_…`.

They speak the public API and the rig, never a broker's own words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from cloudevents_bridge_contract.bench import Bench, Running
from cloudevents_bridge_contract.rig import Rig
from cloudevents_bridge_contract.suite.consume import ConsumeCases
from cloudevents_bridge_contract.suite.envelope import EnvelopeCases
from cloudevents_bridge_contract.suite.life import LifeCases
from cloudevents_bridge_contract.suite.life_asyncio import AsyncioLifeCases
from cloudevents_bridge_contract.suite.life_worker import LifeWorkerCases
from cloudevents_bridge_contract.suite.order import OrderCases
from cloudevents_bridge_contract.suite.order_worker import OrderWorkerCases
from cloudevents_bridge_contract.suite.publish import PublishCases
from cloudevents_bridge_contract.suite.publish_trouble import PublishTroubleCases
from cloudevents_bridge_contract.suite.settle import SettleCases
from cloudevents_bridge_contract.suite.topology import TopologyCases
from cloudevents_bridge_contract.suite.traps import TrapCases
from cloudevents_bridge_contract.suite.traps_asyncio import AsyncioTrapCases
from cloudevents_bridge_contract.suite.traps_dead_letters import DeadLetterTrapCases
from cloudevents_bridge_contract.suite.traps_worker import WorkerTrapCases
from cloudevents_bridge_contract.suite.worker import WorkerCases
from cloudevents_bridge_contract.suite.worker_handlers import WorkerHandlerCases
from cloudevents_bridge_contract.suite.worker_load import WorkerLoadCases
from cloudevents_bridge_contract.suite.worker_processes import WorkerProcessCases
from cloudevents_bridge_contract.suite.worker_stop import WorkerStopCases
from cloudevents_bridge_contract.suite.worker_trouble import WorkerTroubleCases


class ContractSuite(
    PublishCases,
    PublishTroubleCases,
    EnvelopeCases,
    ConsumeCases,
    SettleCases,
    OrderCases,
    OrderWorkerCases,
    WorkerCases,
    WorkerHandlerCases,
    WorkerLoadCases,
    WorkerStopCases,
    WorkerProcessCases,
    WorkerTroubleCases,
    TopologyCases,
    LifeCases,
    AsyncioLifeCases,
    LifeWorkerCases,
    TrapCases,
    AsyncioTrapCases,
    DeadLetterTrapCases,
    WorkerTrapCases,
):
    """Every case, for one rig: `class TestNats(ContractSuite): rig = NatsRig()`."""

    rig: ClassVar[Rig]

    @pytest.fixture
    def bench(self, ceb_contract_running: Running, request: pytest.FixtureRequest) -> Iterator[Bench]:
        bench = Bench(ceb_contract_running)
        with bench:
            yield bench
        if bench.duplicates:
            request.node.user_properties.append(("duplicates", bench.duplicates))
