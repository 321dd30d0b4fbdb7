"""The rigs of the embedded brokers."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudevents_bridge import Broker, Capability, CloudEvent
from cloudevents_bridge_contract.elsewhere import Elsewhere
from cloudevents_bridge_contract.rig import NativeMessage, Rig

_STRUCTURED = {"content-type": "application/cloudevents+json"}


def _compact(form: object) -> bytes:
    return json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()


class EmbeddedRig(Rig):
    """What the brokers in core have in common: deduplication where a topic asks for it, and their wire form."""

    kind = "embedded"
    lease = 0.4
    wakeup = 0.5
    topic_native = {Capability.DEDUPLICATION: {"deduplication": 300}}

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


class AwkwardRig(EmbeddedRig):
    """A broker with every bad manner that the seam allows."""

    name = "awkward"
    crosses_processes = False

    @contextmanager
    def start(self) -> Iterator[str]:
        yield f"awkward://contract-{uuid.uuid4().hex[:12]}?poll=0.2"

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


class SqliteProcessesRig(SqliteRig):
    """The same, published to from another process."""

    name = "sqlite-processes"

    @contextmanager
    def running(self) -> Iterator[str]:
        with self.start() as url, Elsewhere.started() as self.elsewhere:
            yield url

    def publishing_broker(self, url: str, **connect_options: Any) -> Broker:
        return self.elsewhere.connect(url, **{**self.options, **connect_options})
