"""The emulators that anyone may start, by cloud, and the environment that leads programs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

Environment: TypeAlias = Mapping[str, str]


class CannotStartError(RuntimeError):
    """An emulator is not on this machine, or does not start; the message says what to do."""


@contextmanager
def _gcp() -> Iterator[Environment]:
    from cloudevents_bridge_contract.emulators import pubsub

    try:
        emulator = pubsub.find()
    except pubsub.Missing as missing:
        raise CannotStartError(str(missing)) from missing
    with emulator.started() as server:
        yield {"PUBSUB_EMULATOR_HOST": server.address, "PUBSUB_PROJECT_ID": "local"}


CLOUDS: Mapping[str, Callable[[], AbstractContextManager[Environment]]] = {"gcp": _gcp}
"""Each starts what its cloud has, runs it until the block ends, and gives the environment."""
