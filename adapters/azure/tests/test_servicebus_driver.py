"""The driver on the emulator, by itself: links, locks, sessions, and what is bounded."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge.driver import DeadLetters, Done, Fault, Inbound, Outbound, Subscription, Topic
from cloudevents_bridge.errors import ErrorCode, UnsupportedError
from cloudevents_bridge_azure.servicebus import errors, links, sdk, sessions
from cloudevents_bridge_azure.servicebus.connection import Connection
from cloudevents_bridge_azure.servicebus.names import Entity
from cloudevents_bridge_azure.servicebus.options import read
from cloudevents_bridge_azure.servicebus.watch import Watch
from cloudevents_bridge_contract.azure import ServiceBusRig
from cloudevents_bridge_contract.emulators.process import wait_until
from cloudevents_bridge_contract.emulators.proxy import Proxy
from cloudevents_bridge_contract.emulators.servicebus.launcher import started
from cloudevents_bridge_contract.rig import NotRun

WAIT = 15.0


class Bus:
    """A connection, and the rig behind it."""

    def __init__(self, rig: ServiceBusRig, url: str) -> None:
        self.rig, self.url = rig, url
        self.connection = Connection(read(parse_url(url), {}, {}))
        self._number = 0

    def subscription(self, *, ordered: bool = False, lease: float = 30.0) -> Subscription:
        """A new one, of a new topic."""
        self._number += 1
        topic = Topic(f"driver-{self._number}-{time.monotonic_ns()}", ordered=ordered)
        made = Subscription(topic, "billing", lease=lease)
        topology = self.connection.topology
        topology.apply(topology.diff([topic, made]))
        return made

    def send(self, to: Subscription, *bodies: str, key: str | None = None) -> None:
        publisher = self.connection.open_publisher(to.topic)
        for outcome in publisher.send([Outbound(each.encode(), {}, key) for each in bodies], timeout=WAIT):
            assert isinstance(outcome, Done)
        publisher.close()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ServiceBusRig, str]]:
    rig = ServiceBusRig({})
    try:
        with rig.start() as url:
            yield rig, url
    except NotRun as reason:
        pytest.skip(f"not run ({reason})")


@pytest.fixture
def bus(running: tuple[ServiceBusRig, str]) -> Iterator[Bus]:
    bus = Bus(*running)
    yield bus
    bus.connection.close()


@contextmanager
def _peer(answer: str) -> Iterator[tuple[str, list[Any]]]:
    """A server that accepts connections and never says anything, or closes them. Gives its URL, and the connections."""
    seen: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                seen.append(connection)
                if answer == "closes":
                    connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        yield f"azure-servicebus://local?endpoint=amqp://127.0.0.1:{port}", seen
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in seen:
            each.close()


def _bodies(messages: Sequence[Inbound]) -> list[str]:
    return [each.body.decode() for each in messages]


def _ok(outcomes: Sequence[Done | Fault]) -> None:
    assert [each for each in outcomes if isinstance(each, Fault)] == []


# -- what is bounded


def test_a_call_connects_once_and_says_that_nothing_was_sent() -> None:
    with _peer("closes") as (url, seen):
        connection = Connection(read(parse_url(url), {}, {}))
        publisher = connection.open_publisher(Topic("orders"))
        with pytest.raises(errors.OpeningError) as caught:
            publisher.send([Outbound(b"x", {})], timeout=WAIT)
        connection.close()
        assert len(seen) == 1, "the SDK has tried again by itself"
    fault = connection.classify(caught.value)
    assert (fault.code, fault.retryable, fault.maybe_applied) == (ErrorCode.UNAVAILABLE, True, False)


def test_a_peer_that_is_silent_is_given_up_in_time() -> None:
    with _peer("is silent") as (url, _):
        connection = Connection(read(parse_url(url), {}, {}))
        publisher = connection.open_publisher(Topic("orders"))
        began = time.monotonic()
        with pytest.raises(errors.OpeningError) as caught:
            publisher.send([Outbound(b"x", {})], timeout=0.5)
        assert time.monotonic() - began < 5
        connection.close()
    fault = connection.classify(caught.value)
    assert (fault.code, fault.retryable, fault.maybe_applied) == (ErrorCode.DEADLINE_EXCEEDED, True, False)


def test_a_send_without_an_answer_is_unknown_and_the_next_one_is_well(bus: Bus) -> None:
    of = bus.subscription()
    publisher = bus.connection.open_publisher(of.topic)
    _ok(publisher.send([Outbound(b"first", {})], timeout=WAIT))
    with bus.rig.stuck():
        began = time.monotonic()
        with pytest.raises(Exception) as caught:
            publisher.send([Outbound(b"second", {})], timeout=0.5)
        assert time.monotonic() - began < 5
    fault = bus.connection.classify(caught.value)
    assert (fault.code, fault.maybe_applied) == (ErrorCode.DEADLINE_EXCEEDED, True)
    _ok(publisher.send([Outbound(b"third", {})], timeout=WAIT))
    publisher.close()


def test_a_broken_connection_is_opened_again_and_nothing_is_lost(bus: Bus) -> None:
    of = bus.subscription()
    publisher, subscriber = bus.connection.open_publisher(of.topic), bus.connection.open_subscriber(of)
    _ok(publisher.send([Outbound(b"a", {}), Outbound(b"b", {})], timeout=WAIT))
    (first,) = subscriber.receive(1, WAIT).messages
    bus.rig.break_connections()
    seen: list[str] = []
    told: list[Fault] = []

    def all_here() -> bool:
        try:
            got = subscriber.receive(10, 1.0).messages
        except Exception as error:  # noqa: BLE001 - whatever the SDK says of a broken connection
            told.append(bus.connection.classify(error))
            return False
        seen.extend(_bodies(got))
        _ok(subscriber.settle("ack", got, timeout=WAIT))
        return len(seen) == 1

    assert wait_until(all_here, WAIT)
    assert [each for each in told if not each.retryable] == []
    _ok(subscriber.settle("ack", [first], timeout=WAIT))  # by its lock token, over another connection
    assert sorted([*seen, *_bodies([first])]) == ["a", "b"]
    assert not subscriber.receive(10, 0.3).messages
    for each in (publisher, subscriber):
        each.close()


def test_a_link_that_was_long_unused_is_opened_anew(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    of = bus.subscription()
    publisher = bus.connection.open_publisher(of.topic)
    _ok(publisher.send([Outbound(b"a", {})], timeout=WAIT))
    bus.rig.break_connections()  # unseen: nobody reads
    monkeypatch.setattr(links, "IDLE", 0.0)
    _ok(publisher.send([Outbound(b"b", {})], timeout=WAIT))
    publisher.close()


# -- receiving and settling


def test_settling_does_not_wait_for_a_receive(bus: Bus) -> None:
    of = bus.subscription()
    bus.send(of, "a")
    subscriber = bus.connection.open_subscriber(of)
    (got,) = subscriber.receive(1, WAIT).messages
    waiting = threading.Thread(target=lambda: subscriber.receive(10, 20.0))
    waiting.start()
    time.sleep(0.2)  # it is under way; were it not, the settle below would be all the faster
    began = time.monotonic()
    _ok(subscriber.settle("ack", [got], timeout=WAIT))
    assert time.monotonic() - began < 5
    assert waiting.is_alive()
    (link,) = subscriber._receivers._links  # type: ignore[union-attr]
    assert not link._native._handler._link._received_delivery_tags, "the SDK keeps what was settled, for ever"
    subscriber.stop()
    waiting.join(5)
    assert not waiting.is_alive()
    subscriber.close()


@pytest.mark.parametrize("ordered", [False, True])
def test_stop_ends_a_receive_and_settling_still_works(bus: Bus, ordered: bool) -> None:
    of = bus.subscription(ordered=ordered)
    bus.send(of, "a", key="k" if ordered else None)
    subscriber = bus.connection.open_subscriber(of)
    (got,) = subscriber.receive(1, WAIT).messages
    waiting = threading.Thread(target=lambda: subscriber.receive(1, 60.0))
    waiting.start()
    time.sleep(0.3)
    began = time.monotonic()
    subscriber.stop()
    waiting.join(WAIT)
    assert time.monotonic() - began < subscriber.traits.stop_within + 3  # on a machine with other work
    _ok(subscriber.settle("ack", [got], timeout=WAIT))
    subscriber.close()
    assert not bus.connection.open_subscriber(of).receive(1, 0.5).messages


def test_a_subscriber_that_waits_no_more_keeps_nothing_from_others(bus: Bus) -> None:
    of = bus.subscription()
    idle, other = bus.connection.open_subscriber(of), bus.connection.open_subscriber(of)
    assert not idle.receive(10, 0.1).messages
    assert not other.receive(10, 0.1).messages
    bus.send(of, *[str(number) for number in range(20)])
    got: list[str] = []
    began = time.monotonic()
    while len(got) < 20 and time.monotonic() - began < WAIT:
        messages = other.receive(20, 1.0).messages
        assert {each.attempt for each in messages} <= {1}
        got += _bodies(messages)
    assert sorted(got, key=int) == [str(number) for number in range(20)]
    for each in (idle, other):
        each.close()


@pytest.mark.usefixtures("running")
def test_what_is_on_its_way_when_a_receive_ends_comes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not later, when nobody looks any more, to be locked and lost to others until the lock ends."""
    with ExitStack() as stack:
        emulator = stack.enter_context(started())
        line = stack.enter_context(Proxy(emulator.server.port))
        places = f"administration={emulator.administration}&endpoint=amqp://127.0.0.1"
        near, far = (
            Connection(read(parse_url(f"azure-servicebus://bus?{places}:{port}"), {}, {}))
            for port in (emulator.server.port, line.port)
        )
        of = Subscription(Topic("orders"), "billing", lease=60.0)
        near.topology.apply(near.topology.diff([of.topic, of]))
        publisher, subscriber = near.open_publisher(of.topic), far.open_subscriber(of)
        assert not subscriber.receive(10, 0.0).messages
        drained = sdk.drained
        held = stack.enter_context(ExitStack())

        def late(receiver: Any) -> list[Any]:
            held.enter_context(line.hold())
            _ok(publisher.send([Outbound(b"late", {})], timeout=WAIT))
            threading.Timer(0.3, held.close).start()
            return drained(receiver)

        monkeypatch.setattr(sdk, "drained", late)
        got = _bodies(subscriber.receive(10, 0.0).messages)
        subscriber.close()
        near.close()
        far.close()
    assert got == ["late"]


def test_what_came_on_several_links_is_settled_with_the_outcome_of_each(bus: Bus) -> None:
    of = bus.subscription()
    subscriber: Any = bus.connection.open_subscriber(of)
    got: list[Inbound] = []

    def receive() -> None:
        got.extend(subscriber.receive(1, WAIT).messages)

    threads = [threading.Thread(target=receive) for _ in range(2)]
    for each in threads:
        each.start()
    assert wait_until(lambda: len(subscriber._receivers._links) == 2, WAIT)
    bus.send(of, "a", "b")
    for each in threads:
        each.join()
    one, other = got
    assert one.handle is not other.handle
    _ok(subscriber.settle("ack", [one], timeout=WAIT))
    outcomes = subscriber.settle("ack", [other, one], timeout=WAIT)
    assert outcomes[0] == Done()
    assert isinstance(outcomes[1], Fault)
    assert outcomes[1].code is ErrorCode.LEASE_LOST
    subscriber.close()


def test_a_receive_brings_all_that_there_is_and_gives_none_of_it_back(bus: Bus) -> None:
    of = bus.subscription()
    bus.send(of, *[str(number) for number in range(150)])
    subscriber = bus.connection.open_subscriber(of)
    got = [subscriber.receive(100, WAIT).messages, subscriber.receive(100, WAIT).messages]
    assert [len(each) for each in got] == [100, 50]
    assert {each.attempt for some in got for each in some} == {1}
    subscriber.close()


def test_a_service_that_does_not_take_credit_back_costs_the_link_and_no_message(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = bus.subscription()
    bus.send(of, "a")
    subscriber = bus.connection.open_subscriber(of)
    monkeypatch.setattr(sdk, "_hears_of_drained", lambda link: None)  # as if it said nothing
    monkeypatch.setattr(sdk, "DRAINING", 0.1)
    got = subscriber.receive(10, WAIT).messages
    assert _bodies(got) == ["a"]
    _ok(subscriber.settle("ack", got, timeout=WAIT))  # over another link
    bus.send(of, "b")
    assert _bodies(subscriber.receive(10, WAIT).messages) == ["b"]
    subscriber.close()


def test_a_batch_over_the_limit_of_the_link_is_too_large_and_not_sent(bus: Bus) -> None:
    of = bus.subscription()
    publisher = bus.connection.open_publisher(of.topic)
    with pytest.raises(Exception) as caught:
        publisher.send([Outbound(b"x" * 200_000, {})] * 2, timeout=WAIT)
    assert bus.connection.classify(caught.value).code is ErrorCode.TOO_LARGE
    _ok(publisher.send([Outbound(b"x", {})], timeout=WAIT))
    assert _bodies(bus.connection.open_subscriber(of).receive(10, WAIT).messages) == ["x"]
    publisher.close()


def test_a_receive_ends_though_nobody_says_that_the_credit_is_used_up(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = bus.subscription()
    subscriber = bus.connection.open_subscriber(of)
    assert not subscriber.receive(10, 0.0).messages
    monkeypatch.setattr(sdk, "DRAINING", 0.3)
    with bus.rig.stuck():
        began = time.monotonic()
        assert not subscriber.receive(10, 0.0).messages
        assert time.monotonic() - began < 5
    bus.send(of, "a")
    assert _bodies(subscriber.receive(10, WAIT).messages) == ["a"]
    subscriber.close()


def test_one_lost_lock_does_not_spoil_the_others(bus: Bus) -> None:
    of = bus.subscription()
    bus.send(of, "a", "b", "c")
    subscriber = bus.connection.open_subscriber(of)
    got: list[Inbound] = []
    while len(got) < 3:
        got += subscriber.receive(3, WAIT).messages
    _ok(subscriber.settle("ack", got[1:2], timeout=WAIT))
    first, second, third = subscriber.settle("ack", got, timeout=WAIT)
    assert (first, third) == (Done(), Done())
    assert isinstance(second, Fault)
    assert second.code is ErrorCode.LEASE_LOST
    subscriber.close()


def test_dead_letters_cannot_be_sent_to_nor_die_again(bus: Bus) -> None:
    of = bus.subscription()
    with pytest.raises(UnsupportedError, match="cannot be published to"):
        bus.connection.open_publisher(DeadLetters(of))
    bus.send(of, "a")
    subscriber = bus.connection.open_subscriber(of)
    got = subscriber.receive(1, WAIT).messages
    _ok(subscriber.settle("dead", got, reason="r" * 10_000, timeout=WAIT))  # of which 8,000 and some are kept
    dead = bus.connection.open_subscriber(DeadLetters(of))
    (letter,) = dead.receive(1, WAIT).messages
    assert set(letter.attributes["ceb-dead-letter"]) == {"r"}
    assert 8_000 < len(letter.attributes["ceb-dead-letter"]) < 10_000
    (outcome,) = dead.settle("dead", [letter], reason="again", timeout=WAIT)
    assert isinstance(outcome, Fault)
    _ok(dead.settle("ack", [letter], timeout=WAIT))
    for each in (subscriber, dead):
        each.close()


def test_a_queue_is_an_entity_like_another(bus: Bus) -> None:
    bus.connection.native.administration.create_queue("inbox")
    publisher = bus.connection.publisher(Entity("inbox"), keyed=False, window=0.0)
    subscriber = bus.connection.subscriber(Entity("inbox"), keyed=False, lock=30.0, removes_after=10)
    _ok(publisher.send([Outbound(b"a", {"x": "1"})], timeout=WAIT))
    got = subscriber.receive(1, WAIT).messages
    assert [(each.body, dict(each.attributes)) for each in got] == [(b"a", {"x": "1"})]
    _ok(subscriber.settle("dead", got, reason="no", timeout=WAIT))
    dead = bus.connection.subscriber(Entity("inbox", dead=True), keyed=False, lock=30.0, removes_after=None)
    assert _bodies(dead.receive(1, WAIT).messages) == ["a"]
    for each in (publisher, subscriber, dead):
        each.close()


def test_what_is_missing_is_not_found(bus: Bus) -> None:
    nowhere = Topic("nowhere-at-all")
    for act in (
        lambda: bus.connection.open_publisher(nowhere).send([Outbound(b"x", {})], timeout=WAIT),
        lambda: bus.connection.open_subscriber(Subscription(nowhere, "billing")).receive(1, 1.0),
        lambda: bus.connection.open_subscriber(Subscription(Topic("nowhere", ordered=True), "billing")).receive(1, 1.0),
    ):
        with pytest.raises(errors.OpeningError) as caught:
            act()
        assert bus.connection.classify(caught.value).code is ErrorCode.NOT_FOUND


# -- sessions


def test_what_is_given_back_of_a_session_comes_before_what_was_fetched_ahead(bus: Bus) -> None:
    of = bus.subscription(ordered=True)
    bus.send(of, *"abcdef", key="k")
    subscriber = bus.connection.open_subscriber(of)
    (head,) = subscriber.receive(1, WAIT).messages
    _ok(subscriber.settle("nack", [head], timeout=WAIT))
    got: list[Inbound] = []
    while len(got) < 6:
        more = subscriber.receive(10, WAIT).messages
        assert more
        got += more
        _ok(subscriber.settle("ack", more, timeout=WAIT))
    assert _bodies(got) == list("abcdef")
    assert [each.attempt for each in got] == [2, 1, 1, 1, 1, 1]
    assert {each.key for each in got} == {"k"}
    subscriber.close()


def test_what_was_fetched_ahead_of_a_session_is_handed_out_at_once(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    of = bus.subscription(ordered=True)
    bus.send(of, *"abc", key="k")
    subscriber = bus.connection.open_subscriber(of)
    _ok(subscriber.settle("ack", subscriber.receive(1, WAIT).messages, timeout=WAIT))
    monkeypatch.setattr(sessions, "LOOK", 3 * WAIT)
    began = time.monotonic()
    assert _bodies(subscriber.receive(100, WAIT).messages) == ["b", "c"]
    assert time.monotonic() - began < WAIT
    subscriber.close()


def test_the_next_of_a_key_waits_for_those_that_are_out_and_other_keys_do_not(bus: Bus) -> None:
    of = bus.subscription(ordered=True)
    bus.send(of, "a1", "a2", key="a")
    subscriber = bus.connection.open_subscriber(of)
    first = subscriber.receive(1, WAIT).messages
    assert _bodies(first) == ["a1"]
    assert not subscriber.receive(1, 0.3).messages
    bus.send(of, "b1", key="b")
    other = subscriber.receive(1, WAIT).messages
    assert _bodies(other) == ["b1"]
    _ok(subscriber.settle("ack", [*first, *other], timeout=WAIT))
    assert _bodies(subscriber.receive(1, WAIT).messages) == ["a2"]
    subscriber.close()


def test_a_session_nobody_uses_any_more_goes_to_others(bus: Bus) -> None:
    of = bus.subscription(ordered=True, lease=300.0)
    bus.send(of, "a", key="k")
    one, other = bus.connection.open_subscriber(of), bus.connection.open_subscriber(of)
    _ok(one.settle("ack", one.receive(1, WAIT).messages, timeout=WAIT))
    bus.send(of, "b", key="k")
    assert _bodies(other.receive(1, sessions.KEPT + WAIT).messages) == ["b"]
    for each in (one, other):
        each.close()


def test_a_lost_session_is_told_with_all_that_is_out_of_it(bus: Bus) -> None:
    of = bus.subscription(ordered=True)
    bus.send(of, "a", "b", key="k")
    subscriber = bus.connection.open_subscriber(of)
    got: list[Inbound] = list(subscriber.receive(2, WAIT).messages)
    bus.rig.break_connections()
    outcomes = subscriber.settle("ack", got, timeout=WAIT)
    assert {each.code for each in outcomes if isinstance(each, Fault)} == {ErrorCode.LEASE_LOST}
    assert len(outcomes) == len(got)
    assert list(subscriber.receive(2, WAIT).lost) == [got[0].stream]
    again = subscriber.receive(2, WAIT).messages
    assert _bodies(again)[0] == "a"
    assert again[0].stream != got[0].stream
    subscriber.close()


# -- the rest


def test_ping_reaches_the_namespace(bus: Bus) -> None:
    bus.connection.ping(timeout=WAIT)
    with _peer("closes") as (url, _):
        connection = Connection(read(parse_url(url), {}, {}))
        with pytest.raises(errors.OpeningError):
            connection.ping(timeout=2.0)
        connection.close()


def test_what_the_sdk_does_not_offer_is_there(bus: Bus) -> None:
    """The names of azure-servicebus that are not public, and that sdk.py uses."""
    of = bus.subscription()
    bus.send(of, "a", "b", "c")
    receiver = bus.connection._client.receiver(Entity(of.topic.name, of.name))
    sdk.open_(receiver)
    assert receiver._handler._keep_alive_thread is None
    assert receiver._prefetch_count == 0
    (got,) = receiver.receive_messages(1, max_wait_time=WAIT)
    assert receiver._further_pull_receive_timeout == 0.0
    receiver._handler._link.flow(link_credit=5)
    drained = sdk.drained(receiver)
    assert [b"".join(each.body) for each in drained] == [b"b", b"c"]
    assert receiver._handler._link.current_link_credit == 0
    assert sdk.drained(receiver) == []
    other = bus.connection.open_subscriber(of)
    bus.send(of, "d")
    assert _bodies(other.receive(5, WAIT).messages) == ["d"]
    for each in (got, *drained):
        receiver.complete_message(each)
    sdk.cut(receiver)
    with pytest.raises(Exception):  # noqa: B017 - whatever the SDK says of a connection that is cut
        receiver.receive_messages(1, max_wait_time=WAIT)
    receiver.close()
    other.close()


def test_the_watch_rings_what_is_not_called_off() -> None:
    watch = Watch()
    rang: list[str] = []
    late = watch.set(0.05, lambda: rang.append("late"))
    watch.set(0.01, lambda: rang.append("early"))
    with watch.limit(0.02, lambda: rang.append("never")) as limit:
        pass
    watch.set(0.03, lambda: 1 / 0)  # type: ignore[arg-type]
    assert wait_until(lambda: late.rang, WAIT)
    assert wait_until(lambda: len(rang) == 2, WAIT)
    assert (rang, limit.rang) == (["early", "late"], False)
    alone = {each.name for each in threading.enumerate()}
    assert wait_until(lambda: "ceb-servicebus-watch" not in {each.name for each in threading.enumerate()}, WAIT), alone
    again = watch.set(0.01, lambda: rang.append("again"))
    assert wait_until(lambda: again.rang and len(rang) == 3, WAIT)
    watch.close()
    assert not watch.set(0.0, lambda: rang.append("closed")).rang


def test_the_errors_of_the_library_keep_their_meaning() -> None:
    assert errors.classify(UnsupportedError("no")).code is ErrorCode.UNSUPPORTED
    assert errors.classify(RuntimeError("what")).code is ErrorCode.UNKNOWN
    assert errors.classify(OSError("gone")).retryable


def test_events_without_a_key_do_not_wait_for_each_other(bus: Bus) -> None:
    of = bus.subscription(ordered=True)
    publisher = bus.connection.open_publisher(of.topic)
    for number in range(20):
        _ok(publisher.send([Outbound(str(number).encode(), {})], timeout=WAIT))
    publisher.close()
    subscriber = bus.connection.open_subscriber(of)
    got: list[Inbound] = []
    until = time.monotonic() + 2 * WAIT
    while len(got) < 20 and time.monotonic() < until:
        got += subscriber.receive(1, 1.0).messages
    assert sorted(_bodies(got), key=int) == [str(number) for number in range(20)]
    assert {each.key for each in got} == {None}
    _ok(subscriber.settle("ack", got[::-1], timeout=WAIT))
    subscriber.close()


def test_a_session_that_is_never_settled_ends_with_its_lock(bus: Bus) -> None:
    of = bus.subscription(ordered=True, lease=1.0)
    bus.send(of, "a", "b", key="k")
    subscriber = bus.connection.open_subscriber(of)
    (first,) = subscriber.receive(1, WAIT).messages
    lost: list[str] = []
    got: list[Inbound] = []
    until = time.monotonic() + WAIT
    while not got and time.monotonic() < until:
        received = subscriber.receive(1, 1.0)
        lost += received.lost
        got += received.messages
    assert lost == [first.stream]
    assert [(each.body, each.attempt) for each in got] == [(b"a", 2)]
    subscriber.close()


def test_what_is_cut_before_it_is_open_does_not_open(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    of = bus.subscription(ordered=True)
    receiver = bus.connection._client.next_session(Entity(of.topic.name, of.name), 60.0)
    sdk.cut(receiver)
    began = time.monotonic()
    with pytest.raises(Exception):  # noqa: B017 - whatever the SDK makes of it
        sdk.open_(receiver)
    assert time.monotonic() - began < 10
    receiver.close()
    said = [
        each.getMessage() for each in caplog.records if each.name.startswith("azure.") and each.levelname == "ERROR"
    ]
    assert said == [], "the SDK logs what happens all the time"
