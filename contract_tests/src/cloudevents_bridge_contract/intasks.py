"""A connection used by tasks of an event loop, behind the API for threads: the same cases try both."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from cloudevents_bridge import Broker, DeadLetter, SettleError, Subscriber, Worker, aio

T = TypeVar("T")
Tasks = Coroutine[Any, Any, T]


class Loop:
    """An event loop in a thread of its own. In the child of a fork it is another one."""

    def __init__(self) -> None:
        self._process = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._lock_of = os.getpid()

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Loop]:
        self = cls()
        self._get()
        try:
            yield self
        finally:
            self.close()

    def run(self, work: Tasks[T]) -> T:
        """What a task gives."""
        return self.begin(work).result()

    def begin(self, work: Tasks[T]) -> Future[T]:
        """The future of what a task gives. Cancelling it cancels the task."""
        if threading.current_thread() is self._thread:
            work.close()
            raise AssertionError("a handler on the event loop made a call that blocks it")
        with self._own_lock():  # a loop that ends runs what was begun before, and nothing else
            return asyncio.run_coroutine_threadsafe(_in_turn(work), self._get())

    def end(self) -> None:
        """End soon; what runs has a moment."""
        with self._own_lock():
            if self._process == os.getpid():
                self._process = 0
                self._loop.call_soon_threadsafe(self._over.set)

    def close(self) -> None:
        """End."""
        self.end()
        if self._thread is not None:
            self._thread.join()

    def _own_lock(self) -> threading.Lock:
        if self._lock_of != os.getpid():  # whoever had it did not come along into the child of a fork
            self._lock, self._lock_of = threading.Lock(), os.getpid()
        return self._lock

    def _get(self) -> asyncio.AbstractEventLoop:
        if self._process != os.getpid():
            begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
            self._thread = threading.Thread(target=asyncio.run, args=[_serve(begun)], name="in-tasks", daemon=True)
            self._thread.start()
            self._loop, self._over = begun.result()
            self._process = os.getpid()
        return self._loop


async def _serve(begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    over = asyncio.Event()
    begun.set_result((asyncio.get_running_loop(), over))
    await over.wait()
    if running := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(running, timeout=0.5)


async def _in_turn(work: Tasks[T]) -> T:
    """Whatever was told to the loop before the result is known when that is."""
    try:
        return await work
    finally:
        for _ in range(3):
            await asyncio.sleep(0)


def connect(loop: Loop, url: str, **options: Any) -> Broker:
    """`aio.connect`, as a broker for threads."""
    return cast("Broker", _Broker(loop, aio.connect(url, **options)))


class _Facade:
    """What does I/O runs as a task; all else is that of the object itself."""

    _coroutines: frozenset[str] = frozenset()

    def __init__(self, loop: Loop, real: Any) -> None:
        self._loop = loop
        self._real = real

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name not in self._coroutines:
            return value
        return lambda *args, **options: self._loop.run(value(*args, **options))

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Broker(_Facade):
    _coroutines = frozenset({"publish", "publish_many", "ping", "close"})

    def __init__(self, loop: Loop, real: aio.AsyncBroker) -> None:
        super().__init__(loop, real)
        self.topology = _Topology(loop, real.topology)

    def publisher(self, topic: str, **options: Any) -> _Publisher:
        return _Publisher(self._loop, self._real.publisher(topic, **options))

    def subscriber(self, topic: str, subscription: str, **options: Any) -> Subscriber:
        return cast("Subscriber", _Subscriber(self._loop, self._real.subscriber(topic, subscription, **options)))

    def worker(self, **options: Any) -> Worker:
        return cast("Worker", _Worker(self._real.worker(**options)))

    def dead_letters(self, topic: str, subscription: str) -> _DeadLetters:
        return _DeadLetters(self._loop, self._real.dead_letters(topic, subscription))


class _Topology(_Facade):
    _coroutines = frozenset({"plan", "apply", "delete", "export", "policy"})


class _Publisher(_Facade):
    _coroutines = frozenset({"publish", "publish_many", "flush", "close"})

    def submit(self, event: Any, **options: Any) -> Future[Any]:
        """The future of a task that waits for the receipt; it ends when that does."""
        ended: Future[Any] = Future()
        self._loop.run(self._submit(ended, event, options))
        return ended

    async def _submit(self, ended: Future[Any], event: Any, options: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        receipt: asyncio.Future[Any] = await self._real.submit(event, **options)

        def follow(receipt: asyncio.Future[Any]) -> None:
            if receipt.cancelled():
                ended.cancel()
            elif not ended.done():
                error = receipt.exception()
                ended.set_result(receipt.result()) if error is None else ended.set_exception(error)

        receipt.add_done_callback(follow)
        ended.add_done_callback(lambda ended: ended.cancelled() and loop.call_soon_threadsafe(receipt.cancel))


class _Delivery(_Facade):
    _coroutines = frozenset({"ack", "nack", "dead_letter", "extend", "give_back"})

    def __enter__(self) -> Any:
        return self._loop.run(self._real.__aenter__())

    def __exit__(self, *exc: object) -> None:
        self._loop.run(self._real.__aexit__(*exc))


class _Subscriber(_Facade):
    _coroutines = frozenset({"close"})

    def receive(self, max_events: int = 10, *, wait: float = 20.0) -> list[_Delivery]:
        received = self._loop.run(self._real.receive(max_events, wait=wait))
        return [_Delivery(self._loop, delivery) for delivery in received]

    def ack_many(self, deliveries: Iterable[_Delivery]) -> None:
        listed = list(deliveries)
        try:
            self._loop.run(self._real.ack_many([delivery._real for delivery in listed]))
        except SettleError as error:
            given: dict[Any, Any] = {delivery._real.sync: delivery for delivery in listed}
            error.failed = [(given[delivery], why) for delivery, why in error.failed]
            raise

    def __iter__(self) -> Iterator[_Delivery]:
        for delivery in _iterated(self._loop, self._real.__aiter__):
            yield _Delivery(self._loop, delivery)


class _DeadLetters(_Facade):
    def find(self, **options: Any) -> Iterator[DeadLetter]:
        return _iterated(self._loop, lambda: self._real.find(**options))

    def replay(self, letters: Any, **options: Any) -> Any:
        return self._loop.run(self._real.replay(_listed(letters), **options))

    def purge(self, letters: Any) -> Any:
        return self._loop.run(self._real.purge(_listed(letters)))


class _Worker:
    """It works on a loop of its own, so that handlers which block it keep nobody else waiting."""

    def __init__(self, real: aio.AsyncWorker) -> None:
        self._real = real
        self._loop = Loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def add(self, *args: Any, **options: Any) -> Any:
        self._real.add(*args, **options)
        return self

    def run(self, **options: Any) -> Any:
        signals = options.pop("signals", True)
        running = self._loop.begin(self._real.run(**options, signals=False))
        try:
            self._loop.run(asyncio.sleep(0))  # it has begun
            with self._real._worker._listening(signals):  # this may be the main thread, which the loop's is not
                while not running.done():
                    wait([running], timeout=1.0)  # not longer: a signal that came just before does not end it
                return running.result()
        finally:
            self._loop.end()

    def start(self) -> None:
        self._loop.run(self._start())

    async def _start(self) -> None:
        self._real.start()
        over: Any = self._real._over
        over.add_done_callback(lambda _: self._loop.end())

    def close(self, **options: Any) -> None:
        self._loop.run(self._real.close(**options))
        self._loop.close()

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _iterated(loop: Loop, begin: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
    """An asynchronous iterator as one for threads. It begins when it is first asked."""
    over: Any = object()
    iterator: Any = begin()

    async def step() -> Any:
        return await anext(iterator, over)

    try:
        while (value := loop.run(step())) is not over:
            yield value
    finally:
        loop.run(iterator.aclose())


def _listed(letters: Any) -> Any:
    """An iteration that blocks is gone through here, not on the loop."""
    return list(letters) if isinstance(letters, Iterator) else letters
