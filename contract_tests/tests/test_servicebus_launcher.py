"""How the Service Bus emulator is found and started, and what is said where it cannot be."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from cloudevents_bridge_contract.emulators.servicebus import launcher


def test_without_proton_it_is_missing_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = r"python-qpid-proton.*pip install 'cloudevents-bridge-contract"
    with pytest.raises(launcher.Missing, match=words), launcher.started():
        pass


def test_the_module_can_be_run() -> None:
    pytest.importorskip("proton", reason="not run (python-qpid-proton is not installed)")
    command = [sys.executable, "-m", "cloudevents_bridge_contract.emulators.servicebus", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--admin-port" in told
    assert "--key NAME=SECRET" in told
