"""boto3's clients: made on first use, shared between threads, and without retries of their own."""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import Any

from cloudevents_bridge_aws import answers, form
from cloudevents_bridge_aws.options import Options

_LIMITS = (0.5, 1.5, 4.0, 10.0)
"""Seconds that a client waits for an answer. A client has one such limit for all it does, so there is one for each."""
PATIENCE = 10.0
"""Seconds that a receive takes beyond its wait, at most, before its connection counts as dead."""


class Clients:
    """The clients of one connection. Making one may read files and ask for credentials: none is made before its use."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._session = options.session
        self._own: Any = None
        self._clients: dict[tuple[str, str, float], Any] = {}
        self._account = options.account
        self._lock = threading.Lock()

    def get(self, service: str, region: str, timeout: float) -> Any:
        """A client whose requests end within about `timeout` seconds."""
        limit = _LIMITS[max(bisect_right(_LIMITS, timeout * 1.01) - 1, 0)]
        return self._get(service, region, limit)

    def receiving(self, region: str) -> Any:
        """A client of SQS for long polls."""
        return self._get("sqs", region, self._options.poll + PATIENCE)

    def account(self) -> str:
        """The account of the credentials in use: from the URL, else asked once."""
        if self._account is None:
            identity = self.get("sts", self._options.region, _LIMITS[-1]).get_caller_identity()
            self._account = str(identity["Account"])
        return self._account

    def session(self) -> Any:
        """The `boto3.Session`."""
        with self._lock:
            if self._session is None:
                import boto3

                self._session = boto3.Session(botocore_session=self._own_session())
            return self._session

    def close(self) -> None:
        """Close the connections that are not in use. Idempotent."""
        with self._lock:
            clients, self._clients = self._clients, {}
        if self._options.client is None:
            for client in clients.values():
                client.close()

    def _get(self, service: str, region: str, limit: float) -> Any:
        client = self._clients.get((service, region, limit))
        if client is None:
            with self._lock:  # a session makes one client at a time
                client = self._clients.get((service, region, limit))
                if client is None:
                    client = self._clients[service, region, limit] = self._make(service, region, limit)
        return client

    def _make(self, service: str, region: str, limit: float) -> Any:
        from botocore.config import Config

        config = Config(
            connect_timeout=min(limit, PATIENCE),
            read_timeout=limit,
            max_pool_connections=self._options.pool,
            parameter_validation=False,  # of what is made here; it costs as much as the signature
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
            user_agent_extra="cloudevents-bridge",
        )
        endpoint = self._options.endpoint
        if self._options.client is not None:
            made = self._options.client(service, region, config)
        elif self._options.session is not None:
            made = self._options.session.client(service, region_name=region, endpoint_url=endpoint, config=config)
        else:
            made = self._own_session().create_client(service, region_name=region, endpoint_url=endpoint, config=config)
        if service == "sns":
            form.install(made)
        answers.install(made, service)
        return made

    def _own_session(self) -> Any:
        """What a `boto3.Session` is made on. boto3 itself brings along how files go to S3, which takes longer."""
        if self._own is None:
            import botocore.session  # more than a tenth of a second

            self._own = botocore.session.Session()
        return self._own
