"""A TCP proxy in front of an emulator: connections can be cut and held, and requests of HTTP/2 are counted."""

from __future__ import annotations

import selectors
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from cloudevents_bridge_contract.emulators.process import HOST

_CHUNK = 1 << 16
_ENOUGH = 1 << 20  # bytes on the way in one direction, from which nothing more is read
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _CONTINUATION = 1, 9
_PADDED, _PRIORITY, _END_HEADERS = 0x8, 0x20, 0x4


class Proxy:
    """One thread that carries bytes between clients and a server.

    Args:
        server: its port.
        host: where it is.

    Attributes:
        port: where clients connect.
        paths: how often each path was asked for, over all connections; empty where `hpack` is not installed.
        counts: whether `paths` is kept.
    """

    def __init__(self, server: int, host: str = HOST) -> None:
        self._server = host, server
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((HOST, 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.paths: Counter[str] = Counter()
        self.counts = _decoder() is not None
        self._pairs: set[_Pair] = set()
        self._orders: deque[Callable[[], None]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._holding = False
        self._open = True
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._obey)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close every connection; new ones are accepted."""
        self._tell(self._cut)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let nothing through, in either direction, while it is open."""
        self._tell(lambda: self._hold(holding=True))
        try:
            yield
        finally:
            self._tell(lambda: self._hold(holding=False))

    def close(self) -> None:
        self._tell(self._end)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- in the thread

    def _run(self) -> None:
        while self._open:
            for key, events in self._selector.select():
                key.data(events)
        self._cut()
        for each in (self._listener, self._wake, self._woken):
            each.close()
        self._selector.close()

    def _tell(self, order: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.extend((order, done.set))
        self._wake.send(b"..")
        if not done.wait(10):
            raise RuntimeError("the proxy does not answer")

    def _obey(self, _events: int) -> None:
        for _ in self._woken.recv(64):
            self._orders.popleft()()

    def _hold(self, *, holding: bool) -> None:
        self._holding = holding
        for pair in list(self._pairs):
            pair.watch()

    def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.close()

    def _end(self) -> None:
        self._open = False

    def _accept(self, _events: int) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._server, timeout=5)
        except OSError:
            client.close()
            return
        self._pairs.add(_Pair(self, client, server))


class _Pair:
    """The two ends of one connection, and what is on its way between them."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._other = {client: server, server: client}
        self._out: dict[socket.socket, bytearray] = {client: bytearray(), server: bytearray()}
        self._client = client
        self._watched: dict[socket.socket, int] = {}
        self._requests = _Requests(proxy.paths) if proxy.counts else None
        for each in self._other:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.watch()

    def watch(self) -> None:
        """Wait for what each end can do now."""
        selector = self._proxy._selector
        for end, other in self._other.items():
            wanted = 0
            if not self._proxy._holding:
                wanted |= selectors.EVENT_READ if len(self._out[other]) < _ENOUGH else 0
                wanted |= selectors.EVENT_WRITE if self._out[end] else 0
            have = self._watched.get(end, 0)
            if wanted == have:
                continue
            self._watched[end] = wanted
            if not wanted:
                selector.unregister(end)
            elif have:
                selector.modify(end, wanted, self._work(end))
            else:
                selector.register(end, wanted, self._work(end))

    def close(self) -> None:
        for end in self._other:
            if self._watched.pop(end, 0):
                self._proxy._selector.unregister(end)
            end.close()
        self._proxy._pairs.discard(self)

    def _work(self, end: socket.socket) -> Callable[[int], None]:
        def work(events: int) -> None:
            if self not in self._proxy._pairs or not self._watched.get(end):
                return
            try:
                if events & selectors.EVENT_READ:
                    self._read(end)
                if events & selectors.EVENT_WRITE:
                    self._write(end)
            except (OSError, EOFError):
                self.close()
                return
            self.watch()

        return work

    def _read(self, end: socket.socket) -> None:
        data = end.recv(_CHUNK)
        if not data:
            raise EOFError
        if end is self._client and self._requests is not None:
            self._requests.feed(data)
        self._out[self._other[end]] += data
        self._write(self._other[end])

    def _write(self, end: socket.socket) -> None:
        with suppress(BlockingIOError):
            sent = end.send(self._out[end])
            del self._out[end][:sent]


class _Requests:
    """Reads the paths of requests off what a client of HTTP/2 sends (RFC 9113, sections 4 and 6)."""

    def __init__(self, paths: Counter[str]) -> None:
        self._paths = paths
        self._decoder = _decoder()
        self._begun = False
        self._skip = 0
        self._data = bytearray()
        self._block = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data
        if not self._begun:
            if len(self._data) < len(_PREFACE):
                return
            self._begun = True
            self._skip = len(_PREFACE)
        while True:
            skipped = min(self._skip, len(self._data))
            del self._data[:skipped]
            self._skip -= skipped
            if self._skip or len(self._data) < 9:
                return
            length, kind, flags = int.from_bytes(self._data[:3], "big"), self._data[3], self._data[4]
            if kind not in (_HEADERS, _CONTINUATION):
                self._skip = 9 + length
                continue
            if len(self._data) < 9 + length:
                return
            self._headers(kind, flags, bytes(self._data[9 : 9 + length]))
            self._skip = 9 + length

    def _headers(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _HEADERS:
            padding = payload[0] if flags & _PADDED else 0
            start = bool(flags & _PADDED) + (5 if flags & _PRIORITY else 0)
            payload = payload[start : len(payload) - padding]
        self._block += payload
        if flags & _END_HEADERS:
            for name, value in self._decoder.decode(bytes(self._block)):
                if name == ":path":
                    self._paths[value] += 1
            self._block.clear()


def _decoder() -> Any:
    """A decoder of header blocks; None where `hpack` is not installed."""
    try:
        from hpack import Decoder
    except ImportError:
        return None
    decoder = Decoder(max_header_list_size=1 << 20)
    decoder.max_allowed_table_size = 1 << 20
    return decoder
