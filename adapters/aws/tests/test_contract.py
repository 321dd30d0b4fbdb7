"""The contract on AWS's emulators: this adapter's rows of the matrix.

MiniStack has every case, standard and FIFO: it is the quicker one, and exact about leases. LocalStack, which others
wrote, has the groups whose answers depend on the emulator, with fewer events, and of FIFO those that FIFO is about. The
library's own threads, workers and processes, which take minutes, are tried there once more with CEB_CONTRACT_ALL=1.
"""

from __future__ import annotations

import os

import pytest

from cloudevents_bridge_contract import ContractSuite, NotRun, aws

EVERYTHING = bool(os.environ.get("CEB_CONTRACT_ALL"))
OF_FIFO = ("publish", "order", "topology")
OF_THE_BROKER = (*OF_FIFO, "envelope", "consume", "settle")
FEWER = None if EVERYTHING else 200


class TestMinistack(ContractSuite):
    rig = aws.ministack()


class TestMinistackFifo(ContractSuite):
    rig = aws.ministack_fifo()


class Chosen(ContractSuite):
    """The cases of some groups."""

    groups: tuple[str, ...] = OF_THE_BROKER

    @pytest.fixture(autouse=True)
    def chosen(self, request: pytest.FixtureRequest) -> None:
        group = request.function.__module__.rpartition(".")[2]
        if not EVERYTHING and group not in self.groups:
            raise NotRun("MiniStack's column has it; here with CEB_CONTRACT_ALL=1")


class TestLocalstack(Chosen):
    rig = aws.localstack(max_events=FEWER)


class TestLocalstackFifo(Chosen):
    rig = aws.localstack_fifo(max_events=FEWER)
    groups = OF_FIFO
