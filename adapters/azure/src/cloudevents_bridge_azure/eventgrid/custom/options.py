"""The URL, the options and the environment, checked: those of the topics, and those of the queues behind them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from cloudevents_bridge.driver import Url
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_azure.eventgrid.options import HOST as _HOST
from cloudevents_bridge_azure.eventgrid.options import KEY_VARIABLE, WAIT, Options, check_credential, check_endpoint
from cloudevents_bridge_azure.servicebus import options as servicebus

QUERY = frozenset({"servicebus", "servicebus_endpoint", "servicebus_administration", "endpoint", "message_bytes"})
OPTIONS = QUERY | {"credential"}
_PASSED = {"servicebus_endpoint": "endpoint", "servicebus_administration": "administration"}


class TopicOptions(NamedTuple):
    """What a connection goes by.

    Attributes:
        grid: where the topics are. `endpoint` is an emulator's, which has them all at one address; else it is empty.
        keys: an access key for each topic that has one in the environment, by the topic's portable name; "": for all.
        bus: the namespace of the queues.
    """

    grid: Options
    keys: Mapping[str, str]
    bus: servicebus.Options

    def __repr__(self) -> str:
        return f"<TopicOptions of {self.grid.url}>"


def read(url: Url, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> TopicOptions:
    """Raises:
    ConfigurationError: if the URL or an option is wrong.
    """
    given = {**url.query, **options}
    endpoint = check_endpoint(given.get("endpoint"))
    if url.path not in ("", "/") or not _HOST.fullmatch(url.authority) or ("." not in url.authority and not endpoint):
        raise ConfigurationError(
            f"{url.text} names no place of topics: write {url.scheme}://REGION-1.eventgrid.azure.net, which is what "
            "follows the name of a topic in its endpoint"
        )
    credential = check_credential(options.get("credential"))
    keys = {} if credential is not None else dict(_keys(environ))
    return TopicOptions(
        grid=Options(url.text, url.authority, endpoint or "", None, credential, WAIT[0]),
        keys=keys,
        bus=_bus(url, given, credential, environ),
    )


def _keys(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    found = [("", environ[KEY_VARIABLE])] if environ.get(KEY_VARIABLE) else []
    start = f"{KEY_VARIABLE}_"
    return found + [
        (name.removeprefix(start).lower().replace("_", "-"), key)
        for name, key in environ.items()
        if name.startswith(start) and key
    ]


def _bus(url: Url, given: Mapping[str, Any], credential: Any, environ: Mapping[str, str]) -> servicebus.Options:
    host = given.get("servicebus")
    if not isinstance(host, str) or not host:
        raise ConfigurationError(
            f"{url.text} does not say where the queues are that its topics deliver to: write "
            f"{url.scheme}://{url.authority}?servicebus=NAMESPACE.servicebus.windows.net"
        )
    passed = {name: given[own] for own, name in _PASSED.items() if own in given}
    if "message_bytes" in given:
        passed["message_bytes"] = given["message_bytes"]
    if credential is not None and hasattr(credential, "get_token"):
        passed["credential"] = credential
    namespace = Url(f"azure-servicebus://{host}", "azure-servicebus", host, "", {})
    return servicebus.read(namespace, passed, environ)
