"""The Bicep that is written for each of Azure's services, read again: resources of literals, and who names whom."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import cloudevents_bridge as ceb
from cloudevents_bridge_azure import bicep

_TOKEN = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|[{}\[\]:=]|-?\d+|[A-Za-z_][\w.]*)""")
_ESCAPES = {"\\n": "\n", "\\r": "\r", "\\t": "\t"}


class Name(str):
    """What stands there without quotes."""

    __slots__ = ()


class Resource(NamedTuple):
    """`existing`: it is only referred to."""

    kind: str
    existing: bool
    body: dict[str, Any]


def read(text: str) -> dict[str, Resource]:
    """The resources by their symbols.

    Raises:
        AssertionError: if it cannot be read, or a name is of no resource.
    """
    tokens = _tokens(text)
    found: dict[str, Resource] = {}
    while tokens:
        assert tokens.pop() == "resource"
        symbol, kind = tokens.pop(), _value(tokens)
        existing = tokens[-1] == "existing"
        if existing:
            tokens.pop()
        assert tokens.pop() == "="
        assert symbol not in found, f"{symbol} is written twice"
        found[symbol] = Resource(kind, existing, _value(tokens))
    for each in found.values():
        for name in _named(each.body):
            assert name.partition(".")[0] in found, f"{name} is not defined"
    return found


def _tokens(text: str) -> list[str]:
    """The last one first."""
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None, f"not Bicep: {text[position : position + 40]!r}"
        tokens.append(match[1])
        position = match.end()
    return tokens[::-1]


def _value(tokens: list[str]) -> Any:
    token = tokens.pop()
    if token == "{":
        members = {}
        while tokens[-1] != "}":
            key = _value(tokens)
            assert tokens.pop() == ":"
            members[str(key)] = _value(tokens)
        tokens.pop()
        return members
    if token == "[":
        items = []
        while tokens[-1] != "]":
            items.append(_value(tokens))
        tokens.pop()
        return items
    if token.startswith("'"):
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[0], match[1]), token[1:-1])
    if token in ("true", "false"):
        return token == "true"
    return int(token) if token.lstrip("-").isdigit() else Name(token)


def _named(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [name for each in value.values() for name in _named(each)]
    if isinstance(value, list):
        return [name for each in value for name in _named(each)]
    return [value] if isinstance(value, Name) else []


def _written(url: str, *topics: ceb.Topic) -> dict[str, Resource]:
    with ceb.connect(url, topics=topics) as broker:
        return read(broker.topology.export("bicep"))


def _names(found: dict[str, Resource]) -> dict[str, tuple[str, str]]:
    """Parent and name of what is to be."""
    return {
        symbol: (each.body.get("parent", ""), each.body["name"]) for symbol, each in found.items() if not each.existing
    }


def test_topology_of_a_namespace() -> None:
    filters = {"includedEventTypes": ["it's", "${x}", "a\\b\n"]}
    billing = ceb.Subscription("billing", lease=90, max_attempts=3, native={"filters": filters})
    found = _written(
        "azure-eventgrid://acme.westeurope-1.eventgrid.azure.net", ceb.Topic("orders", subscriptions=[billing])
    )
    assert found["namespace"] == ("Microsoft.EventGrid/namespaces@2025-02-15", True, {"name": "acme"})
    assert _names(found) == {
        "topic0": ("namespace", "orders"),
        "topic1": ("namespace", "orders--billing--dlq"),
        "subscription0": ("topic0", "billing"),
        "subscription1": ("topic1", "dlq"),
    }
    assert found["subscription0"].kind == "Microsoft.EventGrid/namespaces/topics/eventSubscriptions@2025-02-15"
    queue = {"receiveLockDurationInSeconds": 90, "maxDeliveryCount": 10, "eventTimeToLive": "P7D"}
    properties = {
        "deliveryConfiguration": {"deliveryMode": "Queue", "queue": queue},
        "eventDeliverySchema": "CloudEventSchemaV1_0",
    }
    assert found["subscription0"].body["properties"] == {**properties, "filtersConfiguration": filters}
    assert found["subscription1"].body["properties"] == properties


def test_topology_of_custom_topics() -> None:
    filters = {"advancedFilters": [{"operatorType": "NumberInRange", "key": "data.n", "values": [[1, 2]]}]}
    kept = {"dead_letter_container": "acmestore/undelivered"}
    found = _written(
        "azure-eventgrid-topic://westeurope-1.eventgrid.azure.net?servicebus=acme.servicebus.windows.net",
        ceb.Topic(
            "orders",
            subscriptions=[ceb.Subscription("billing", lease=90, native={"filter": filters, **kept}), "archive"],
        ),
        ceb.Topic("orders-archive", subscriptions=[ceb.Subscription("audit", native=kept)]),
    )
    assert {symbol for symbol, each in found.items() if each.existing} == {
        "bus",
        "container0_account",
        "container0_blobs",
    }
    assert _names(found) == {
        "topic0": ("", "orders"),
        "topic1": ("", "orders-archive"),
        "container0": ("container0_blobs", "undelivered"),
        "queue0": ("bus", "orders--billing"),
        "subscription0": ("topic0", "billing"),
        "queue1": ("bus", "orders--archive"),
        "subscription1": ("topic0", "archive"),
        "queue2": ("bus", "orders-archive--audit"),
        "subscription2": ("topic1", "audit"),
    }
    assert found["topic0"] == (
        "Microsoft.EventGrid/topics@2025-02-15",
        False,
        {"name": "orders", "location": "westeurope", "properties": {"inputSchema": "CloudEventSchemaV1_0"}},
    )
    assert found["queue0"].kind == "Microsoft.ServiceBus/namespaces/queues@2021-11-01"
    assert found["queue0"].body["properties"] == {
        "lockDuration": "PT90S",
        "maxDeliveryCount": 17,
        "defaultMessageTimeToLive": "PT1209600S",
        "deadLetteringOnMessageExpiration": True,
    }
    properties = {
        "destination": {"endpointType": "ServiceBusQueue", "properties": {"resourceId": "queue0.id"}},
        "eventDeliverySchema": "CloudEventSchemaV1_0",
        "deadLetterDestination": {
            "endpointType": "StorageBlob",
            "properties": {"resourceId": "container0_account.id", "blobContainerName": "container0.name"},
        },
        "filter": filters,
    }
    assert found["subscription0"].kind == "Microsoft.EventGrid/topics/eventSubscriptions@2025-02-15"
    assert found["subscription0"].body["properties"] == properties
    assert isinstance(found["subscription0"].body["properties"]["destination"]["properties"]["resourceId"], Name)
    assert set(found["subscription1"].body["properties"]) == {"destination", "eventDeliverySchema"}


def test_topology_of_service_bus() -> None:
    billing = ceb.Subscription("billing", lease=30, filter="type = 'a'")
    found = _written(
        "azure-servicebus://acme.servicebus.windows.net",
        ceb.Topic("orders", ordered=True, subscriptions=[billing, "archive"], native={"deduplication": 60}),
        ceb.Topic("orders-archive"),
    )
    assert _names(found) == {
        "topic0": ("bus", "orders"),
        "topic1": ("bus", "orders-archive"),
        "subscription0": ("topic0", "billing"),
        "rule0": ("subscription0", "$Default"),
        "subscription1": ("topic0", "archive"),
    }
    assert found["topic0"].body["properties"] == {
        "supportOrdering": True,
        "requiresDuplicateDetection": True,
        "duplicateDetectionHistoryTimeWindow": "PT60S",
    }
    properties = found["subscription0"].body["properties"]
    assert (properties["requiresSession"], properties["lockDuration"]) == (True, "PT30S")
    rule = {"filterType": "SqlFilter", "sqlFilter": {"sqlExpression": "user.cloudEvents_type = 'a'"}}
    assert found["rule0"].body["properties"] == rule


def test_what_is_a_value_is_never_code() -> None:
    value = {"a-b": ["${x}", "it's", "a\\b\n\t\r", -7, True], "c": {}}
    written = bicep.resource("one", "Microsoft.Any/one@2025-01-01", value)
    assert "'\\${x}'" in written, "Bicep would put a value in its place"
    assert read(written)["one"].body == value
