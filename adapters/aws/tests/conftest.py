"""What the tests of this directory share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))

from fake_aws import ACCOUNT, REGION, Aws

from cloudevents_bridge import Broker, RetryPolicy, Topic, connect


@pytest.fixture
def aws() -> Aws:
    return Aws()


@pytest.fixture
def opened(aws: Aws) -> Iterator[Callable[..., Broker]]:
    """Connects to the account in memory."""
    with ExitStack() as stack:

        def open_one(*topics: Topic, scheme: str = "aws", **options: Any) -> Broker:
            url = f"{scheme}://{REGION}?account={ACCOUNT}"
            given = {"client": aws.client, "retry": RetryPolicy(attempts=1), **options}
            return stack.enter_context(connect(url, topics=topics, **given))

        yield open_one
        aws.over.set()
