"""What `ceb contract` has pytest collect: one class of cases per rig that was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloudevents_bridge_contract.rig import Rig
from cloudevents_bridge_contract.suite import ContractSuite


def choose(rigs: Iterable[Rig]) -> None:
    """Make a class of cases for each of these rigs, and for no other."""
    for name in [each for each in globals() if each.startswith("Test")]:
        del globals()[name]
    for number, rig in enumerate(rigs):
        name = f"Test{number}" + "".join(word.capitalize() for word in rig.name.split("-"))
        globals()[name] = type(name, (ContractSuite,), {"rig": rig, "__module__": __name__})


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
