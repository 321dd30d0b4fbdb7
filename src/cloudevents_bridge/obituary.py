"""What is written on a dead letter: one attribute of JSON text, beside the bytes of the event."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from cloudevents_bridge import driver


class Obituary(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why and when a delivery was given up, and after how many attempts."""

    reason: str
    attempts: int = 0
    died: datetime | None = None
    error: str | None = None
    topic: str = ""
    subscription: str = ""


def write(
    of: driver.Subscription, attempts: int, reason: str, error: BaseException | None, *, longest: int = 4096
) -> str:
    """The attribute's text. Reason and error are cut to `longest` characters each."""
    said = None if error is None else f"{type(error).__name__}: {error}"
    made = Obituary(
        reason=_clean(reason, longest),
        attempts=attempts,
        died=datetime.now(UTC),
        error=None if said is None else _clean(said, longest),
        topic=of.topic.name,
        subscription=of.name,
    )
    return msgspec.json.encode(made).decode()


def read(text: str | None) -> Obituary:
    """What the attribute says. A text that is not ours, from the broker itself, is the reason."""
    if not text:
        return Obituary(reason="the broker gave no reason")
    try:
        return msgspec.json.decode(text, type=Obituary)
    except msgspec.DecodeError:
        return Obituary(reason=text)


def _clean(text: str, longest: int) -> str:
    whole = text.encode("utf-8", "replace").decode("utf-8", "replace")
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"
