"""The contract on a SQLite file, in one process."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite
from cloudevents_bridge_contract.rigs import SqliteRig


class TestSqlite(ContractSuite):
    rig = SqliteRig()
