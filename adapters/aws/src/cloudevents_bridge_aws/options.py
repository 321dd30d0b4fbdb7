"""The URL and the options, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

from cloudevents_bridge.driver import Url
from cloudevents_bridge.errors import ConfigurationError

QUERY = frozenset({"account", "endpoint", "mode"})
OPTIONS = frozenset(
    {
        "account",
        "client",
        "endpoint",
        "max_pool_connections",
        "mode",
        "poll",
        "queue_bytes",
        "session",
        "tags",
        "topic_bytes",
    }
)
SNS_BYTES = 262_144
"""Bytes of one publish to a topic, its messages with their attributes, at most."""
SQS_BYTES = 1_048_576
"""Bytes of one send to a queue, at most. Services that have not followed SQS's change of 2025 take 262,144."""
POLL = 20
"""Seconds that one receive waits, at most: SQS's own limit."""
_POOL = 400  # receives of 100 busy subscribers: a pool opens only what is used at once, and throws away what is beyond
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
_ACCOUNT = re.compile(r"\d{12}")
_PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov", "us-iso": "aws-iso", "us-isob": "aws-iso-b"}
_SUFFIXES = {"aws-cn": "amazonaws.com.cn", "aws-iso": "c2s.ic.gov", "aws-iso-b": "sc2s.sgov.gov"}


class Options(NamedTuple):
    """What a connection goes by.

    Attributes:
        fan_out: topics are SNS topics; else a topic is a queue, with itself as its one subscription.
        account: the 12 digits; None: asked once of STS.
        endpoint: of an emulator or a private endpoint; None: AWS's own.
        session: a `boto3.Session`; None: boto3's own chain of credentials.
        client: (service, region, config) -> client, instead of the session's.
        topic_bytes, queue_bytes: of one request with its messages, at most.
        poll: seconds that one receive waits, at most.
        pool: connections that one client keeps, at most.
        tags: of what the topology creates.
    """

    url: str
    region: str
    fan_out: bool
    account: str | None
    endpoint: str | None
    mode: Literal["structured", "binary"]
    session: Any
    client: Any
    topic_bytes: int
    queue_bytes: int
    poll: int
    pool: int
    tags: Mapping[str, str]

    @property
    def partition(self) -> str:
        return partition(self.region)


def partition(region: str) -> str:
    """The partition of a region, as ARNs name it."""
    area = region.rsplit("-", 2)[0]
    return _PARTITIONS.get(area, "aws")


def suffix(region: str) -> str:
    """The domain of the services of a region."""
    return _SUFFIXES.get(partition(region), "amazonaws.com")


def read(url: Url, options: Mapping[str, Any], *, fan_out: bool) -> Options:
    """Raises:
    ConfigurationError: if the URL or an option is wrong.
    """
    given = {**url.query, **options}
    mode = given.get("mode", "structured")
    if mode not in ("structured", "binary"):
        raise ConfigurationError(f"mode is {mode!r}: it must be structured (the default) or binary")
    client = options.get("client")
    if client is not None and not callable(client):
        raise ConfigurationError(
            f"client is {client!r}: give a function of service, region and botocore Config that returns a client"
        )
    return Options(
        url=url.text,
        region=_region(url),
        fan_out=fan_out,
        account=_account(given.get("account")),
        endpoint=_endpoint(given.get("endpoint")),
        mode=cast("Literal['structured', 'binary']", mode),
        session=options.get("session"),
        client=client,
        topic_bytes=_number("topic_bytes", options.get("topic_bytes", SNS_BYTES), 1024, SQS_BYTES),
        queue_bytes=_number("queue_bytes", options.get("queue_bytes", SQS_BYTES), 1024, SQS_BYTES),
        poll=_number("poll", options.get("poll", POLL), 1, POLL),
        pool=_number("max_pool_connections", options.get("max_pool_connections", _POOL), 1, 10_000),
        tags=_tags(options.get("tags", {})),
    )


def _region(url: Url) -> str:
    if not url.authority or url.path not in ("", "/") or not _REGION.fullmatch(url.authority):
        raise ConfigurationError(
            f"{url.text} names no region: write {url.scheme}://eu-west-1, or {url.scheme}://eu-west-1?account=ACCOUNT"
        )
    return url.authority


def _account(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
        raise ConfigurationError(f"account is {value!r}: it must be the 12 digits of an AWS account, as text")
    return value


def _endpoint(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^/?#@]+/?", value):
        raise ConfigurationError(f"endpoint is {value!r}: write http://HOST:PORT or https://HOST")
    return value.rstrip("/")


def _number(name: str, value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ConfigurationError(f"{name} is {value!r}: it must be a whole number from {least:,} to {most:,}")
    return value


def _tags(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ConfigurationError(f"tags is {value!r}: it must be a mapping of strings to strings")
    return dict(value)
