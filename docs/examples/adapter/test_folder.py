"""The contract, for folders."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cloudevents_bridge_contract import ContractSuite, Rig


class FolderRig(Rig):
    name = "folder"
    kind = "embedded"
    lease = 1.0
    patience = 30.0
    quirks: Mapping[str, str] = {
        "traps.moved_clock_loses_no_lease": "leases end by the wall clock",
        "traps.largest_event_with_a_long_reason[native]": "dead letters are copies, and a full one has no room",
    }

    @contextmanager
    def start(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield f"folder:///{folder}"


class TestFolder(ContractSuite):
    rig = FolderRig()
