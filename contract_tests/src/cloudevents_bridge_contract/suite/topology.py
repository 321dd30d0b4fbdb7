"""Topics and subscriptions: shown, made, verified, removed; and left alone otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cloudevents_bridge import Capability, Subscription, Topic, UnsupportedError
from cloudevents_bridge.driver import Outbound, PublisherDriver
from cloudevents_bridge.errors import BridgeError, ErrorCode, NotFoundError, PermissionDeniedError
from cloudevents_bridge_contract.bench import AT_ONCE, Bench
from cloudevents_bridge_contract.faulty import InjectedError, Outcomes, Shim, To, refused
from cloudevents_bridge_contract.outcomes import NotRun, Unsupported


def _may_create(bench: Bench) -> None:
    """The cases of this group make topics themselves."""
    if bench.rig.existing is not None:
        raise NotRun("nothing may be created here")
    bench.requires(Capability.TOPOLOGY, lambda: bench.broker(bench.declare()).topology.apply())


class TopologyCases:
    def test_plan_apply_verify_delete(self, bench: Bench) -> None:
        _may_create(bench)
        topic = bench.declare(2)
        topology = bench.broker(topic).topology
        planned = topology.plan()
        assert {change.action for change in planned} == {"create"}
        names = {change.name for change in planned}
        assert {topic.name, f"{topic.name}/alpha", f"{topic.name}/bravo"} <= names
        with pytest.raises(NotFoundError):
            bench.publishing(topic).publish(topic.name, bench.event())
        made = topology.apply()
        assert {change.name for change in made} == names, "apply did something else than plan said"
        assert topology.plan() == []
        bench.publish(topic, event := bench.event())
        for index in range(2):
            bench.one(bench.subscriber(topic, index), event).ack()
        removed = topology.delete()
        assert {change.action for change in removed} == {"delete"}
        assert {change.action for change in topology.plan()} == {"create"}

    def test_second_apply_is_a_no_op(self, bench: Bench) -> None:
        _may_create(bench)
        topic = bench.topic(2)
        bench.publish(topic, event := bench.event())
        topology = bench.broker(topic).topology
        assert topology.plan() == []
        assert topology.apply() == []
        bench.one(bench.subscriber(topic), event).ack()
        bench.one(bench.subscriber(topic, 1), event).ack()

    def test_difference_is_shown_and_applied(self, bench: Bench) -> None:
        _may_create(bench)
        topic = bench.topic(lease=30.0)
        bench.publish(topic, event := bench.event())
        changed = bench.like(
            topic,
            subscriptions=[
                Subscription("alpha", lease=45.0, max_attempts=5, redelivery=AT_ONCE),
                Subscription("bravo"),
            ],
        )
        topology = bench.broker(changed).topology
        planned = topology.plan()
        actions = {(change.action, change.name) for change in planned}
        assert ("create", f"{topic.name}/bravo") in actions
        assert ("update", f"{topic.name}/alpha") in actions, f"the new lease is not among the changes: {planned}"
        update = next(change for change in planned if change.action == "update")
        assert "30" in update.detail, f"the change does not say what there is: {update.detail}"
        assert "45" in update.detail, f"the change does not say what is wanted: {update.detail}"
        topology.apply()
        assert topology.plan() == []
        bench.one(bench.subscriber(changed), event).ack()

    def test_delete_removes(self, bench: Bench) -> None:
        _may_create(bench)
        topic = bench.topic()
        broker = bench.broker(topic)
        bench.publish(topic, bench.event())
        assert broker.topology.delete() != []
        assert broker.topology.delete() == [], "what is absent was deleted again"
        with pytest.raises(NotFoundError):
            bench.publishing(topic).publish(topic.name, bench.event())
        with pytest.raises(NotFoundError):
            bench.subscriber(topic).receive(wait=1)
        broker.topology.apply()
        bench.publish(topic, event := bench.event())
        bench.one(bench.subscriber(topic), event).ack()  # and nothing of the topic before it

    def test_delete_takes_the_named_topic_only(self, bench: Bench) -> None:
        _may_create(bench)
        kept, gone = bench.topic(), bench.topic()
        bench.publish(kept, event := bench.event())
        broker = bench.broker(kept, gone)
        broker.topology.delete(gone)
        bench.one(bench.subscriber(kept), event).ack()

    def test_create_missing(self, bench: Bench) -> None:
        _may_create(bench)
        topic, undeclared = bench.declare(2), bench.declare(0)
        broker = bench.broker(topic, create_missing=True)
        try:
            broker.publish(topic.name, event := bench.event())
            for index in range(2):
                bench.one(bench.subscriber(topic, index, broker=broker), event).ack()
            with broker.subscriber(undeclared.name, "alpha") as subscriber:
                assert subscriber.receive(wait=0) == []
                broker.publish(undeclared.name, event := bench.event())
                bench.one(subscriber, event).ack()
        finally:
            broker.topology.delete(topic, undeclared)

    def test_steady_state_makes_no_control_plane_call(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Shim()
        _work(bench, topic, shim)
        assert shim.control == [], f"publishing and receiving called {shim.control}"

    def test_steady_state_makes_no_native_control_plane_call(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.broker(topic).publish(topic.name, bench.event())  # so that a rig can say if it sees no requests
        bench.one(bench.subscriber(topic)).ack()
        before = bench.rig.control_plane_calls(bench.url)
        _work(bench, topic, Shim())
        assert bench.rig.control_plane_calls(bench.url) == before

    def test_create_missing_looks_once(self, bench: Bench) -> None:
        bench.requires(
            Capability.TOPOLOGY,
            lambda: bench.broker(bench.declare(), create_missing=True).publish("orders", bench.event()),
        )
        topic = bench.topic()
        shim = Shim()
        broker = bench.broker(topic, shim=shim, create_missing=True)
        for _ in range(5):
            broker.publish(topic.name, bench.event())
        calls = len(shim.control)
        assert calls <= 2, f"create_missing made {calls} calls: {shim.control}"
        bench.gather(bench.subscriber(topic, broker=broker), 5)
        assert len(shim.control) <= calls + 1, "receiving from a declared subscription looked again"

    def test_refusal_names_the_action(self, bench: Bench) -> None:
        class Denying(Shim):
            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                raise InjectedError(refused(ErrorCode.PERMISSION_DENIED, "not authorized to perform test:Publish"))

        topic = bench.topic()
        shim = Denying()
        with pytest.raises(PermissionDeniedError) as caught:
            bench.broker(topic, shim=shim).publish(topic.name, bench.event())
        assert "test:Publish" in str(caught.value)
        assert topic.name in str(caught.value)
        assert isinstance(caught.value.__cause__, InjectedError), "the native error is not the cause"
        assert len(shim.sends) == 1, "what was refused was tried again"

    @pytest.mark.parametrize("capability", list(Capability))
    def test_required_capability_is_there_or_refused(self, bench: Bench, capability: Capability) -> None:
        if capability in bench.capabilities:
            bench.topic()
            bench.broker(requires=[capability]).ping()
            return
        with pytest.raises(UnsupportedError) as caught:
            bench.rig.broker(bench.url, requires=[capability]).close()
        assert caught.value.code == ErrorCode.UNSUPPORTED
        bench.requires(capability, lambda: bench.rig.broker(bench.url, requires=[capability.value]))

    @pytest.mark.parametrize("format", ["terraform", "bicep", "commands"])
    def test_export_gives_text_or_is_refused(self, bench: Bench, format: str) -> None:
        topology = bench.broker(topic := bench.declare(1)).topology
        try:
            text = topology.export(format)  # type: ignore[arg-type]
        except UnsupportedError as refusal:
            refused_with, text = str(refusal), ""
        if text:
            assert topic.name in text
            return
        assert format in refused_with, f"the refusal does not name the format: {refused_with}"
        raise Unsupported(f"{format} is of no use to this broker, and was refused")

    @pytest.mark.parametrize("name", ["ab", "Orders", "orders_eu", "1orders", "orders-", "a" * 35, "\u00fcber"])
    def test_name_that_is_not_portable_is_refused(self, bench: Bench, name: str) -> None:
        broker = bench.broker()
        for use in (
            lambda: Topic(name),
            lambda: Subscription(name),
            lambda: broker.publish(name, bench.event()),
            lambda: broker.subscriber("orders", name),
        ):
            with pytest.raises(BridgeError) as caught:
                use()
            assert caught.value.code == ErrorCode.INVALID_ARGUMENT
            assert repr(name) in str(caught.value)


def _work(bench: Bench, topic: Topic, shim: Shim) -> None:
    """What a program does all day."""
    broker = bench.broker(topic, shim=shim)
    publisher = broker.publisher(topic.name)
    publisher.publish(bench.event())
    publisher.publish_many(bench.events(20))
    publisher.submit(bench.event())
    publisher.flush()
    subscriber = bench.subscriber(topic, broker=broker)
    bench.gather(subscriber, 20)
    bench.one(subscriber).nack(delay=0)
    bench.one(subscriber).dead_letter("the case wants it dead")
    bench.one(subscriber).ack()
    assert subscriber.receive(wait=0.1) == []
