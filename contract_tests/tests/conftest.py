"""The matrix of this project's own run is written beside the build, unless the command line says where."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--contract-report") and not hasattr(config, "workerinput"):
        build = config.rootpath / "build" / "contract"
        config.option.contract_report = [f"json={build / 'matrix.json'}", f"md={build / 'matrix.md'}"]
