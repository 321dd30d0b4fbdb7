"""LocalStack without Docker: SNS, SQS, KMS, IAM and STS of one account.

Its community edition is archived; 4.14.0 is the last version that needs no account.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping

from cloudevents_bridge_contract.emulators.process import HOST, Server
from cloudevents_bridge_contract.emulators.venvs import LOCALSTACK

KIND = f"emulator localstack {LOCALSTACK.version}"
_SERVICES = "sns,sqs,sts,iam,kms"


def localstack() -> Server:
    """LocalStack, not started yet.

    Raises:
        NotInstalledError: if it is not on this machine; the message says how to get it.
    """
    python = LOCALSTACK.python()
    return Server("localstack", lambda server: [str(python), "-m", "localstack.runtime.main"], _ready, environment=_of)


def _of(server: Server) -> Mapping[str, str]:
    return {
        "GATEWAY_LISTEN": f"[::ffff:{HOST}]:{server.port}",  # {HOST}:PORT would bind every interface
        "LOCALSTACK_HOST": server.address,
        "SQS_ENDPOINT_STRATEGY": "path",
        "OVERRIDE_IN_DOCKER": "0",
        "FILESYSTEM_ROOT": str(server.folder / "files"),
        "DNS_ADDRESS": "0",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
        "SQS_DISABLE_CLOUDWATCH_METRICS": "1",
        "SERVICES": _SERVICES,
        "STRICT_SERVICE_LOADING": "1",
        "EAGER_SERVICE_LOADING": "1",
        "LS_LOG": "error",
    }


def _ready(server: Server) -> bool:
    """Its own health page is green even when every call fails: only a call that works will do."""
    return answers(server, "/", {"X-Amz-Target": "AmazonSQS.CreateQueue"}, b'{"QueueName": "is-it-ready"}')


def answers(server: Server, path: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a request of AWS's JSON protocol, or a plain one, is answered with 200."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    scope = "Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=none"
    given = {"Content-Type": "application/x-amz-json-1.0", "Authorization": f"AWS4-HMAC-SHA256 {scope}", **headers}
    try:
        connection.request("POST" if body else "GET", path, body or None, given)
        return connection.getresponse().status == 200
    except http.client.HTTPException:
        return False
    finally:
        connection.close()
