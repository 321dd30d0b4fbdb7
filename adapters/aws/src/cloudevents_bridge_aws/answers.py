"""The answers of SQS, which are JSON: boto3 walks through them value by value in Python, and that would be a seventh of
what an event costs. Here they are decoded at once, to what boto3 makes of them.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def install(client: Any) -> None:
    """Have a client of boto3 read them this way. Harmless when done again, and for what is no client of boto3."""
    meta = getattr(client, "meta", None)
    if meta is not None:  # last of all: whatever others registered sees the body
        meta.events.register_last("before-parse", _read, unique_id="cloudevents-bridge-answers")


def _read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] >= 300:
        return  # an error is boto3's to read
    try:
        answer = _decode(response_dict["body"])
    except msgspec.DecodeError:
        return  # no JSON: boto3 says so, or speaks to SQS in another protocol by now
    for message in answer.get("Messages") or ():
        for value in (message.get("MessageAttributes") or {}).values():
            if value.get("BinaryValue") is not None:
                value["BinaryValue"] = base64.b64decode(value["BinaryValue"])
    customized_response_dict.update({name: value for name, value in answer.items() if value is not None})
    response_dict["body"] = b"{}"
