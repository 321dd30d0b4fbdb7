"""An adapter in one file: a broker made of folders. `folder:///events` keeps its topics in the folder `events`.

A topic is a folder, a subscription a folder in it, an event a file in each of them. The name of the file says when it
may be delivered, and how often it was: `DUE.ATTEMPTS.ID`. To lease an event is to rename its file to a later time; of
two consumers that try, one finds the file gone.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cloudevents_bridge import bindings
from cloudevents_bridge.driver import (
    Capability,
    Change,
    DeadLetters,
    Done,
    Fault,
    Inbound,
    Outbound,
    Received,
    ReceiveTraits,
    SendTraits,
    Subscription,
    Topic,
    Url,
    Verb,
)
from cloudevents_bridge.errors import ConfigurationError, ErrorCode, UnsupportedError

SETTINGS = ".settings"
POLL = 0.1


class Settings(msgspec.Struct):
    """What is in the file of settings of a subscription."""

    lease: float
    max_attempts: int


class Name(NamedTuple):
    """The name of an event's file. `due`: nanoseconds since 1970."""

    due: int
    attempts: int
    id: str

    def __str__(self) -> str:
        return f"{self.due:020}.{self.attempts}.{self.id}"

    @classmethod
    def read(cls, name: str) -> Name:
        due, attempts, id = name.split(".")
        return cls(int(due), int(attempts), id)


class FolderPublisher:
    """Writes an event into each subscription of a topic, or into one place."""

    traits = SendTraits(batch_count=100, batch_bytes=1 << 24, message_bytes=1 << 20)

    def __init__(self, root: Path, to: Topic | Subscription | DeadLetters) -> None:
        self._folder = place(root, to)
        self._topic = isinstance(to, Topic)

    def size(self, message: Outbound) -> int:
        return len(_encode(message))

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        places = subscriptions(self._folder) if self._topic else [self._folder]
        return [self._send(message, places) for message in batch]

    def _send(self, message: Outbound, places: list[Path]) -> Done:
        name = Name(time.time_ns() + round(message.delay * 1e9), 0, uuid.uuid4().hex)
        for folder in places:
            hidden = folder / f".{name.id}"
            hidden.write_bytes(_encode(message))
            hidden.rename(folder / str(name))
        return Done(name.id, reached=len(places))

    def close(self) -> None:
        pass


class Lease:
    """The handle of a delivery: where its file is now. `lock`: one thread may extend it while another settles."""

    def __init__(self, folder: Path, name: Name) -> None:
        self.folder = folder
        self.name = name
        self.lock = threading.Lock()

    def move(self, name: Name) -> None:
        """Rename the file. Raises `FileNotFoundError` if somebody else has renamed it."""
        (self.folder / str(self.name)).rename(self.folder / str(name))
        self.name = name


class FolderSubscriber:
    """Receives from one place."""

    traits = ReceiveTraits(
        batch_count=100,
        settle_count=100,
        receives=1,
        wait=(0.0, 3600.0),
        stop_within=0.1,
        nack_delay=1_209_600.0,
        lease_total=math.inf,
        removes_after=None,
        settle="each",
        free_release=True,
        dead=False,
    )

    def __init__(self, root: Path, of: Subscription | DeadLetters) -> None:
        self._folder = place(root, of)
        self._settings = place(root, of.of if isinstance(of, DeadLetters) else of) / SETTINGS
        self._stopped = threading.Event()

    def receive(self, max_messages: int, wait: float) -> Received:
        end = time.monotonic() + wait
        while not self._stopped.is_set():
            if messages := self._take(max_messages):
                return Received(messages)
            left = end - time.monotonic()
            if left <= 0:
                break
            self._stopped.wait(min(POLL, left))
        return Received()

    def _take(self, most: int) -> list[Inbound]:
        seconds = msgspec.json.decode(self._settings.read_bytes(), type=Settings).lease
        messages: list[Inbound] = []
        for name in events(self._folder):
            now = time.time_ns()
            if name.due > now or len(messages) == most:
                break
            lease = Lease(self._folder, name)
            try:
                lease.move(Name(now + round(seconds * 1e9), name.attempts + 1, name.id))
                head, _, body = (self._folder / str(lease.name)).read_bytes().partition(b"\n")
            except FileNotFoundError:
                continue  # another consumer was quicker
            attributes = msgspec.json.decode(head, type=dict[str, str])
            messages.append(Inbound(body, attributes, lease, seconds, lease.name.attempts))
        return messages

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        outcomes = []
        for message in messages:
            with message.handle.lock:
                outcomes.append(self._settle(verb, message.handle, seconds))
        return outcomes

    def _settle(self, verb: Verb, lease: Lease, seconds: float) -> Done | Fault:
        now, (due, attempts, id) = time.time_ns(), lease.name
        lost = Fault(ErrorCode.LEASE_LOST, retryable=False, maybe_applied=False, message="the lease is over")
        if due <= now:
            return lost
        try:
            if verb == "ack":
                (lease.folder / str(lease.name)).unlink()
            elif verb == "release":
                lease.move(Name(now, attempts - 1, id))
            else:
                lease.move(Name(now + round(seconds * 1e9), attempts, id))
        except FileNotFoundError:
            return lost
        return Done(lease=seconds if verb == "extend" else 0.0)

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self.stop()


class FolderTopology:
    """Makes and removes the folders."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        changes: list[Change] = []
        for each in wanted:
            folder = place(self._root, each)
            if not folder.is_dir():
                changes.append(Change(each, "", None, "a folder"))
            elif isinstance(each, Subscription):
                have = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=Settings)
                for name, value in msgspec.structs.asdict(have).items():
                    if value != getattr(each, name):
                        changes.append(Change(each, name, f"{value:g}", f"{getattr(each, name):g}"))
        return changes

    def apply(self, changes: Sequence[Change]) -> None:
        for each in (change.place for change in changes):
            place(self._root, each).mkdir(parents=True, exist_ok=True)
            if isinstance(each, Subscription):
                place(self._root, DeadLetters(each)).mkdir(exist_ok=True)
                settings = Settings(each.lease, each.max_attempts)
                (place(self._root, each) / SETTINGS).write_bytes(msgspec.json.encode(settings))

    def delete(self, place_: Topic | Subscription | DeadLetters) -> None:
        shutil.rmtree(place(self._root, place_), ignore_errors=True)
        if isinstance(place_, Subscription):
            self.delete(DeadLetters(place_))

    def export(self, format: str, wanted: Sequence[Topic | Subscription]) -> str:
        raise UnsupportedError(f"folders cannot be exported as {format}: `ceb topology apply` makes them")

    def policy(self, role: str, wanted: Sequence[Topic | Subscription]) -> str:
        raise UnsupportedError(f"there is no policy for a {role}: whoever may write the folder may do everything")


class FolderConnection:
    """One folder of topics. `native` is its path."""

    capabilities = frozenset({Capability.DELAY, Capability.EXTEND, Capability.REPLAY, Capability.TOPOLOGY})
    wire = bindings.STRUCTURED
    direct = True

    def __init__(self, root: Path) -> None:
        self.native = root
        self.topology = FolderTopology(root)

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> FolderPublisher:
        return FolderPublisher(self.native, to)

    def open_subscriber(self, of: Subscription | DeadLetters) -> FolderSubscriber:
        return FolderSubscriber(self.native, of)

    def classify(self, error: BaseException) -> Fault:
        code, retryable = next((meaning for kind, meaning in ERRORS if isinstance(error, kind)), UNKNOWN)
        return Fault(code, retryable, maybe_applied=False, message=str(error))

    def ping(self, *, timeout: float) -> None:
        self.native.stat()

    def close(self) -> None:
        pass


ERRORS: tuple[tuple[type[BaseException], tuple[ErrorCode, bool]], ...] = (
    (FileNotFoundError, (ErrorCode.NOT_FOUND, False)),
    (PermissionError, (ErrorCode.PERMISSION_DENIED, False)),
    (OSError, (ErrorCode.UNAVAILABLE, True)),
)
UNKNOWN = (ErrorCode.UNKNOWN, False)


def place(root: Path, of: Topic | Subscription | DeadLetters) -> Path:
    """The folder of a place. Names hold no dot, so that `SUBSCRIPTION.dead` is free."""
    if isinstance(of, Topic):
        return root / of.name
    if isinstance(of, Subscription):
        return root / of.topic.name / of.name
    return root / of.of.topic.name / f"{of.of.name}.dead"


def subscriptions(topic: Path) -> list[Path]:
    """The folders of a topic's subscriptions. Raises `FileNotFoundError` if there is no such topic."""
    return [each for each in topic.iterdir() if not each.name.endswith(".dead")]


def events(folder: Path) -> list[Name]:
    """The events in a place, the first due first."""
    return sorted(Name.read(each.name) for each in folder.iterdir() if not each.name.startswith("."))


def _encode(message: Outbound) -> bytes:
    """The file of an event: the attributes as a line of JSON, then the body."""
    return msgspec.json.encode(dict(message.attributes)) + b"\n" + message.body


class FolderAdapter:
    """What the entry point names."""

    query: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()

    def __call__(self, url: Url, options: Mapping[str, Any]) -> FolderConnection:
        path = url.path.removeprefix("/")
        if url.authority or not path:
            raise ConfigurationError(f"{url.text} names no folder: write folder:///events or folder:////absolute/path")
        return FolderConnection(Path(path).absolute())


adapter = FolderAdapter()
