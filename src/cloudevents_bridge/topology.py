"""Topics and subscriptions as they are and as they are declared. The only thing that creates, changes or deletes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cloudevents_bridge import driver
from cloudevents_bridge.driver import Capability
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge.faults import place_name, wrapped
from cloudevents_bridge.session import Opener, Place, Session, places
from cloudevents_bridge.topics import Change, Topic


class Topology:
    """The declared topics of a broker. Each method takes topics; given none, it means all that are declared."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    @property
    def unseen(self) -> str:
        """What `plan` cannot compare on this broker, as a sentence; empty: it compares everything."""
        return str(getattr(self._opener.get().connection.topology, "unseen", ""))

    def plan(self, *topics: Topic) -> list[Change]:
        """What `apply` would do; an empty list: nothing differs, of what can be seen (see `unseen`).

        Raises:
            UnsupportedError: if the broker shows nothing of its topology.
            BridgeError: what the broker said.
        """
        session = self._opener.get()
        return [_shown(change) for change in _differences(session, self._wanted(topics))]

    def apply(self, *topics: Topic) -> list[Change]:
        """Create what is missing and change what differs. Applying twice changes nothing.

        Returns:
            What was done.

        Raises:
            BridgeError: FAILED_PRECONDITION if something exists that cannot be changed to what is declared; then
                nothing was done.
            UnsupportedError: if something differs, and the broker has no `Capability.TOPOLOGY`. Its note has
                the commands that would do it.
        """
        session = self._opener.get()
        wanted = self._wanted(topics)
        if Capability.TOPOLOGY not in session.connection.capabilities:
            _leave_to_others(session, wanted)
            return []
        changes = session.call("apply the topology", lambda _: session.apply(wanted))
        return [_shown(change) for change in changes]

    def delete(self, *topics: Topic) -> list[Change]:
        """Delete the topics with all their subscriptions, events and dead letters, whether declared or not.

        Returns:
            The topics that existed and were deleted.

        Raises:
            UnsupportedError: if the broker has no `Capability.TOPOLOGY`.
        """
        session = self._opener.get()
        session.require(Capability.TOPOLOGY, "delete topics and subscriptions with the broker's own tools")
        done: list[Change] = []
        for place in self._wanted(topics):
            if isinstance(place, driver.Topic) and _exists(session, place):
                _delete(session, place)
                done.append(Change("delete", "topic", place.name, "with its subscriptions, events and dead letters"))
        return done

    def export(self, format: Literal["terraform", "bicep", "commands"], *topics: Topic) -> str:
        """The declared topology for another tool.

        Raises:
            UnsupportedError: if the broker has no such form.
        """
        session = self._opener.get()
        with wrapped(session.connection, "export the topology", session.broker):
            return session.connection.topology.export(format, self._wanted(topics))

    def policy(self, role: Literal["publisher", "consumer", "operator", "provisioner"], *topics: Topic) -> str:
        """The least rights of a role on these topics, in the broker's own words.

        Raises:
            UnsupportedError: if the broker has no rights to give.
        """
        session = self._opener.get()
        with wrapped(session.connection, f"write the policy of a {role}", session.broker):
            return session.connection.topology.policy(role, self._wanted(topics))

    def _wanted(self, topics: Sequence[Topic]) -> list[Place]:
        self._opener.get().check(topics)  # what is declared was checked when connecting
        return places(topics or self._opener.config.declared.topics.values())


def _differences(session: Session, wanted: Sequence[Place]) -> Sequence[driver.Change]:
    return session.call("compare the topology", lambda _: session.connection.topology.diff(wanted))


def _leave_to_others(session: Session, wanted: Sequence[Place]) -> None:
    """Raise `UnsupportedError`, with what to run in a note, if anything differs."""
    differing = {place_name(_owner(change)) for change in _differences(session, wanted)}
    if not differing:
        return
    chosen = [place for place in wanted if place_name(place) in differing]
    try:
        commands = session.connection.topology.export("commands", chosen).rstrip()
        instead = "run the commands below, or deploy what `ceb topology export` writes in another form"
    except UnsupportedError:
        commands, instead = "", "make them with the broker's own tools"
    error = UnsupportedError(
        f"{session.broker} does not have the capability {Capability.TOPOLOGY.value!r}, and nothing was done about "
        f"{', '.join(sorted(differing))}: {instead}",
        broker=session.broker,
    )
    if commands:
        error.add_note(commands)
    raise error


def _owner(change: driver.Change) -> Place:
    return change.place.of if isinstance(change.place, driver.DeadLetters) else change.place


def _exists(session: Session, place: Place) -> bool:
    changes = session.call(f"look for {place_name(place)}", lambda _: session.connection.topology.diff([place]))
    return not any(change.have is None and not change.setting for change in changes)


def _delete(session: Session, place: Place) -> None:
    try:
        session.call(f"delete {place_name(place)}", lambda _: session.connection.topology.delete(place))
    finally:
        session.forget()


_KINDS: dict[type, str] = {
    driver.Topic: "topic",
    driver.Subscription: "subscription",
    driver.DeadLetters: "dead letters",
}


def _shown(change: driver.Change) -> Change:
    name = place_name(change.place).rpartition(" ")[2]
    kind = _KINDS[type(change.place)]
    if change.have is None and not change.setting:
        return Change("create", kind, name, change.want)
    conflict = " (cannot be changed)" if change.conflict else ""
    have = "nothing" if change.have is None else change.have
    return Change("update", kind, name, f"{change.setting}: {have} → {change.want}{conflict}")
