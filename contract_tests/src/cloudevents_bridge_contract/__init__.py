"""The contract of cloudevents-bridge: one suite, many brokers.

Write a `Rig` for a broker and `class TestIt(ContractSuite): rig = ItsRig()`; pytest does the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudevents_bridge_contract.rig import NotRun, Rig, Unsupported
    from cloudevents_bridge_contract.suite import ContractSuite

__all__ = ["ContractSuite", "Rig", "NotRun", "Unsupported"]


def __getattr__(name: str) -> Any:
    """Load on first use: the pytest plugin of this distribution is imported by every pytest run."""
    if name == "ContractSuite":
        from cloudevents_bridge_contract.suite import ContractSuite

        return ContractSuite
    if name in __all__:
        from cloudevents_bridge_contract import rig

        return getattr(rig, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
