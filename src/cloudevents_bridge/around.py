"""A coroutine with something around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class Around(Coroutine[Any, Any, object]):
    """A coroutine with something around it. Unlike one that awaits the other, it leaves none behind that nobody awaited
    when it is closed or cancelled before its first step.

    Args:
        begin: called before the first step.
        end: called with what it raised, or None; once, and also if it never began. What it raises comes out instead.
    """

    __slots__ = ("_begin", "_begun", "_end", "_ended", "_inner")

    def __init__(
        self, inner: Awaitable[object], begin: Callable[[], object], end: Callable[[BaseException | None], object]
    ) -> None:
        self._inner = inner if isinstance(inner, Coroutine) else _wait_for(inner)
        self._begin = begin
        self._end = end
        self._begun = self._ended = False

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._inner.throw, *error)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._over(GeneratorExit())

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Around:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    @property
    def cr_frame(self) -> Any:
        """Where it is, for whoever looks for the stack."""
        return getattr(self._inner, "cr_frame", None)

    @property
    def cr_await(self) -> Any:
        return getattr(self._inner, "cr_await", None)

    def _step(self, step: Callable[..., Any], *arguments: Any) -> Any:
        if not self._begun:
            self._begun = True
            self._begin()
        try:
            return step(*arguments)
        except StopIteration:
            self._over(None)
            raise
        except BaseException as error:
            self._over(error)
            raise

    def _over(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self._end(error)


async def _wait_for(what: Awaitable[object]) -> object:
    return await what
