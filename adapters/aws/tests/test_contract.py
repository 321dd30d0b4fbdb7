"""The contract on AWS's emulators: this adapter's rows of the matrix.

LocalStack has every case, standard and FIFO. MiniStack has the groups whose answers depend on the emulator; those that
try the library's own threads and processes once more, which take minutes, with CEB_CONTRACT_ALL=1.
"""

from __future__ import annotations

import os

import pytest

from cloudevents_bridge_contract import ContractSuite, NotRun, aws

EVERYTHING = bool(os.environ.get("CEB_CONTRACT_ALL"))
OF_THE_BROKER = ("publish", "envelope", "consume", "settle", "order", "order_worker", "topology")


class TestLocalstack(ContractSuite):
    rig = aws.localstack()


class TestLocalstackFifo(ContractSuite):
    rig = aws.localstack_fifo()


class Chosen(ContractSuite):
    """The cases of some groups."""

    @pytest.fixture(autouse=True)
    def chosen(self, request: pytest.FixtureRequest) -> None:
        group = request.function.__module__.rpartition(".")[2]
        if not EVERYTHING and group not in OF_THE_BROKER:
            raise NotRun("LocalStack's column has it; here with CEB_CONTRACT_ALL=1")


class TestMinistack(Chosen):
    rig = aws.ministack()


class TestMinistackFifo(Chosen):
    rig = aws.ministack_fifo()
