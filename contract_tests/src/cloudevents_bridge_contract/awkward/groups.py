"""A feed that hands out several events of an ordering key at once, as queues with message groups do."""

from __future__ import annotations

from collections import deque
from typing import Any

from cloudevents_bridge.brokers.memory import Entry, Feed
from cloudevents_bridge.driver import Inbound


class GroupFeed(Feed):
    """What one receive takes of a key is one group. Nothing more of the key is handed out until all of the group is
    settled or its lease is over; then what was not acked comes first, in its order.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._groups: dict[str, list[Entry]] = {}

    def take(self, most: int, now: float, holder: int) -> list[Inbound]:
        taken: list[Inbound] = []
        for share in ((most + 1) // 2, most):  # at first half of it, so that there is room for those behind a head
            heads = super().take(share - len(taken), now, holder) if share > len(taken) else []
            room = most - len(taken) - len(heads)
            for head in heads:
                followers = self._followers(head, room) if head.key is not None and self.ordered else []
                taken += [head, *followers]
                room -= len(followers)
        return taken

    def fire(self, now: float) -> None:
        before = len(self._ready)
        super().fire(now)
        back = [self._ready.popleft() for _ in range(len(self._ready) - before)]
        self._ready.extendleft(reversed([entry for entry in back if not self._grouped(entry)]))
        for entry in back:
            self._close(entry.key, now)

    def _followers(self, head: Inbound, room: int) -> list[Inbound]:
        """Take what stands behind a head that was taken."""
        first, token = head.handle
        group = self._groups[first.key] = [first]
        lane = self._lanes[first.key]
        while lane and len(group) <= room:
            group.append(lane.popleft())
        for entry in group[1:]:
            entry.attempt += 1
            entry.token, entry.due = token, first.due
        self.leased += len(group) - 1
        self._time(first.due, group[1:])
        return [
            Inbound(e.message.body, e.message.attributes, (e, token), head.lease, e.attempt, e.key) for e in group[1:]
        ]

    def _grouped(self, entry: Entry) -> bool:
        return any(each is entry for each in self._groups.get(entry.key or "", ()))

    def _finish(self, entry: Entry, now: float) -> None:
        if not self._grouped(entry):
            super()._finish(entry, now)
            return
        key = entry.key or ""
        self._groups[key] = [each for each in self._groups[key] if each is not entry]
        entry.token, entry.due = None, 0.0
        self.size -= 1
        self._close(key, now)

    def _give_back(self, held: list[Entry], due: float, *, free: bool) -> None:
        grouped = [entry for entry in held if self._grouped(entry)]
        super()._give_back([entry for entry in held if entry not in grouped], due, free=free)
        for entry in grouped:
            entry.attempt -= free
            entry.due = due
        for entry in grouped:
            self._close(entry.key, 0.0)

    def _close(self, key: str | None, now: float) -> None:
        """Where nothing of a group is in anybody's hands any more, what is left of it comes first."""
        if key not in self._groups or any(entry.token is not None for entry in self._groups[key]):
            return
        lane = self._lanes[key] or deque()
        lane.extendleft(reversed(self._groups.pop(key)))
        if lane:
            self._lanes[key] = lane
            self._show(lane.popleft(), now)
        else:
            del self._lanes[key]
