"""Which handler takes an event, what it is given, and what comes out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge import router as rooms
from cloudevents_bridge.errors import ErrorCode, InvalidArgumentError
from cloudevents_bridge.handlers import run_here
from cloudevents_bridge.router import Middleware, pipeline
from cloudevents_bridge.testing import FakeBroker, make_event

Next = Callable[[ceb.Delivery], None]


@dataclass
class Order:
    id: int


class Recorder:
    """Handlers and middleware that say what they did."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def handler(self, name: str) -> Callable[[ceb.CloudEvent], None]:
        def handle(event: ceb.CloudEvent) -> None:
            self.said.append(f"{name} {event.type}")

        return handle

    def middleware(self, name: str) -> Middleware:
        def around(delivery: ceb.Delivery, call_next: Next) -> None:
            self.said.append(f"{name} in")
            try:
                call_next(delivery)
            finally:
                self.said.append(f"{name} out")

        return around

    def told(self) -> list[str]:
        said, self.said = self.said, []
        return said


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def route(router: ceb.Router, recorder: Recorder, *types: str) -> list[str]:
    for type in types:
        router.handle(make_event(type))
    return recorder.told()


class TestPatterns:
    def test_the_most_specific_wins_whatever_the_order(self, recorder: Recorder) -> None:
        for patterns in (["*", "a.*", "a.b.*", "a.b.c"], ["a.b.c", "a.b.*", "a.*", "*"]):
            router = ceb.Router()
            for pattern in patterns:
                router.on(pattern)(recorder.handler(pattern))
            said = route(router, recorder, "a.b.c", "a.b.d", "a.b.c.d", "a.x", "a.b", "a", "ab.c", "x")
            assert said == [
                "a.b.c a.b.c",
                "a.b.* a.b.d",
                "a.b.* a.b.c.d",
                "a.* a.x",
                "a.* a.b",
                "* a",
                "* ab.c",
                "* x",
            ]

    def test_one_handler_for_several_types(self, recorder: Recorder) -> None:
        router = ceb.Router()
        router.on("a", "b.*", "a")(recorder.handler("both"))
        assert route(router, recorder, "a", "b.c") == ["both a", "both b.c"]

    def test_a_type_that_looks_like_a_pattern_is_no_pattern(self, recorder: Recorder) -> None:
        router = ceb.Router()
        router.on("a.*")(recorder.handler("prefix"))
        router.on("*")(recorder.handler("any"))
        assert route(router, recorder, "*", "a.*") == ["any *", "prefix a.*"]

    def test_the_function_comes_back_unchanged(self) -> None:
        router = ceb.Router()

        def handler(event: ceb.CloudEvent) -> str:
            return "mine"

        assert router.on("a")(router.on("b")(handler)) is handler

    @pytest.mark.parametrize("pattern", ["", "a*", "*.a", "a.*.b", "a.**", "**", ".*", "a.b*"])
    def test_what_is_no_pattern_is_refused(self, pattern: str) -> None:
        with pytest.raises(InvalidArgumentError, match="no pattern of event types"):
            ceb.Router().on(pattern)

    def test_the_bare_decorator_is_refused(self) -> None:
        def handler(event: ceb.CloudEvent) -> None: ...

        with pytest.raises(TypeError, match=r'write @router\.on\("com'):
            ceb.Router().on(handler)  # type: ignore[arg-type]

    def test_two_handlers_for_one_pattern_are_an_error_and_neither_is_half_there(self, recorder: Recorder) -> None:
        router = ceb.Router(unmatched="ack")
        router.on("a")(recorder.handler("first"))
        with pytest.raises(InvalidArgumentError, match=r"'a' has two handlers, .*handle and .*handle"):
            router.on("b", "a")(recorder.handler("second"))
        assert route(router, recorder, "a", "b") == ["first a"]

    def test_what_is_added_after_use_takes_effect(self, recorder: Recorder) -> None:
        router = ceb.Router()
        call = pipeline(router, run_here)
        router.on("*")(recorder.handler("any"))
        with FakeBroker() as fake:
            assert fake.deliver(router, make_event("a")).action == "ack"
            call(delivery("a"))
            router.on("a")(recorder.handler("exact"))
            call(delivery("a"))
            assert fake.deliver(router, make_event("a")).action == "ack"
        assert recorder.told() == ["any a", "any a", "exact a", "exact a"]

    def test_a_handler_that_cannot_be_filled_is_refused_at_once(self) -> None:
        router = ceb.Router(unmatched="ack")
        with pytest.raises(TypeError, match="asks for the data twice"):

            @router.on("a")
            def handler(one: Order, other: dict[str, int]) -> None: ...

        router.handle(make_event("a"))

    def test_its_repr_says_what_it_takes(self) -> None:
        router = ceb.Router()
        assert repr(router) == "<Router of nothing yet>"
        router.on("b", "a.*")(lambda event: None)
        assert repr(router) == "<Router of a.*, b>"

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rooms, "MAX_TYPES", 10)
        router = ceb.Router(unmatched="ack")
        router.on("a.*")(lambda event: None)
        for number in range(100):
            router.handle(make_event(f"a.{number}"))
            router.handle(make_event(f"b.{number}"))
            assert len(router._here._known[1]) <= 10
        router._here._known[1].clear()
        router.handle(make_event("a." + "x" * 10_000))
        assert not router._here._known[1]


def delivery(type: str = "com.example.test") -> ceb.Delivery:
    from cloudevents_bridge.handlers import alone

    return alone(make_event(type))


class TestUnmatched:
    @pytest.mark.parametrize(
        ("unmatched", "expected"), [("dead_letter", ceb.Reject), ("nack", ceb.Retry)], ids=lambda value: str(value)
    )
    def test_by_policy(self, unmatched: Literal["nack", "dead_letter"], expected: type[Exception]) -> None:
        router = ceb.Router(unmatched=unmatched)
        with pytest.raises(expected, match=r"no handler takes the type 'com\.example\.test'"):
            router.handle(make_event())
        with FakeBroker() as fake:
            outcome = fake.deliver(router, make_event())
        assert outcome.action == unmatched
        assert isinstance(outcome.error, expected)

    def test_the_default_is_a_dead_letter_with_the_reason(self) -> None:
        with FakeBroker() as fake:
            assert fake.deliver(ceb.Router(), make_event("com.example.x")).reason == (
                "no handler takes the type 'com.example.x'"
            )

    def test_ack(self) -> None:
        with FakeBroker() as fake:
            assert fake.deliver(ceb.Router(unmatched="ack"), make_event()).action == "ack"

    def test_another_word_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="'drop'"):
            ceb.Router(unmatched="drop")  # type: ignore[arg-type]

    def test_the_middleware_sees_it(self, recorder: Recorder) -> None:
        router = ceb.Router(middleware=[recorder.middleware("a")])
        with pytest.raises(ceb.Reject):
            router.handle(make_event())
        assert recorder.told() == ["a in", "a out"]


class TestInclude:
    def test_its_handlers_are_taken_and_its_middleware_stays_around_them(self, recorder: Recorder) -> None:
        inner = ceb.Router(middleware=[recorder.middleware("inner")], unmatched="ack")
        outer = ceb.Router(middleware=[recorder.middleware("one"), recorder.middleware("two")])
        inner.on("a")(recorder.handler("of inner"))
        outer.on("b")(recorder.handler("of outer"))
        outer.include(inner)
        assert route(outer, recorder, "a") == [
            *("one in", "two in", "inner in"),
            "of inner a",
            *("inner out", "two out", "one out"),
        ]
        assert route(outer, recorder, "b") == ["one in", "two in", "of outer b", "two out", "one out"]
        with pytest.raises(ceb.Reject):  # the outer one's word
            outer.handle(make_event("c"))
        recorder.told()
        assert route(inner, recorder, "a") == ["inner in", "of inner a", "inner out"]

    def test_the_most_specific_of_all_wins(self, recorder: Recorder) -> None:
        inner, outer = ceb.Router(), ceb.Router()
        outer.on("a.*")(recorder.handler("outer"))
        inner.on("a.b")(recorder.handler("inner"))
        inner.on("*")(recorder.handler("any"))
        outer.include(inner)
        assert route(outer, recorder, "a.b", "a.c", "x") == ["inner a.b", "outer a.c", "any x"]

    def test_handlers_added_to_it_later_are_taken_too(self, recorder: Recorder) -> None:
        top, middle, bottom = ceb.Router(), ceb.Router(), ceb.Router(middleware=[recorder.middleware("bottom")])
        top.include(middle)
        middle.include(bottom)
        bottom.on("a")(recorder.handler("late"))
        assert route(top, recorder, "a") == ["bottom in", "late a", "bottom out"]
        top.on("b")(recorder.handler("of top"))
        with pytest.raises(InvalidArgumentError, match="'b' has two handlers"):
            bottom.on("b")(recorder.handler("clash"))
        with pytest.raises(ceb.Reject):
            bottom.handle(make_event("b"))

    def test_a_clash_is_an_error_and_nothing_is_taken(self, recorder: Recorder) -> None:
        one, other = ceb.Router(), ceb.Router()
        one.on("a")(recorder.handler("one"))
        other.on("a")(recorder.handler("other"))
        other.on("b")(recorder.handler("other"))
        with pytest.raises(InvalidArgumentError, match="'a' has two handlers"):
            one.include(other)
        with pytest.raises(ceb.Reject):
            one.handle(make_event("b"))
        other.on("c")(recorder.handler("late"))
        with pytest.raises(ceb.Reject):
            one.handle(make_event("c"))

    def test_a_router_is_included_once_and_never_in_itself(self) -> None:
        top, left, right, shared = (ceb.Router() for _ in range(4))
        top.include(left)
        left.include(shared)
        for into, what in [(top, left), (top, top), (shared, top), (top, shared)]:
            with pytest.raises(InvalidArgumentError, match="include it once"):
                into.include(what)
        right.include(shared)  # by itself it may be in two
        with pytest.raises(InvalidArgumentError, match="include it once"):
            top.include(right)
        with pytest.raises(TypeError, match="not a int"):
            top.include(7)  # type: ignore[arg-type]


class TestMiddleware:
    def test_what_the_handler_raises_passes_through(self) -> None:
        seen: list[BaseException] = []
        error = ValueError("no")

        def watch(delivery: ceb.Delivery, call_next: Next) -> None:
            try:
                call_next(delivery)
            except ValueError as raised:
                seen.append(raised)
                raise

        router = ceb.Router(middleware=[watch])

        @router.on("*")
        async def handler(event: ceb.CloudEvent) -> None:
            await asyncio.sleep(0)
            raise error

        with pytest.raises(ValueError, match="no") as caught:
            router.handle(make_event())
        assert caught.value is error
        assert seen == [error]

    def test_one_that_does_not_go_on_is_the_end_of_it(self, recorder: Recorder) -> None:
        router = ceb.Router(middleware=[lambda delivery, call_next: None])
        router.on("*")(recorder.handler("never"))
        with FakeBroker() as fake:
            assert fake.deliver(router, make_event()).action == "ack"
        assert recorder.told() == []

    def test_an_async_one_is_refused_before_it_loses_events(self) -> None:
        async def around(delivery: ceb.Delivery, call_next: Next) -> None:
            call_next(delivery)

        class Around:
            async def __call__(self, delivery: ceb.Delivery, call_next: Next) -> None: ...

        for middleware in (around, Around()):
            with pytest.raises(TypeError, match="use `def`"):
                ceb.Router(middleware=[middleware])  # type: ignore[list-item]
        router = ceb.Router(middleware=[lambda delivery, call_next: around(delivery, call_next)])  # type: ignore[list-item]
        router.on("*")(lambda event: None)
        with pytest.raises(TypeError, match="gave a coroutine"):
            router.handle(make_event())

    def test_what_cannot_be_called_is_refused(self) -> None:
        with pytest.raises(TypeError, match="'log' cannot be called"):
            ceb.Router(middleware=["log"])  # type: ignore[list-item]

    def test_with_an_event_alone_there_is_a_delivery_that_says_so(self) -> None:
        seen: list[ceb.Delivery] = []

        def keep(delivery: ceb.Delivery, call_next: Next) -> None:
            seen.append(delivery)
            call_next(delivery)

        router = ceb.Router(middleware=[keep])
        router.on("*")(lambda event: None)
        router.handle(make_event())
        [given] = seen
        assert (given.event, given.topic, given.subscription, given.attempt) == (make_event(), "", "", 1)
        assert not given.lease_lost
        settling: list[Callable[[], None]] = [
            given.ack,
            given.nack,
            given.give_back,
            lambda: given.dead_letter("no"),
            lambda: given.extend(5),
        ]
        for settle in settling:
            with pytest.raises(ceb.BridgeError, match="no delivery to settle") as caught:
                settle()
            assert caught.value.code == ErrorCode.FAILED_PRECONDITION


class TestHandle:
    def test_a_delivery_is_handled_and_not_settled(self, ceb_broker: FakeBroker) -> None:
        seen: list[ceb.Delivery] = []
        router = ceb.Router()

        @router.on("*")
        def handler(order: Order, delivery: ceb.Delivery) -> None:
            assert order == Order(7)
            seen.append(delivery)

        ceb_broker.broker.publish("orders", make_event(data={"id": 7}))
        with ceb_broker.broker.subscriber("orders", "billing") as subscriber:
            [received] = subscriber.receive(wait=5)
            router.handle(received)
            assert seen == [received]
            received.ack()

    def test_a_handler_that_wants_the_delivery_is_told_that_there_is_none(self) -> None:
        router = ceb.Router()

        @router.on("*")
        def handler(delivery: ceb.Delivery) -> None: ...

        with pytest.raises(ceb.BridgeError, match=r"handler asks for the delivery, and there is none: event test-1"):
            router.handle(make_event())

    def test_data_that_does_not_fit_is_a_reject_with_its_cause(self) -> None:
        router = ceb.Router()
        router.on("by.parameter")(by_parameter)
        router.on("by.hand")(by_hand)
        router.on("in.loop")(in_loop)
        for type in ("by.parameter", "by.hand", "in.loop"):
            with pytest.raises(ceb.Reject, match=r"data of event 'test-1'.*\$\.id") as caught:
                router.handle(make_event(type, data={"id": "seven"}))
            assert isinstance(caught.value.__cause__, ceb.DecodeError)

    def test_what_else_a_handler_cannot_decode_is_a_failure_like_any(self) -> None:
        router = ceb.Router()

        @router.on("*")
        def handler(event: ceb.CloudEvent) -> None:
            ceb.CloudEvent.from_json(b"<html>502</html>")

        @router.on("other")
        def other(event: ceb.CloudEvent) -> None:
            make_event(id="another", data={"id": "seven"}).data_as(Order)

        for type in ("any", "other"):
            with pytest.raises(ceb.DecodeError):
                router.handle(make_event(type))

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(TypeError, match="not a dict"):
            ceb.Router().handle({"type": "a"})  # type: ignore[arg-type]


def by_parameter(order: Order) -> None: ...


def by_hand(event: ceb.CloudEvent) -> None:
    event.data_as(Order)


async def in_loop(order: Order) -> None: ...


class TestInsideARunningLoop:
    """A thread cannot wait for its own event loop."""

    @pytest.fixture(params=["alone", "under middleware"])
    def router(self, request: pytest.FixtureRequest, recorder: Recorder) -> ceb.Router:
        router = ceb.Router(middleware=[recorder.middleware("a")] if request.param != "alone" else [])
        router.on("in.loop")(in_loop)
        router.on("plain")(by_parameter)
        return router

    def test_an_async_handler_is_a_clear_error_and_leaves_no_coroutine(self, router: ceb.Router) -> None:
        async def program() -> None:
            with pytest.raises(ceb.BridgeError, match=r"asyncio\.to_thread") as caught:
                router.handle(make_event("in.loop", data={"id": 7}))
            assert caught.value.code == ErrorCode.FAILED_PRECONDITION
            router.handle(make_event("plain", data={"id": 7}))
            await asyncio.to_thread(router.handle, make_event("in.loop", data={"id": 7}))

        asyncio.run(program())

    def test_so_it_is_for_the_fake_broker(self, router: ceb.Router) -> None:
        event = make_event("in.loop", data={"id": 7})

        async def program() -> None:
            with FakeBroker() as fake:
                with pytest.raises(ceb.BridgeError, match=r"asyncio\.to_thread"):
                    fake.deliver(router, event)
                fake.broker.publish("orders", event)
                with pytest.raises(ceb.BridgeError, match=r"asyncio\.to_thread"):
                    fake.drain("orders", "billing", router)
                outcome = await asyncio.to_thread(fake.deliver, router, event)
                assert outcome.action == "ack"
                assert [o.action for o in await asyncio.to_thread(fake.drain, "orders", "billing", router)] == ["ack"]

        asyncio.run(program())


class TestPipeline:
    def test_an_async_handler_alone_gives_its_coroutine(self) -> None:
        ran: list[object] = []

        async def handler(order: Order) -> None:
            ran.append(order)

        router = ceb.Router()
        router.on("*")(handler)
        for each in (handler, router):
            result: Any = pipeline(each, ran.append)(delivery_of({"id": 7}))
            assert asyncio.iscoroutine(result)
            assert ran == []
            asyncio.run(result)
            assert ran == [Order(7)]
            ran.clear()

    def test_under_middleware_it_is_run_by_what_the_caller_gave(self, recorder: Recorder) -> None:
        def run(coroutine: Any) -> None:
            recorder.said.append("run")
            asyncio.run(coroutine)

        async def handler(event: ceb.CloudEvent) -> None:
            recorder.said.append("handler")

        router = ceb.Router(middleware=[recorder.middleware("a")])
        router.on("*")(handler)
        assert pipeline(router, run)(delivery()) is None
        assert recorder.told() == ["a in", "run", "handler", "a out"]

    def test_many_threads_and_late_handlers(self) -> None:
        router = ceb.Router(unmatched="nack")
        counts = dict.fromkeys(range(200), 0)
        lock = threading.Lock()
        done = threading.Event()
        failures: list[BaseException] = []

        def handler(number: int) -> Callable[[ceb.CloudEvent], None]:
            def handle(event: ceb.CloudEvent) -> None:
                with lock:
                    counts[number] += 1
                if event.type != f"t.{number}":
                    failures.append(AssertionError(f"{event.type} went to {number}"))

            return handle

        def use() -> None:
            call = pipeline(router, run_here)
            try:
                while not done.is_set():
                    for number in counts:
                        try:
                            call(delivery(f"t.{number}"))
                        except ceb.Retry:
                            break  # not there yet
            except BaseException as error:  # noqa: BLE001 - told by the test
                failures.append(error)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in counts:
            router.on(f"t.{number}")(handler(number))
            router.handle(make_event(f"t.{number}"))  # from then on
        done.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert all(counts.values())


def delivery_of(data: object) -> ceb.Delivery:
    from cloudevents_bridge.handlers import alone

    return alone(make_event(data=data))
