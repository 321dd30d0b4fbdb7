"""The contract on every embedded broker: this project's own rows of the matrix."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.rigs import (
    AwkwardInTasksRig,
    AwkwardRig,
    BareRig,
    MemoryInTasksRig,
    MemoryRig,
    SqliteInTasksRig,
    SqliteProcessesRig,
    SqliteRig,
)


def test_no_case_hides_another() -> None:
    names = [name for part in ContractSuite.__bases__ for name in vars(part) if name.startswith("test_")]
    assert sorted(set(names)) == sorted(names), "two groups have a case of the same name: one of them is never run"


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


class TestMemoryInTasks(ContractSuite):
    rig = MemoryInTasksRig()


class TestSqliteInTasks(ContractSuite):
    rig = SqliteInTasksRig()


class TestAwkwardInTasks(ContractSuite):
    rig = AwkwardInTasksRig()
