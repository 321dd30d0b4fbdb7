"""How awkward a broker is, and what fails in it now and then."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cloudevents_bridge.brokers.memory import TroubleError
from cloudevents_bridge.driver import Fault, Url
from cloudevents_bridge.errors import ConfigurationError, ErrorCode

BUSY = Fault(ErrorCode.UNAVAILABLE, retryable=True, maybe_applied=False, message="busy, try again")
UNANSWERED = Fault(ErrorCode.UNAVAILABLE, retryable=True, maybe_applied=True, message="the answer was lost")


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How awkward it is: options of `connect`, or query keys of the URL.

    Attributes:
        poll: seconds that a receive without an event takes, whatever is asked for and whoever calls `stop`.
        batch_count, batch_bytes, message_bytes: limits of a send.
        removes_after: deliveries after which an event is dropped.
        lease_total: seconds from its receipt to which a delivery can be kept.
        streams: over how many streams the ordering keys are spread.
        groups: 1: one receive may bring several events of an ordering key; 0: never more than one.
        fault_rate: share of calls, and of messages of a call, that fail for once and have no effect.
        lost_rate: share of calls that have their effect, and whose answer is lost.
        seed: of the chances above.
    """

    poll: float = 5.0
    batch_count: int = 10
    batch_bytes: int = 262_144
    message_bytes: int = 262_144
    removes_after: int = 20
    lease_total: float = 600.0
    streams: int = 4
    groups: int = 0
    fault_rate: float = 0.0
    lost_rate: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, url: Url, options: Mapping[str, Any]) -> Manners:
        """Those of a URL, and of options over it. Raises `ConfigurationError` for what is no number of at least 0."""
        given = {**url.query, **{name: value for name, value in options.items() if name in NAMES}}
        read: dict[str, Any] = {}
        for name, value in given.items():
            try:
                read[name] = type(getattr(cls, name))(value)
            except (TypeError, ValueError):
                read[name] = -1
            if not read[name] >= 0:
                raise ConfigurationError(f"{name} of {url.text} is {value!r}: give a number of at least 0")
        return cls(**read)


NAMES = frozenset(field.name for field in fields(Manners))


class RefusedError(Exception):
    """The broker refuses a call that breaks what its traits say: a bug of the caller."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INVALID_ARGUMENT) -> None:
        super().__init__(message)
        self.code = code


def stream_of(key: str | None, body: bytes, streams: int) -> str:
    """The stream of an event: that of its ordering key, else any."""
    return f"stream-{zlib.crc32(body if key is None else key.encode()) % streams}"


class Chance:
    """What fails now and then."""

    def __init__(self, manners: Manners) -> None:
        self._fault, self._lost = manners.fault_rate, manners.lost_rate
        self._random = random.Random(manners.seed)

    def fails(self) -> bool:
        return bool(self._fault) and self._random.random() < self._fault

    def before(self) -> None:
        """Fail without effect, at times."""
        if self.fails():
            raise TroubleError(BUSY)

    def after(self) -> None:
        """Lose the answer, at times."""
        if self._lost and self._random.random() < self._lost:
            raise TroubleError(UNANSWERED)
