"""How a webhook proves that it wants events, before it gets any."""

from __future__ import annotations

import http.client
import json
import uuid
from datetime import UTC, datetime
from typing import Any

from cloudevents_bridge_contract.emulators.eventgrid.dead_letters import stamp
from cloudevents_bridge_contract.emulators.eventgrid.problems import Problem
from cloudevents_bridge_contract.emulators.eventgrid.targets import Answer, request

ORIGIN = "eventgrid.azure.net"
RATE = "120"


def by_options(url: str, callback: str) -> bool:
    """The handshake of CloudEvents: an OPTIONS request, whose answer allows our origin.

    Args:
        callback: the URL that allows it later, by a GET.

    Returns:
        Whether it was allowed now; else the callback is awaited.

    Raises:
        Problem: 400 where the endpoint is not reached or allows another origin only.
    """
    headers = {"WebHook-Request-Origin": ORIGIN, "WebHook-Request-Callback": callback, "WebHook-Request-Rate": RATE}
    answer = _answer("OPTIONS", url, headers)
    allowed = answer.headers.get("webhook-allowed-origin")
    if answer.status == 200 and allowed is None:
        return False
    if answer.status != 200 or allowed not in ("*", ORIGIN):
        raise refused(url, f"the answer to OPTIONS was {answer.status} and allows the origin {allowed}")
    return True


def by_code(topic: str, subscription: str, url: str, callback: str, code: str) -> bool:
    """The handshake of Event Grid's schema: an event with a code, which the answer repeats. As `by_options`."""
    event: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "topic": topic,
        "subject": "",
        "data": {"validationCode": code, "validationUrl": callback},
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": stamp(datetime.now(UTC)),
        "metadataVersion": "1",
        "dataVersion": "2",
    }
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "aeg-event-type": "SubscriptionValidation",
        "aeg-subscription-name": subscription.upper(),
        "aeg-delivery-count": "0",
        "aeg-metadata-version": "1",
        "aeg-data-version": "2",
    }
    answer = _answer("POST", url, headers, json.dumps([event]).encode())
    if not 200 <= answer.status <= 202:
        raise refused(url, f"the answer to the validation event was {answer.status}")
    try:
        said = json.loads(answer.body or b"{}")
    except ValueError:
        said = None
    response = said.get("validationResponse") if isinstance(said, dict) else None
    if response is None:
        return False
    if response != code:
        raise refused(url, "the validationResponse is not the code that was sent")
    return True


def refused(url: str, why: str) -> Problem:
    return Problem(400, "Url validation", f"The attempt to validate the provided endpoint {url} failed: {why}.")


def _answer(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    try:
        return request(method, url, headers, body)
    except (OSError, http.client.HTTPException) as error:
        raise refused(url, f"{type(error).__name__}: {error}") from error
