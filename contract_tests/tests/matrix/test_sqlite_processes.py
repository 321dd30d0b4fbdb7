"""The contract on a SQLite file that one process publishes to and another consumes from."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.rigs import SqliteProcessesRig


class TestSqliteProcesses(ContractSuite):
    rig = SqliteProcessesRig()
