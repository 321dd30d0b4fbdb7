"""Events out of options and payloads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from cloudevents_bridge import CloudEvent
from cloudevents_bridge._data import JSON, is_json
from cloudevents_bridge._media import media_type
from cloudevents_bridge._times import check_time, parse_time
from cloudevents_bridge.errors import DecodeError, InvalidArgumentError

_OPTIONS = {
    "type": "--type",
    "source": "--source",
    "id": "--id",
    "subject": "--subject",
    "partitionkey": "--key",
    "datacontenttype": "--content-type",
    "data": "--data",
}


@dataclass(frozen=True)
class Template:
    """What the events of one call have in common: the arguments of `CloudEvent`, without data."""

    attributes: dict[str, Any]
    content_type: str | None

    def make(self, payload: bytes | None) -> CloudEvent:
        """One event. The payload is kept byte for byte; None: no data.

        Raises:
            InvalidArgumentError: if an attribute breaks a rule, or the payload is not JSON and nothing says what else.
        """
        if payload is None:
            return CloudEvent(datacontenttype=self.content_type, **self.attributes)
        if self.is_json and not is_json(payload):
            raise InvalidArgumentError(
                "the data is not JSON: correct it, or say what it is, as --content-type text/plain"
            )
        return CloudEvent(data=payload, datacontenttype=self.content_type or JSON, **self.attributes)

    @property
    def is_json(self) -> bool:
        if self.content_type is None:
            return True
        media = media_type(self.content_type)
        return media is not None and media.kind == "json"


def template(content_type: str | None, extensions: Iterable[tuple[str, str]], **named: str | None) -> Template:
    """The template for these options. Extensions that the specification documents get their type.

    Raises:
        click.UsageError: if an attribute is given twice, or has an option of its own.
        InvalidArgumentError: if a value breaks a rule.
    """
    attributes: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    extra: dict[str, str] = {}
    for name, value in extensions:
        if name in _OPTIONS:
            raise click.UsageError(f"-a {name}=… has an option of its own: use {_OPTIONS[name]}")
        if name in extra or name in attributes:
            raise click.UsageError(f"-a {name}=… is given twice: give it once")
        if name == "time":
            attributes["time"] = _time(value)
        elif name == "dataschema":
            attributes["dataschema"] = value
        else:
            extra[name] = value
    if extra:
        attributes["extensions"] = extra
    made = Template(attributes, content_type)
    made.make(None)  # wrong attributes are the same for every event: say so once, before anything is sent
    return made


def read_event(line: bytes) -> CloudEvent:
    """A CloudEvent as `tail --json` prints it.

    Raises:
        DecodeError: if it is none.
    """
    if not line.lstrip().startswith(b"{"):
        raise DecodeError('not a CloudEvent: a line must be a JSON object, {"specversion":"1.0",…}')
    return CloudEvent.from_json(line)


def _time(value: str) -> datetime:
    return parse_time(check_time("time", value))
