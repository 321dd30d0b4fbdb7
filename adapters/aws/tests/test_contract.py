"""The contract on AWS's emulators: this adapter's rows of the matrix."""

from __future__ import annotations

from cloudevents_bridge_contract import ContractSuite, aws


class TestLocalstack(ContractSuite):
    rig = aws.localstack()


class TestLocalstackFifo(ContractSuite):
    rig = aws.localstack_fifo()


class TestMinistack(ContractSuite):
    rig = aws.ministack()


class TestMinistackFifo(ContractSuite):
    rig = aws.ministack_fifo()
