"""The rigs of the embedded brokers."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from cloudevents_bridge import Broker, Capability, CloudEvent, Topic, connect
from cloudevents_bridge_contract import intasks
from cloudevents_bridge_contract.elsewhere import Elsewhere
from cloudevents_bridge_contract.faulty import Shim, register, through
from cloudevents_bridge_contract.intasks import Loop
from cloudevents_bridge_contract.rig import NativeMessage, NotRun, Rig

_STRUCTURED = {"content-type": "application/cloudevents+json"}


def _compact(form: object) -> bytes:
    return json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()


class EmbeddedRig(Rig):
    """What the brokers in core have in common: deduplication where a topic asks for it, and their wire form."""

    kind = "embedded"
    lease = 0.4
    topic_native: Mapping[Capability, Mapping[str, Any]] = {Capability.DEDUPLICATION: {"deduplication": 300}}

    def break_connections(self) -> None:
        raise NotRun("an embedded broker has no connection that could break")

    def denied(self, url: str, topic: Topic) -> AbstractContextManager[tuple[str, str]]:
        raise NotRun("an embedded broker knows no identities")

    def control_plane_calls(self, url: str) -> int:
        raise NotRun("an embedded broker has no control plane to count on")

    def native_send(self, url: str, topic: Topic, message: NativeMessage) -> None:
        raise NotRun("an embedded broker has no client but its driver")

    def native_receive(self, url: str, topic: Topic) -> NativeMessage:
        raise NotRun("an embedded broker has no client but its driver")

    def stuck(self) -> AbstractContextManager[None]:
        raise NotRun("a broker in this process always answers")

    def native_form(self, event: CloudEvent) -> NativeMessage:
        form: dict[str, Any] = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
        form |= {name: value for name, value in (("subject", event.subject), *event.extensions.items()) if value}
        if isinstance(event.data, bytes):
            form |= {"data_base64": base64.b64encode(event.data).decode()}
        else:
            form |= {"datacontenttype": "application/json", "data": event.data}
        return NativeMessage(_compact(form), _STRUCTURED)

    def binary_form(self, event: CloudEvent) -> NativeMessage:
        attributes = {"ce-specversion": "1.0", "ce-id": event.id, "ce-source": event.source, "ce-type": event.type}
        named = (("subject", event.subject), *event.extensions.items())
        attributes |= {f"ce-{name}": str(value) for name, value in named if value}
        return NativeMessage(_compact(event.data), {**attributes, "content-type": "application/json"})


class MemoryRig(EmbeddedRig):
    """`memory://NAME`: kept while the suite's own connection is open."""

    name = "memory"
    crosses_processes = False

    @contextmanager
    def start(self) -> Iterator[str]:
        yield f"memory://contract-{uuid.uuid4().hex[:12]}"


class Bare(Shim):
    """Declares nothing: every capability must be refused."""

    def capabilities(self, declared: frozenset[Capability]) -> frozenset[Capability]:
        return frozenset()


class BareRig(MemoryRig):
    """The broker in memory, seen as one that can do only what every broker can. Topics are made behind its back."""

    name = "bare"

    @contextmanager
    def start(self) -> Iterator[str]:
        register("bare", Bare)
        with super().start() as url, connect(url) as self._behind:
            yield through("bare", url)

    def create(self, broker: Broker, topic: Topic) -> None:
        self._behind.topology.apply(topic)

    def remove(self, broker: Broker, topic: Topic) -> None:
        self._behind.topology.delete(topic)


class AwkwardRig(EmbeddedRig):
    """A broker with every bad manner that the seam allows."""

    name = "awkward"
    crosses_processes = False

    @contextmanager
    def start(self) -> Iterator[str]:
        yield f"awkward://contract-{uuid.uuid4().hex[:12]}?poll=0.2&groups=1"

    def native_form(self, event: CloudEvent) -> NativeMessage:
        return self.binary_form(event)


class SqliteRig(EmbeddedRig):
    """`sqlite:///path` on a file of its own."""

    name = "sqlite"

    @contextmanager
    def start(self) -> Iterator[str]:
        folder = Path(tempfile.mkdtemp(prefix="ceb-contract-"))
        self.file = folder / "events.db"
        try:
            yield f"sqlite:///{self.file}"
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def stuck(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    def native_receive(self, url: str, topic: Topic) -> NativeMessage:
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as reader:
            attributes, body = reader.execute(
                "SELECT attributes, body FROM events "
                "WHERE id >> 40 = (SELECT id FROM topics WHERE name = ?) ORDER BY id",
                [topic.name],
            ).fetchone()
        return NativeMessage(body, json.loads(attributes) if attributes else _STRUCTURED)


class InTasksRig(Rig):
    """Before another rig: its broker, used by tasks of an event loop. What is wrong for threads is wrong here."""

    in_tasks = True
    threads_to_send = 16  # those that make the calls of an AsyncBroker

    @contextmanager
    def running(self) -> Iterator[str]:
        with super().running() as url, Loop.started() as self.loop:
            yield url

    def connect(self, url: str, **connect_options: Any) -> Broker:
        return intasks.connect(self.loop, url, **connect_options)


class MemoryInTasksRig(InTasksRig, MemoryRig):
    name = "memory-asyncio"
    twin = "memory"


class AwkwardInTasksRig(InTasksRig, AwkwardRig):
    name = "awkward-asyncio"
    twin = "awkward"


class SqliteInTasksRig(InTasksRig, SqliteRig):
    name = "sqlite-asyncio"
    twin = "sqlite"


def topics_in(file: Path) -> list[str]:
    """The topics of a SQLite broker."""
    if not file.exists():
        return []
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reader:
        return [name for (name,) in reader.execute("SELECT name FROM topics WHERE name IS NOT NULL")]


class SqliteProcessesRig(SqliteRig):
    """The same, published to from another process."""

    name = "sqlite-processes"

    @contextmanager
    def running(self) -> Iterator[str]:
        with self.start() as url, Elsewhere.started() as self.elsewhere:
            yield url

    def publishing_broker(self, url: str, **connect_options: Any) -> Broker:
        return self.elsewhere.connect(url, **{**self.options, **connect_options})
