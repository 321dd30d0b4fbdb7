"""How a case ends when it neither passes nor fails."""

from __future__ import annotations

from typing import Any

import pytest

_Skipped: Any = pytest.skip.Exception


class Unsupported(_Skipped):  # type: ignore[misc]
    """The broker does not declare the capability, and refused it as it must; the message says which."""


class NotRun(_Skipped):  # type: ignore[misc]
    """The case proved nothing here; the message says why. It is never shown as passed."""
