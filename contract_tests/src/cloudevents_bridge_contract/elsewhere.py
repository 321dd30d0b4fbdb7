"""A connection in another process, behind the same API: what is published crosses a process, what comes back too."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pickle import PicklingError
from typing import Any, NamedTuple, cast

from cloudevents_bridge import Broker, CloudEvent, Publisher, Topic, connect
from cloudevents_bridge_contract.crossing import packed, unpacked


class _Ref(NamedTuple):
    """An object that stays in the other process."""

    number: int


class _Call(NamedTuple):
    number: int
    target: _Ref | None
    method: str
    args: tuple[Any, ...]
    options: dict[str, Any]


class Elsewhere:
    """A process that publishes for this one."""

    def __init__(self) -> None:
        mine, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(its.fileno())], pass_fds=[its.fileno()], stdin=subprocess.DEVNULL
            )
        self._pipe = Connection(mine.detach())
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="elsewhere", daemon=True)
        self._reader.start()

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Elsewhere]:
        self = cls()
        try:
            yield self
        finally:
            self.close()

    def connect(self, url: str, *, topics: Iterable[Topic] = (), **options: Any) -> Broker:
        """`connect` in the other process."""
        ref = self.call(None, "connect", (url, packed(topics)), options).result()
        return cast("Broker", _RemoteBroker(self, ref))

    def call(self, target: _Ref | None, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            self._pipe.send(_Call(number, target, method, args, options))
        return future

    def close(self) -> None:
        with self._lock:
            self._pipe.send(None)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._pipe.close()

    def _read(self) -> None:
        try:
            while True:
                number, value, error = self._pipe.recv()
                future = self._waiting.pop(number)
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(error)
        except (EOFError, OSError) as error:
            for future in self._waiting.values():
                future.set_exception(ConnectionError(f"the other process ended: {error}"))


class _Remote:
    """An object of the other process; its methods are the public API's."""

    def __init__(self, elsewhere: Elsewhere, ref: _Ref) -> None:
        self._elsewhere = elsewhere
        self._ref = ref

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return self._elsewhere.call(self._ref, method, args, options).result()

    def close(self, *, timeout: float = 30.0) -> None:
        self._call("close", timeout=timeout)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _RemoteBroker(_Remote):
    def publish(self, topic: str, event: CloudEvent, **options: Any) -> Any:
        return self._call("publish", topic, event, **options)

    def publish_many(self, topic: str, events: Iterable[CloudEvent], **options: Any) -> Any:
        return self._call("publish_many", topic, list(events), **options)

    def publisher(self, topic: str, **options: Any) -> Publisher:
        return cast("Publisher", _RemotePublisher(self._elsewhere, self._call("publisher", topic, **options)))


class _RemotePublisher(_Remote):
    @property
    def topic(self) -> str:
        return cast("str", self._call("topic"))

    def publish(self, event: CloudEvent, **options: Any) -> Any:
        return self._call("publish", event, **options)

    def publish_many(self, events: Iterable[CloudEvent], **options: Any) -> Any:
        return self._call("publish_many", list(events), **options)

    def submit(self, event: CloudEvent, **options: Any) -> Future[Any]:
        return self._elsewhere.call(self._ref, "submit", (event,), options)

    def flush(self, **options: Any) -> None:
        self._call("flush", **options)


def _connect(url: str, topics: list[dict[str, Any]], **options: Any) -> Broker:
    return connect(url, topics=unpacked(topics), **options)


class _Server:
    """The other side: does the calls, each in a thread; submits in their order."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._objects: dict[int, Any] = {}
        self._sending = threading.Lock()
        self._pool = ThreadPoolExecutor(32)

    def serve(self) -> None:
        try:
            while (call := self._pipe.recv()) is not None:
                if call.method == "submit":
                    self._submit(call)
                else:
                    self._pool.submit(self._do, call)
        finally:
            os._exit(0)

    def _submit(self, call: _Call) -> None:
        try:
            future = self._method(call)(*call.args, **call.options)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets it
            self._answer(call, None, error)
        else:
            future.add_done_callback(lambda f: self._answer(call, None if f.exception() else f.result(), f.exception()))

    def _do(self, call: _Call) -> None:
        try:
            value = self._method(call)
            self._answer(call, value(*call.args, **call.options) if callable(value) else value, None)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets it
            self._answer(call, None, error)

    def _method(self, call: _Call) -> Any:
        return _connect if call.target is None else getattr(self._objects[call.target.number], call.method)

    def _answer(self, call: _Call, value: Any, error: BaseException | None) -> None:
        with self._sending:
            if isinstance(value, (Broker, Publisher)):
                self._objects[call.number] = value
                value = _Ref(call.number)
            try:
                self._pipe.send((call.number, value, error))
            except (AttributeError, TypeError, PicklingError) as unpicklable:
                self._pipe.send(
                    (call.number, None, AssertionError(f"{value or error!r} does not pickle: {unpicklable}"))
                )


if __name__ == "__main__":
    # under its real name, so that what is pickled is known on both sides
    from cloudevents_bridge_contract import elsewhere

    elsewhere._Server(Connection(int(sys.argv[1]))).serve()
