"""What `ceb contract` has pytest collect: one class of cases per rig that was chosen."""

from __future__ import annotations

from collections.abc import Sequence

from cloudevents_bridge_contract.chosen import RIGS
from cloudevents_bridge_contract.suite import ContractSuite

for _number, _rig in enumerate(RIGS):
    _name = f"Test{_number}" + "".join(_word.capitalize() for _word in _rig.name.split("-"))
    globals()[_name] = type(_name, (ContractSuite,), {"rig": _rig, "__module__": __name__})


def count(groups: Sequence[str]) -> dict[str, int]:
    """How many cases each group has, parameters counted."""
    found = dict.fromkeys(groups, 0)
    for name in dir(ContractSuite):
        function = getattr(ContractSuite, name)
        group = (getattr(function, "__module__", None) or "").rpartition(".")[2].partition("_")[0]
        if name.startswith("test_") and group in found:
            parameters = 1
            for mark in getattr(function, "pytestmark", ()):
                if mark.name == "parametrize":
                    parameters *= len(list(mark.args[1]))
            found[group] += parameters
    return found
