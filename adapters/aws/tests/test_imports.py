"""The SDK is more than a tenth of a second: it is imported where the scheme is used, when the first request is made.
boto3, which brings S3's transfers along, is imported only when somebody asks for its session.
"""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(("asked", "found"), [("sqs", "['botocore']"), ("session", "['boto3', 'botocore']")])
def test_it_is_imported_for_the_first_request(asked: str, found: str) -> None:
    program = f"import cloudevents_bridge as ceb; broker = ceb.connect('aws://eu-west-1'); broker.native.{asked}"
    assert _imported(program) == found


def test_the_session_has_the_credentials_that_are_in_use() -> None:
    program = """
import cloudevents_bridge as ceb
native = ceb.connect("aws://eu-west-1").native
assert native.sqs.meta.region_name == "eu-west-1"
assert native.session is native.session
mine = native.session.get_credentials()
assert mine.access_key == "somebody" and mine is native.sqs._request_signer._credentials
"""
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret"}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=environment)
