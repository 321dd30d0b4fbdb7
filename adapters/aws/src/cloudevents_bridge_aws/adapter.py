"""From a URL to a connection. boto3 is imported when the first request is made, and not before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloudevents_bridge.driver import Url
from cloudevents_bridge_aws import options as options_

if TYPE_CHECKING:
    from cloudevents_bridge_aws.connection import Connection


class Adapter:
    """What the entry points of the schemes `aws` and `aws-sqs` name. `system`: as telemetry names it."""

    query = options_.QUERY
    options = options_.OPTIONS

    def __init__(self, system: str, *, fan_out: bool) -> None:
        self.system = system
        self._fan_out = fan_out

    def __call__(self, url: Url, options: Mapping[str, Any]) -> Connection:
        """Raises:
        ConfigurationError: if the URL or an option is wrong.
        """
        read = options_.read(url, options, fan_out=self._fan_out)

        from cloudevents_bridge_aws.connection import Connection

        return Connection(read)


adapter = Adapter("aws.sns", fan_out=True)
sqs_adapter = Adapter("aws_sqs", fan_out=False)
