from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge import Broker, CloudEvent, connect

Ceb = Callable[..., Any]


def event(number: int, type: str = "com.example.order.created", source: str = "/shop") -> CloudEvent:
    return CloudEvent(type=type, source=source, id=str(number), data={"n": number})


def test_what_is_only_shown_is_given_back_at_once(ceb: Ceb, broker: Broker) -> None:
    broker.publish_many("orders", [event(n) for n in range(3)])
    result = ceb("receive", "orders/billing", "--json")
    assert [each["id"] for each in result.lines] == ["0", "1", "2"]
    assert "given back: 3" in result.err
    assert "spends an attempt" in result.err
    with broker.subscriber("orders", "billing") as subscriber:
        assert len(subscriber.receive(10, wait=0)) == 3


def test_showing_never_makes_a_dead_letter(ceb: Ceb, broker: Broker) -> None:
    broker.publish("orders", event(1))
    for _ in range(7):
        assert len(ceb("receive", "orders/billing", "--json").lines) == 1
    assert ceb("dl", "list", "orders/billing", "--json").lines == []


def test_ack(ceb: Ceb, broker: Broker) -> None:
    broker.publish_many("orders", [event(n) for n in range(30)])
    assert len(ceb("receive", "orders/billing", "--ack", "--json", "-n", "20").lines) == 20
    assert len(ceb("receive", "orders/billing", "--ack", "--json", "-n", "20").lines) == 10
    assert ceb("receive", "orders/billing", "--wait", "0") == (
        0,
        "",
        "nothing to deliver from orders/billing within 0 s\n",
    )


def test_people_see_attributes_and_data(ceb: Ceb, broker: Broker) -> None:
    broker.publish("orders", event(1).replace(data="a\x1b]0;evil\x07b", datacontenttype="text/plain"))
    broker.publish("orders", event(2).replace(data=b"\xff\x00", datacontenttype="image/png"))
    out = ceb("receive", "orders/billing").out
    assert "com.example.order.created  /shop  id=1" in out
    assert "a\\x1b]0;evil\\x07b" in out
    assert "(image/png, 2 bytes)" in out
    assert "\x1b" not in out


def test_long_data_is_cut_unless_verbose(ceb: Ceb, broker: Broker) -> None:
    broker.publish("orders", event(1).replace(data="x" * 5000, datacontenttype="text/plain"))
    assert "(5000 characters; -v shows all)" in ceb("receive", "orders/billing").out
    assert "x" * 5000 in ceb("receive", "orders/billing", "-v").out


def dead(
    broker: Broker, number: int, type: str = "com.example.order.created", reason: str = "no such customer"
) -> None:
    broker.publish("orders", event(number, type))
    with broker.subscriber("orders", "billing") as subscriber:
        [delivery] = subscriber.receive(1, wait=5)
        delivery.dead_letter(reason)


class TestDeadLetters:
    def test_list_and_show(self, ceb: Ceb, broker: Broker) -> None:
        dead(broker, 1)
        dead(broker, 2, type="com.example.order.paid", reason="card refused")
        first, second = ceb("dead-letters", "list", "orders/billing", "--json").lines
        assert (first["reason"], first["event"]["id"], first["attempts"]) == ("no such customer", "1", 1)
        assert second["event"]["data"] == {"n": 2}
        table = ceb("dl", "list", "orders/billing").out
        assert table.splitlines()[0].split() == ["ID", "DIED", "(UTC)", "ATTEMPTS", "TYPE", "REASON"]
        assert second["id"] in table
        shown = ceb("dl", "show", "orders/billing", second["id"]).out
        assert "reason: card refused" in shown
        assert '{"n":2}' in shown
        assert ceb("dl", "show", "orders/billing", first["id"], "--json").json["event"]["id"] == "1"
        raw = ceb("dl", "show", "orders/billing", first["id"], "--raw").out
        assert CloudEvent.from_json(raw).id == "1"

    @pytest.mark.parametrize(
        ("words", "ids"),
        [
            ((), ["1", "2", "3"]),
            (("-n", "2"), ["1", "2"]),
            (("--type", "com.example.order.paid"), ["2"]),
            (("--type", "com.example.*"), ["1", "2"]),
            (("--reason", "CARD"), ["2"]),
            (("--since", "1h"), ["1", "2", "3"]),
            (("--since", "2999-01-01"), []),
        ],
    )
    def test_filters(self, ceb: Ceb, broker: Broker, words: tuple[str, ...], ids: list[str]) -> None:
        dead(broker, 1)
        dead(broker, 2, type="com.example.order.paid", reason="card refused")
        dead(broker, 3, type="org.example")
        result = ceb("dl", "list", "orders/billing", "--json", *words)
        assert [each["event"]["id"] for each in result.lines] == ids

    def test_replay(self, ceb: Ceb, broker: Broker) -> None:
        for number in (1, 2, 3):
            dead(broker, number)
        ids = [each["id"] for each in ceb("dl", "list", "orders/billing", "--json").lines]
        dry = ceb("dl", "replay", "orders/billing", ids[0], "--dry-run", "--json")
        assert dry.lines == [{"id": ids[0]}]
        assert ceb("dl", "replay", "orders/billing", ids[0]).out == "replayed 1 of orders/billing\n"
        assert [each["id"] for each in ceb("receive", "orders/billing", "--ack", "--json").lines] == ["1"]
        assert len(ceb("dl", "replay", "orders/billing", "--all", "-n", "1", "--json").lines) == 1
        assert ceb("dl", "replay", "orders/billing", "--reason", "customer", "--to", "orders").code == 0
        assert ceb("dl", "list", "orders/billing", "--json").lines == []
        assert len(ceb("receive", "orders/billing", "--json").lines) == 2

    def test_replay_by_filters_at_a_rate_to_its_own_subscription(self, ceb: Ceb, broker: Broker) -> None:
        for number in range(6):
            dead(broker, number, type="com.example.order.paid" if number % 2 else "com.example.order.created")
        with broker.subscriber("orders", "stock") as other:
            other.ack_many(other.receive(10))
        before = {each["id"] for each in ceb("dl", "list", "orders/billing", "--json").lines}
        paid = ("--type", "com.example.order.paid", "--since", "1h")
        dry = ceb("dl", "replay", "orders/billing", *paid, "--dry-run")
        assert dry.out.count("would replay") == 3
        assert {each["id"] for each in ceb("dl", "list", "orders/billing", "--json").lines} == before
        assert ceb("dl", "replay", "orders/billing", *paid, "--since", "2999-01-01").out.startswith("replayed 0")
        began = time.monotonic()
        assert ceb("dl", "replay", "orders/billing", *paid, "--rate", "10").out == "replayed 3 of orders/billing\n"
        assert time.monotonic() - began >= 0.2
        assert {each["id"] for each in ceb("dl", "list", "orders/billing", "--json").lines} < before
        again = ceb("receive", "orders/billing", "--ack", "--json").lines
        assert sorted(each["id"] for each in again) == ["1", "3", "5"]
        assert ceb("receive", "orders/stock", "--wait", "0", "--json").out == ""

    def test_a_letter_that_dies_again_has_the_same_id(self, ceb: Ceb, broker: Broker) -> None:
        dead(broker, 1)
        [first] = ceb("dl", "list", "orders/billing", "--json").lines
        ceb("dl", "replay", "orders/billing", "--all")
        with broker.subscriber("orders", "billing") as subscriber:
            subscriber.receive(1, wait=5)[0].dead_letter("still no such customer")
        [again] = ceb("dl", "list", "orders/billing", "--json").lines
        assert (again["id"], again["reason"]) == (first["id"], "still no such customer")

    def test_purge_asks(self, ceb: Ceb, broker: Broker) -> None:
        dead(broker, 1)
        dead(broker, 2, reason="card refused")
        refused = ceb("dl", "purge", "orders/billing", "--all")
        assert refused.code == 2
        assert "give --yes" in refused.err
        assert ceb("dl", "purge", "orders/billing", "--reason", "card", "--yes").out == "purged 1 of orders/billing\n"
        assert ceb("dl", "purge", "orders/billing", "--all", "--yes", "--json").json == {"purged": 1}
        assert "no dead letters of orders/billing" in ceb("dl", "list", "orders/billing").err

    def test_unknown_ids(self, ceb: Ceb, broker: Broker) -> None:
        dead(broker, 1)
        for words in (("show",), ("replay",), ("replay", "--dry-run"), ("purge", "--yes")):
            result = ceb("dl", words[0], "orders/billing", "ffffffff", *words[1:])
            assert (result.code, result.out) == (3, ""), words
            assert "ffffffff" in result.err
        assert len(ceb("dl", "list", "orders/billing", "--json").lines) == 1


class TestTopology:
    def test_plan_apply_delete(self, ceb: Ceb, tmp_path: Path) -> None:
        (tmp_path / "bridge.toml").write_text(
            'default="p"\n[topics.orders]\nsubscriptions=["billing"]\n[profiles.p]\nurl="sqlite:///e.db"'
        )
        plan = ceb("topology", "plan")
        assert (plan.code, plan.out) == (1, "create topic orders\ncreate subscription orders/billing\n")
        assert [each["action"] for each in ceb("topology", "plan", "--json").lines] == ["create", "create"]
        live = ceb("topology", "show", "--live")
        assert "missing" in live.out
        asked = ceb("topology", "apply")
        assert asked.code == 2
        assert "give --yes" in asked.err
        assert ceb("topology", "apply", "--yes").code == 0
        plan = ceb("topology", "plan")
        assert (plan.code, plan.out) == (0, "")
        assert ceb("topology", "apply").code == 0
        assert "missing" not in ceb("topology", "show", "--live").out
        assert ceb("topology", "delete").code == 2
        assert "deleted 1" in ceb("topology", "delete", "--yes").err
        assert ceb("topology", "plan").code == 1

    def test_show(self, ceb: Ceb, project: Path) -> None:
        [topic] = ceb("topology", "show", "--json").lines
        assert [each["name"] for each in topic["subscriptions"]] == ["billing", "stock"]
        [topic] = ceb("topology", "show", "--live", "--json").lines
        assert topic["live"] == topic["subscriptions"][0]["live"] == "ok"
        assert "orders/billing  max_attempts=5, lease=60s" in ceb("topology", "show").out

    def test_what_sqlite_has_no_use_for(self, ceb: Ceb, project: Path) -> None:
        for words in (("export", "terraform"), ("policy", "publisher")):
            assert ceb("topology", *words).code == 2

    def test_nothing_declared(self, ceb: Ceb) -> None:
        for word in ("show", "plan", "apply", "delete"):
            result = ceb("--url", "memory://", "topology", word)
            assert result.code == 2
            assert "no topics are declared: write [topics.NAME]" in result.err


class TestCheck:
    def test_all_is_well(self, ceb: Ceb, project: Path) -> None:
        result = ceb("check", "--json")
        assert result.code == 0
        assert {each["what"]: each["result"] for each in result.lines} == dict.fromkeys(
            [
                "configuration",
                "capabilities",
                "reach and authenticate",
                "topic orders",
                "subscription orders/billing",
                "subscription orders/stock",
            ],
            "ok",
        )

    def test_what_is_missing(self, ceb: Ceb, project: Path) -> None:
        result = ceb("check", "orders/billing", "orders/nope", "nothing-here", "--json")
        assert result.code == 1
        assert {
            each["what"]: each["result"] for each in result.lines if "/" in each["what"] or "topic" in each["what"]
        } == {
            "topic orders": "ok",
            "subscription orders/billing": "ok",
            "subscription orders/nope": "failed",
            "topic nothing-here": "failed",
        }

    def test_what_differs(self, ceb: Ceb, project: Path) -> None:
        project.write_text(project.read_text() + "\n[profiles.local.topics.orders]\nordered = true\n")
        result = ceb("check", "orders")
        assert result.code == 1
        assert "ordered" in result.out

    def test_offline_and_all_profiles(self, ceb: Ceb, project: Path) -> None:
        project.write_text(
            project.read_text() + '[profiles.broken]\nurl = "nosuch://x"\n[profiles.other]\nurl="memory://"'
        )
        result = ceb("check", "--offline", "--all-profiles", "--json")
        assert result.code == 1
        assert [(each["profile"], each["result"]) for each in result.lines] == [
            ("local", "ok"),
            ("local", "ok"),
            ("broken", "ok"),
            ("broken", "failed"),
            ("other", "ok"),
            ("other", "ok"),
        ]

    def test_rights_that_cannot_be_probed_are_not_said_to_be_there(self, ceb: Ceb, project: Path) -> None:
        result = ceb("check", "--as", "consumer", "--json")
        assert result.lines[-1]["result"] == "not checked"


class TestInfo:
    def test_values_and_origins(self, ceb: Ceb, project: Path) -> None:
        result = ceb("info", "--json").json
        settings = {each["key"]: (each["value"], each["origin"]) for each in result["settings"]}
        assert settings["profile"] == ("local", f"{project}: default")
        assert settings["url"] == (f"sqlite:///{project.parent / 'events.db'}", f"{project}: profiles.local.url")
        assert settings["topic orders"] == ("billing, stock", f"{project}: topics")
        assert result["adapters"]["sqlite"].startswith("cloudevents-bridge ")
        table = ceb("info").out
        assert "profiles.local.url" in table

    def test_it_answers_without_a_configuration(self, ceb: Ceb) -> None:
        result = ceb("info")
        assert result.code == 0
        assert "no broker is configured" in result.out

    def test_options_may_be_secret(self, ceb: Ceb, tmp_path: Path) -> None:
        (tmp_path / "bridge.toml").write_text('default="p"\n[profiles.p]\nurl="memory://"\noptions={ a = "hunter2" }')
        assert "hunter2" not in ceb("info").out


def test_the_url_of_the_environment(ceb: Ceb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    monkeypatch.setenv("CLOUDEVENTS_BRIDGE_URL", url)
    with connect(url, create_missing=True) as broker:
        with broker.subscriber("orders", "billing") as subscriber:
            subscriber.receive(1, wait=0)
        assert ceb("publish", "orders", "--type", "t", "--id", "7").code == 0
        assert json.loads(ceb("receive", "orders/billing", "--json").out)["id"] == "7"
