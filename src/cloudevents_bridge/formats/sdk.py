"""Events of the CNCF SDK, at the edge. It is imported only where an event of its class is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from cloudevents_bridge._attributes import check_all
from cloudevents_bridge._data import encode_data
from cloudevents_bridge._members import ATTRIBUTE_FIELDS, NO_DATA, Members, State
from cloudevents_bridge.errors import DecodeError, InvalidArgumentError, UnsupportedError
from cloudevents_bridge.event import CloudEvent, make_event

C = TypeVar("C", bound=CloudEvent)


def to_sdk(event: CloudEvent) -> Any:
    """The event as `cloudevents.core.v1.event.CloudEvent`; JSON data parsed, text as str, the rest as bytes.

    The SDK knows no difference between JSON null and no data, and nothing below a microsecond.

    Raises:
        UnsupportedError: if the SDK, version 2, is not installed.
        DecodeError: if the data is not what datacontenttype says.
    """
    try:
        from cloudevents.core.v1.event import CloudEvent as SdkEvent
    except ImportError as exc:
        raise UnsupportedError('to_sdk needs the CNCF SDK: pip install "cloudevents-bridge[cncf]"') from exc
    attributes: dict[str, Any] = {
        name: value for name in ATTRIBUTE_FIELDS if (value := getattr(event, name, None)) is not None
    }
    attributes |= event.extensions
    made = SdkEvent(attributes, event.data)
    if event.time is None:
        attributes.pop("time", None)  # its constructor takes this very mapping, and puts the time of now into it
    return made


def from_sdk(cls: type[C], event: Any) -> C:
    """An event of the SDK as one of ours: 2.x, or the legacy classes of 1.x, in specversion 1.0.

    Raises:
        DecodeError: if it is no such object, or breaks a rule of the specification.
    """
    try:
        attributes, data = event.get_attributes(), event.get_data()
    except AttributeError:
        raise DecodeError(f"a {type(event).__qualname__} is no event of the CNCF SDK") from None
    if not isinstance(attributes, Mapping):
        raise DecodeError(f"a {type(event).__qualname__} is no event of the CNCF SDK")
    found = {name: value for name, value in attributes.items() if name != "data"}
    try:
        members, extra = check_all(found)
        value, body = NO_DATA, None
        if data is not None:
            value, body, media = encode_data(data, members.get("datacontenttype"))
            members["datacontenttype"] = media
    except InvalidArgumentError as exc:
        raise DecodeError(f"not a CloudEvent: {exc}") from None
    return make_event(cls, State(Members(**members, data=value), extra, body))
