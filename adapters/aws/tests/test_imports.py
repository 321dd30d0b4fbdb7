"""boto3 is a quarter of a second: it is imported where the scheme is used, and when the first request is made."""

from __future__ import annotations

import subprocess
import sys

import pytest

_REPORT = "\nimport sys; print(sorted({name.partition('.')[0] for name in sys.modules} & {'boto3', 'botocore'}))"
_IN_USE = """
import cloudevents_bridge as ceb
with ceb.connect("memory://", topics=[ceb.Topic("orders", subscriptions=["billing"])], create_missing=True) as broker:
    broker.publish("orders", ceb.CloudEvent(type="t", source="/s"))
"""


def _imported(program: str) -> str:
    command = [sys.executable, "-c", program + _REPORT]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize(
    "program",
    [
        "import cloudevents_bridge",
        "import cloudevents_bridge_aws",
        "import cloudevents_bridge as ceb; ceb.connect('memory://').close()",
        _IN_USE,
        "import cloudevents_bridge as ceb; ceb.connect('aws://eu-west-1').close()",
    ],
    ids=["the library", "the adapter", "another scheme", "another scheme in use", "nothing asked of it"],
)
def test_it_is_not_imported(program: str) -> None:
    assert _imported(program) == "[]"


def test_it_is_imported_for_the_first_request() -> None:
    program = "import cloudevents_bridge as ceb; broker = ceb.connect('aws://eu-west-1'); broker.native.session"
    assert _imported(program) == "['boto3', 'botocore']"
