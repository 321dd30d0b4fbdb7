"""Receiving dead letters, of which none may be lost for being looked at."""

from __future__ import annotations

from collections.abc import Sequence

from cloudevents_bridge.driver import Done, Fault, Inbound, Verb
from cloudevents_bridge_azure.eventgrid.client import Client
from cloudevents_bridge_azure.eventgrid.names import Source
from cloudevents_bridge_azure.eventgrid.publisher import MAX_REQUEST, publishing
from cloudevents_bridge_azure.eventgrid.settings import MOST_DELIVERIES
from cloudevents_bridge_azure.eventgrid.subscriber import Subscriber

OLD = MOST_DELIVERIES // 2
"""Deliveries after which a letter that is given back is published anew."""


class Letters(Subscriber):
    """Consumes a dead-letter place.

    Every look at a letter is a delivery, and Event Grid drops what was delivered ten times. So a letter that was
    delivered often is not given back, but published once more and then acknowledged. If only the first of the two
    happens, there are two copies, which are one letter to whoever lists them.
    """

    def __init__(self, client: Client, source: Source, *, lease: int, wait: float) -> None:
        super().__init__(client, source, lease=lease, wait=wait)
        self._publish = publishing(source.topic)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        old = [each for each in messages if (each.attempt or 1) >= OLD] if verb in ("nack", "release") else []
        if not old:
            return super().settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)
        young = [each for each in messages if each not in old]
        found = dict(zip(map(id, old), self._renew(old, timeout), strict=True))
        if young:
            others = super().settle(verb, young, seconds=seconds, reason=reason, timeout=timeout)
            found |= dict(zip(map(id, young), others, strict=True))
        return [found[id(each)] for each in messages]

    def _renew(self, old: Sequence[Inbound], timeout: float) -> Sequence[Done | Fault]:
        for bodies in _requests([bytes(each.native.event) for each in old]):
            self._client.post(self._publish, b"[" + b",".join(bodies) + b"]", {}, timeout=timeout)
        return super().settle("ack", old, timeout=timeout)


def _requests(bodies: Sequence[bytes]) -> list[list[bytes]]:
    """As many in each request as may be, with brackets and commas."""
    cut: list[list[bytes]] = []
    room = 0
    for body in bodies:
        room -= len(body) + 1
        if room < 0:
            cut.append([])
            room = MAX_REQUEST - 1 - (len(body) + 1)
        cut[-1].append(body)
    return cut
