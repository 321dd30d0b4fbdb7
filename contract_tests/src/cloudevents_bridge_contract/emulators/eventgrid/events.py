"""Events as they are published: read, checked and kept with their bytes untouched."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from cloudevents_bridge_contract.emulators.eventgrid.problems import bad_request, too_large

MAX_REQUEST = 1024 * 1024
"""Bytes of one publish request, and of one event."""
NAMESPACE_EVENTS, CUSTOM_EVENTS = 1_000, 5_000
"""Events of one publish request, to a namespace topic and to a custom topic."""
BATCH, SINGLE = "application/cloudevents-batch+json", "application/cloudevents+json"
_REQUIRED = ("id", "source", "type", "specversion")
_EVENT_GRID_REQUIRED = ("id", "subject", "eventType", "eventTime", "dataVersion")
_STRINGS = (*_REQUIRED, "subject", "time", "datacontenttype", "dataschema", "data_base64")
_NAME = re.compile(r"[a-z0-9]{1,20}\Z")
_OWN_NAMES = frozenset({"datacontenttype", "dataschema", "data_base64", "specversion"})


@dataclass(frozen=True, slots=True)
class Event:
    """One published event.

    Attributes:
        raw: its JSON, byte for byte as it came.
        fields: the same, decoded, for checks and filters.
    """

    raw: msgspec.Raw
    fields: dict[str, Any]


def read_cloud_events(
    media: str, body: bytes, headers: Mapping[str, str], *, most: int = NAMESPACE_EVENTS, lenient: bool = False
) -> list[Event]:
    """The events of a request in batch, structured or binary form.

    Args:
        media: the request's content type, without parameters, in lower case.
        headers: by their names in lower case.
        most: events.
        lenient: also read `application/json` as a batch or an event, as custom topics do.

    Raises:
        Problem: 400 where one is no CloudEvent, 413 where there is too much.
    """
    _check_size(body, "The request")
    if media == BATCH or (lenient and media == "application/json" and body.lstrip()[:1] == b"["):
        events = [_parsed(raw) for raw in _array(body)]
    elif media == SINGLE or (lenient and media == "application/json"):
        events = [_parsed(msgspec.Raw(body))]
    elif "ce-specversion" in headers:
        events = [_binary(media, body, headers)]
    else:
        raise bad_request(f"The content type {media or '(none)'} is not supported.")
    _check_count(events, most)
    for event in events:
        _check_cloud_event(event.fields)
    return events


def read_event_grid_events(body: bytes) -> list[Event]:
    """The events of a request in Event Grid's own schema.

    Raises:
        Problem: as `read_cloud_events`.
    """
    _check_size(body, "The request")
    events = [_parsed(raw) for raw in _array(body)]
    _check_count(events, CUSTOM_EVENTS)
    for event in events:
        for name in _EVENT_GRID_REQUIRED:
            if not isinstance(event.fields.get(name), str):
                raise bad_request(f"The event has no {name}.")
    return events


def _array(body: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The body is no JSON array: {error}") from error


def _parsed(raw: msgspec.Raw) -> Event:
    _check_size(bytes(raw), "The event")
    try:
        return Event(raw, msgspec.json.decode(raw, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The event is no JSON object: {error}") from error


def _binary(media: str, body: bytes, headers: Mapping[str, str]) -> Event:
    fields: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith("ce-"):
            fields[name[3:]] = unquote(value)
    if content := headers.get("content-type"):
        fields["datacontenttype"] = content
    made = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    if media.endswith(("/json", "+json")):
        try:
            fields["data"] = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise bad_request(f"The data is no JSON: {error}") from error
        made["data"] = msgspec.Raw(body)
    elif body:
        fields["data_base64"] = base64.b64encode(body).decode()
        made["data_base64"] = msgspec.Raw(msgspec.json.encode(fields["data_base64"]))
    return Event(msgspec.Raw(msgspec.json.encode(made)), fields)


def _check_size(body: bytes, what: str) -> None:
    if len(body) > MAX_REQUEST:
        raise too_large(f"{what} has {len(body)} bytes, and the maximum is {MAX_REQUEST}.")


def _check_count(events: list[Event], most: int) -> None:
    if not events:
        raise bad_request("The request has no events.")
    if len(events) > most:
        raise too_large(f"The request has {len(events)} events, and the maximum is {most}.")


def _check_cloud_event(fields: Mapping[str, Any]) -> None:
    for name in _REQUIRED:
        if not fields.get(name):
            raise bad_request(f"The event has no {name}, which CloudEvents requires.")
    for name in _STRINGS:
        if not isinstance(fields.get(name) or "", str):
            raise bad_request(f"The event's {name} is no string.")
    if fields["specversion"] != "1.0":
        raise bad_request(f"The version {fields['specversion']} of CloudEvents is not supported.")
    if fields.get("data") is not None and fields.get("data_base64") is not None:
        raise bad_request("The event has both data and data_base64.")
    for name, value in fields.items():
        if name == "data":
            continue
        if name not in _OWN_NAMES and not _NAME.match(name):
            raise bad_request(f"The attribute name {name!r} is not of 1 to 20 lower-case letters and digits.")
        if isinstance(value, dict | list):
            raise bad_request(f"The attribute {name} is neither a string, a number nor a boolean.")
