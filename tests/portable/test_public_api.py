"""The names that users have, with the signatures that are promised, and a docstring on each."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge import errors, middleware, types

NAMES = [
    "aio",
    "connect",
    "Broker",
    "Publisher",
    "Subscriber",
    "Worker",
    "Router",
    "Delivery",
    "Receipt",
    "CloudEvent",
    "RawMessage",
    "DeadLetter",
    "DeadLetters",
    "Topic",
    "Subscription",
    "Capability",
    "RetryPolicy",
    "Retry",
    "Reject",
    "BridgeError",
    "PublishError",
    "SettleError",
    "DecodeError",
    "UnsupportedError",
    "LeaseLostError",
]

CLOSE = "close(self, *, timeout: float = 30.0) -> None"
PUBLISH = "event: CloudEvent, *, delay: float = 0.0, timeout: float | None = None) -> Receipt"
PUBLISH_MANY = "events: Iterable[CloudEvent], *, delay: float = 0.0, timeout: float | None = None) -> list[Receipt]"
ON_FULL = "on_full: Literal['block', 'raise'] = 'block') -> Publisher"
SINCE = "since: datetime | None = None, limit: int | None = None) -> Iterator[DeadLetter]"
HANDLER = "handler: Router | Callable[..., object]"
ADD = (
    "concurrency: int = 1, batch: int | None = None, foreign: Sequence[Decoder] = (), max_lease: float = 3600.0, "
    "dead_letters: bool = False) -> Self"
)
LETTERS = "letters: Iterable[DeadLetter | str]"
SIGNATURES: dict[object, list[str]] = {
    ceb.Broker: [
        f"publish(self, topic: str, {PUBLISH}",
        f"publish_many(self, topic: str, {PUBLISH_MANY}",
        f"publisher(self, topic: str, *, linger: float = 0.01, max_buffered: int = 10000, {ON_FULL}",
        "subscriber(self, topic: str, subscription: str, *, foreign: Sequence[Decoder] = ()) -> Subscriber",
        "worker(self, *, grace: float = 25.0) -> Worker",
        "dead_letters(self, topic: str, subscription: str) -> DeadLetters",
        "ping(self, *, timeout: float = 5.0) -> None",
        CLOSE,
    ],
    ceb.Publisher: [
        f"publish(self, {PUBLISH}",
        f"publish_many(self, {PUBLISH_MANY}",
        "submit(self, event: CloudEvent, *, delay: float = 0.0) -> Future[Receipt]",
        "flush(self, *, timeout: float = 30.0) -> None",
        CLOSE,
    ],
    ceb.Subscriber: [
        "receive(self, max_events: int = 10, *, wait: float = 20.0) -> list[Delivery]",
        "ack_many(self, deliveries: Iterable[Delivery]) -> None",
        "__iter__(self) -> Iterator[Delivery]",
        CLOSE,
    ],
    ceb.Worker: [
        f"add(self, topic: str, subscription: str, {HANDLER}, *, {ADD}",
        "run(self, *, until_idle: float | None = None, signals: bool = True) -> Stats",
        "start(self) -> None",
        "stop(self, *, grace: float | None = None) -> None",
        CLOSE,
    ],
    ceb.Router: [
        "on(self, type: str, /, *types: str) -> Callable[[F], F]",
        "include(self, other: Router) -> None",
        "handle(self, item: CloudEvent | Delivery) -> None",
    ],
    ceb.Delivery: [
        "ack(self) -> None",
        "nack(self, *, delay: float | None = None) -> None",
        "dead_letter(self, reason: str) -> None",
        "extend(self, seconds: float) -> None",
        "__enter__(self) -> CloudEvent",
    ],
    ceb.DeadLetters: [
        f"find(self, *, type: str | None = None, reason: str | None = None, {SINCE}",
        f"replay(self, {LETTERS}, *, topic: str | None = None, rate: float | None = None) -> list[Receipt]",
        f"purge(self, {LETTERS}) -> int",
    ],
    types.Topology: [
        "plan(self, *topics: Topic) -> list[Change]",
        "apply(self, *topics: Topic) -> list[Change]",
        "delete(self, *topics: Topic) -> list[Change]",
        "export(self, format: Literal['terraform', 'bicep', 'commands'], *topics: Topic) -> str",
        "policy(self, role: Literal['publisher', 'consumer', 'operator', 'provisioner'], *topics: Topic) -> str",
    ],
    ceb.CloudEvent: [
        "data_as(self, model: builtins.type[T], /) -> T",
        "replace(self, **changes: Any) -> Self",
        "to_json(self) -> bytes",
        "to_dict(self) -> dict[str, Any]",
        "to_http(self, *, structured: bool = False) -> tuple[dict[str, str], bytes]",
        "to_sdk(self) -> Any",
    ],
}
PARAMETERS: dict[Any, str] = {
    ceb.connect: "url profile config topics requires create_missing retry timeout telemetry options",
    ceb.CloudEvent: "type source data id time subject datacontenttype dataschema partitionkey extensions",
    ceb.Topic: "name subscriptions ordered native",
    ceb.Subscription: "name max_attempts lease redelivery filter native",
    ceb.Router: "middleware unmatched",
    ceb.RetryPolicy: "attempts initial maximum factor",
    ceb.Retry: "delay reason",
    ceb.Reject: "reason",
}
DEFAULTS: dict[Any, dict[str, object]] = {
    ceb.Subscription: {"max_attempts": 5, "lease": 60.0, "filter": None},
    ceb.RetryPolicy: {"attempts": 5, "initial": 0.2, "maximum": 20.0, "factor": 2.0},
    ceb.Retry: {"delay": None, "reason": ""},
    ceb.Router: {"middleware": (), "unmatched": "dead_letter"},
    ceb.Topic: {"ordered": False, "subscriptions": ()},
}
MIDDLEWARE: dict[Any, str] = {
    middleware.idempotent: "store key ttl",
    middleware.log: "delivery call_next",
    middleware.timing: "report every max_types",
    middleware.MemoryStore: "most",
    middleware.SQLiteStore: "path timeout",
}
FIELDS: dict[Any, str] = {
    ceb.Receipt: "event_id native_id sequence",
    ceb.RawMessage: "body attributes native",
    ceb.DeadLetter: "id event raw reason error attempts topic subscription died",
    types.Change: "action kind name detail",
    types.Stats: "handled failed dead_lettered in_flight stalled connected last_event",
}
BEYOND = {ceb.Delivery: {"give_back"}, ceb.Publisher: {"closed"}, ceb.Subscriber: {"closed"}, ceb.Worker: {"closed"}}
"""What is public and not in the plan of the API."""
PUBLIC = [getattr(ceb, name) for name in NAMES] + [getattr(types, name) for name in ("Change", "Stats", "Topology")]


def public_callables() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for each in PUBLIC:
        found.append((each.__name__, each))
        if not isinstance(each, type):
            continue
        for name, value in vars(each).items():
            if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                found.append((f"{each.__name__}.{name}", value))
    return found


class Plain(str):
    """An annotation as it is written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self).replace('"', "'")


def shown(function: Any, name: str) -> str:
    signature = inspect.signature(function)
    parameters = [
        each if each.annotation is each.empty else each.replace(annotation=Plain(each.annotation))
        for each in signature.parameters.values()
    ]
    return name + str(signature.replace(parameters=parameters, return_annotation=Plain(signature.return_annotation)))


def test_all_is_what_was_promised() -> None:
    assert sorted(ceb.__all__) == sorted(NAMES)
    assert len(ceb.__all__) == len(set(ceb.__all__)) == 25
    for name in ceb.__all__:
        assert getattr(ceb, name)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(kind, each) for kind, signatures in SIGNATURES.items() for each in signatures],
    ids=lambda value: value.partition("(")[0] if isinstance(value, str) else value.__name__,
)
def test_signatures(kind: Any, expected: str) -> None:
    name = expected.partition("(")[0]
    assert shown(getattr(kind, name), name) == expected


@pytest.mark.parametrize("kind", [*PARAMETERS, *FIELDS], ids=lambda kind: kind.__name__)
def test_parameters_and_fields(kind: Any) -> None:
    if kind in FIELDS:
        assert list(kind._fields) == FIELDS[kind].split()
        return
    parameters = inspect.signature(kind).parameters
    assert list(parameters) == PARAMETERS[kind].split()
    for name, default in DEFAULTS.get(kind, {}).items():
        assert parameters[name].default == default


@pytest.mark.parametrize("kind", SIGNATURES, ids=lambda kind: getattr(kind, "__name__", ""))
def test_nothing_else_is_public(kind: Any) -> None:
    planned = {each.partition("(")[0] for each in SIGNATURES[kind]}
    methods = {name for name, value in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
    made_by = {"from_json", "from_dict", "from_http", "from_sdk"} if kind is ceb.CloudEvent else set()
    assert methods - planned - made_by <= BEYOND.get(kind, set())


def test_middleware() -> None:
    assert {each.__name__ for each in MIDDLEWARE} | {"Claim", "Idempotent", "Store"} == set(middleware.__all__)
    for each, parameters in MIDDLEWARE.items():
        assert list(inspect.signature(each).parameters) == parameters.split()
        assert inspect.getdoc(each)
    for name in ("claim", "renew", "complete", "release"):
        for store in (middleware.MemoryStore, middleware.SQLiteStore):
            assert shown(getattr(store, name), name) == shown(getattr(middleware.Store, name), name)


def test_everything_but_the_topic_is_by_keyword() -> None:
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(ceb.CloudEvent).parameters.values())
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(ceb.RetryPolicy).parameters.values())
    keywords = [p for name, p in inspect.signature(ceb.connect).parameters.items() if name not in ("url", "options")]
    assert all(p.kind is p.KEYWORD_ONLY for p in keywords)


def test_capabilities() -> None:
    assert [each.value for each in ceb.Capability] == (
        ["ordering", "delay", "expiry", "deduplication", "filter", "extend", "replay", "tail", "topology"]
    )


def test_error_tree() -> None:
    assert issubclass(ceb.DecodeError, ValueError)
    assert issubclass(ceb.UnsupportedError, NotImplementedError)
    for name in ("PublishError", "SettleError", "DecodeError", "UnsupportedError", "LeaseLostError"):
        assert issubclass(getattr(ceb, name), ceb.BridgeError)
    assert not issubclass(ceb.Retry, ceb.BridgeError)
    assert not issubclass(ceb.Reject, ceb.BridgeError)


@pytest.mark.parametrize(
    ("name", "value"), public_callables(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_everything_public_has_a_docstring(name: str, value: Any) -> None:
    doc = inspect.getdoc(value)
    if isinstance(value, property) and not doc:
        return  # an attribute: its class says what needs saying, the specification the rest
    assert doc, f"{name} says nothing"
    assert len(doc) > 15
    assert doc[0].isupper() or doc[0] in "`["


@pytest.mark.parametrize("kind", [each for each in vars(errors).values() if inspect.isclass(each)])
def test_every_error_has_a_docstring(kind: type) -> None:
    assert kind.__doc__


@pytest.mark.parametrize(
    "function",
    [ceb.connect, *(getattr(kind, s.partition("(")[0]) for kind, found in SIGNATURES.items() for s in found)],
    ids=lambda function: function.__qualname__,
)
def test_annotations_resolve(function: Any) -> None:
    get_type_hints(function)


def test_importing_is_light() -> None:
    """No cloud, no CLI library, nothing of asyncio, pydantic or the tests: what is heavy is imported on first use."""
    program = (
        "import sys, cloudevents_bridge\n"
        "heavy = {'asyncio', 'click', 'rich', 'pydantic', 'tenacity', 'importlib.metadata', 'sqlite3', 'pytest',"
        " 'boto3', 'google.cloud', 'azure', 'cloudevents', 'http.client', 'ssl'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_users_programs_are_well_typed(tmp_path: Path) -> None:
    program = Path(__file__).parent.parent / "typing_public.py"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "--config-file", "", str(program)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
