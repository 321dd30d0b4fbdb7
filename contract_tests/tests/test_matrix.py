"""The contract on every embedded broker: this project's own rows of the matrix."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.rigs import AwkwardRig, BareRig, MemoryRig, SqliteProcessesRig, SqliteRig


class TestMemory(ContractSuite):
    rig = MemoryRig()


class TestBare(ContractSuite):
    rig = BareRig()


class TestSqlite(ContractSuite):
    rig = SqliteRig()


class TestSqliteProcesses(ContractSuite):
    rig = SqliteProcessesRig()


class TestAwkward(ContractSuite):
    rig = AwkwardRig()
