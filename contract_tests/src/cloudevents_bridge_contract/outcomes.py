"""How a case ends when it neither passes nor fails."""

from __future__ import annotations

import pytest


class Unsupported(pytest.skip.Exception):
    """The broker does not declare the capability, and refused it as it must; the message says which."""


class NotRun(pytest.skip.Exception):
    """The case proved nothing here; the message says why. It is never shown as passed."""
