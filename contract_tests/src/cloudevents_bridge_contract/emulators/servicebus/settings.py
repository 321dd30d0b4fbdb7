"""What an entity is told to do: the description that the administration API keeps, and what of it the store reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Self

FOREVER = "P10675199DT2H48M5.4775807S"
_DURATION = re.compile(r"^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$")
MAX_BYTES = 256 * 1024
"""The standard tier's limit of a message, and of a batch."""

QUEUE: Mapping[str, str] = {
    "LockDuration": "PT1M",
    "MaxSizeInMegabytes": "1024",
    "RequiresDuplicateDetection": "false",
    "RequiresSession": "false",
    "DefaultMessageTimeToLive": FOREVER,
    "DeadLetteringOnMessageExpiration": "false",
    "DuplicateDetectionHistoryTimeWindow": "PT10M",
    "MaxDeliveryCount": "10",
    "EnableBatchedOperations": "true",
    "Status": "Active",
    "AutoDeleteOnIdle": FOREVER,
    "EnablePartitioning": "false",
    "EnableExpress": "false",
}
TOPIC: Mapping[str, str] = {
    "DefaultMessageTimeToLive": FOREVER,
    "MaxSizeInMegabytes": "1024",
    "RequiresDuplicateDetection": "false",
    "DuplicateDetectionHistoryTimeWindow": "PT10M",
    "EnableBatchedOperations": "true",
    "Status": "Active",
    "SupportOrdering": "true",
    "AutoDeleteOnIdle": FOREVER,
    "EnablePartitioning": "false",
    "EnableExpress": "false",
}
SUBSCRIPTION: Mapping[str, str] = {
    "LockDuration": "PT1M",
    "RequiresSession": "false",
    "DefaultMessageTimeToLive": FOREVER,
    "DeadLetteringOnMessageExpiration": "false",
    "DeadLetteringOnFilterEvaluationExceptions": "true",
    "MaxDeliveryCount": "10",
    "EnableBatchedOperations": "true",
    "Status": "Active",
    "AutoDeleteOnIdle": FOREVER,
}
FIXED = ("RequiresSession", "RequiresDuplicateDetection", "EnablePartitioning")
"""What cannot be changed once the entity is there."""


class Settings(NamedTuple):
    """Durations in seconds; None: for ever, or not at all."""

    lock: float = 60.0
    max_deliveries: int = 10
    sessions: bool = False
    duplicates: float | None = None
    ttl: float | None = None
    keep_expired: bool = False
    keep_unfiltered: bool = True
    forward: str | None = None
    forward_dead_letters: str | None = None
    sends: bool = True
    receives: bool = True
    max_bytes: int = MAX_BYTES

    @classmethod
    def of(cls, description: Mapping[str, str]) -> Self:
        """Raises ValueError if a value is none of its kind."""
        status = description.get("Status", "Active")
        window = seconds(description.get("DuplicateDetectionHistoryTimeWindow", "PT10M"))
        kilobytes = description.get("MaxMessageSizeInKilobytes")
        lock = seconds(description.get("LockDuration", "PT1M"))
        if lock is None or not 0 < lock <= 300:
            raise ValueError("The value of LockDuration must be positive and at most 5 minutes.")
        max_deliveries = int(description.get("MaxDeliveryCount", "10"))
        if max_deliveries < 1:
            raise ValueError("The value of MaxDeliveryCount must be at least 1.")
        return cls(
            lock=lock,
            max_deliveries=max_deliveries,
            sessions=_true(description, "RequiresSession"),
            duplicates=window if _true(description, "RequiresDuplicateDetection") else None,
            ttl=seconds(description.get("DefaultMessageTimeToLive", FOREVER)),
            keep_expired=_true(description, "DeadLetteringOnMessageExpiration"),
            keep_unfiltered=_true(description, "DeadLetteringOnFilterEvaluationExceptions"),
            forward=entity_of(description.get("ForwardTo")),
            forward_dead_letters=entity_of(description.get("ForwardDeadLetteredMessagesTo")),
            sends=status in ("Active", "ReceiveDisabled"),
            receives=status in ("Active", "SendDisabled"),
            max_bytes=MAX_BYTES if kilobytes in (None, "0") else int(kilobytes or 0) * 1024,
        )


def seconds(text: str) -> float | None:
    """An ISO 8601 duration; None: the longest there is, or longer than a century.

    Raises:
        ValueError: if it is none.
    """
    found = _DURATION.match(text)
    if found is None or text in ("P", "PT"):
        raise ValueError(f"{text!r} is not an ISO 8601 duration.")
    days, hours, minutes, rest = (float(each or 0) for each in found.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    return total if days < 36_500 else None


def entity_of(address: str | None) -> str | None:
    """The path of an entity that may be given by its whole address."""
    if not address:
        return None
    return address.split("://", 1)[1].partition("/")[2] if "://" in address else address


def _true(description: Mapping[str, str], name: str) -> bool:
    return description.get(name, "false").lower() == "true"
