"""Topics and subscriptions as they are and as they are declared, for a task."""

from __future__ import annotations

from functools import partial
from typing import Literal

from cloudevents_bridge.aio.shell import Shell
from cloudevents_bridge.topics import Change, Topic
from cloudevents_bridge.topology import Topology


class AsyncTopology:
    """A `Topology` for asyncio. If the task is cancelled, what was begun goes on to its end in its thread."""

    def __init__(self, shell: Shell, topology: Topology) -> None:
        self._shell = shell
        self._topology = topology

    @property
    def unseen(self) -> str:
        """`Topology.unseen`: what `plan` cannot compare on this broker."""
        return self._topology.unseen

    async def plan(self, *topics: Topic) -> list[Change]:
        """`Topology.plan`: what `apply` would do; an empty list: nothing differs."""
        return await self._shell.run(self._shell.calls, partial(self._topology.plan, *topics))

    async def apply(self, *topics: Topic) -> list[Change]:
        """`Topology.apply`: create what is missing and change what differs."""
        return await self._shell.run(self._shell.calls, partial(self._topology.apply, *topics))

    async def delete(self, *topics: Topic) -> list[Change]:
        """`Topology.delete`: delete the topics with all their subscriptions, events and dead letters."""
        return await self._shell.run(self._shell.calls, partial(self._topology.delete, *topics))

    async def export(self, format: Literal["terraform", "bicep", "commands"], *topics: Topic) -> str:
        """`Topology.export`: the topology for another tool."""
        return await self._shell.run(self._shell.calls, partial(self._topology.export, format, *topics))

    async def policy(self, role: Literal["publisher", "consumer", "operator", "provisioner"], *topics: Topic) -> str:
        """`Topology.policy`: the least rights of a role, in the broker's own words."""
        return await self._shell.run(self._shell.calls, partial(self._topology.policy, role, *topics))
