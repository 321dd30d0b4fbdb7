"""The answers of SQS, which are JSON, and that of SNS to a batch, which is XML: boto3 walks through them value by value
in Python, and that would be a seventh of what an event costs. Here they are read at once, to what boto3 makes of them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def install(client: Any, service: str) -> None:
    """Have a client of boto3 read them this way. Harmless when done again, and for what is no client of boto3."""
    meta = getattr(client, "meta", None)
    if meta is not None and service in _READERS:  # last of all: whatever others registered sees the body
        meta.events.register_last("before-parse", _READERS[service], unique_id="cloudevents-bridge-answers")


def _read_json(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
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


def _read_xml(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    before, _, rest = response_dict["body"].partition(b"<PublishBatchResult>")
    result, end, after = rest.partition(b"</PublishBatchResult>")
    if response_dict["status_code"] >= 300 or not end:
        return
    try:
        tree = ET.fromstring(b"<r>%b</r>" % result)  # noqa: S314 - as boto3 does
    except ET.ParseError:
        return
    for outcomes in tree:
        customized_response_dict[outcomes.tag] = [
            {value.tag: _VALUES.get(value.tag, _text)(value.text) for value in each} for each in outcomes
        ]
    response_dict["body"] = b"%b<PublishBatchResult/>%b" % (before, after)


def _text(text: str | None) -> str:
    return text or ""


def _is_true(text: str | None) -> bool:
    return text == "true"


_VALUES: Mapping[str, Callable[[str | None], object]] = {"SenderFault": _is_true}
_READERS: Mapping[str, Callable[..., None]] = {"sqs": _read_json, "sns": _read_xml}
