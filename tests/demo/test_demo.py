from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge import connect
from cloudevents_bridge.demo import run, stage
from cloudevents_bridge.demo.orders import FILE, Order, Refused, read_orders
from cloudevents_bridge.demo.report import Feed, Summary, show
from cloudevents_bridge.demo.shop import ORDERS, publish

NAMES = [each.name for each in ORDERS.subscriptions]


def url_of(workdir: Path) -> str:
    return f"sqlite:///{workdir / 'events.db'}"


def check_sums(told: dict[str, Any]) -> None:
    feeds = told["subscriptions"]
    assert told["complete"]
    assert told["lines"] == len(FILE.read_bytes().splitlines())
    assert told["published"] + len(told["refused"]) == told["lines"]
    assert list(feeds) == NAMES
    for name, feed in feeds.items():
        poison = 1 if name == "payment" else 0
        assert feed["dead_lettered"] == poison
        assert feed["consumed"] == told["published"] - poison
        assert (feed["retried"] > 0) is (name == "payment")


def test_all_orders_get_where_they_should_and_a_second_run_starts_afresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "a shop"
    assert run(workdir, as_json=True) == 0
    first = json.loads(capsys.readouterr().out)
    check_sums(first)

    with connect(first["url"]) as broker:
        (letter,) = broker.dead_letters("orders", "payment").find()
        assert letter.event is not None
        assert letter.event.data["payment"]["token"] == "tok_0000000000"
        assert letter.attempts == 4
        assert "does not know card tok_0000000000" in (letter.error or letter.reason)

    for command, says in zip(first["next"], [letter.id, "replayed 1", letter.event.id], strict=True):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert says in done.stdout, (command, done.stdout)

    assert run(workdir, as_json=True) == 0
    second = json.loads(capsys.readouterr().out)
    check_sums(second)
    assert second["refused"] == first["refused"]


def test_no_process_is_left_when_the_demo_is_interrupted(tmp_path: Path) -> None:
    with connect(url_of(tmp_path), topics=[ORDERS]) as broker:
        broker.topology.apply()
    children: list[subprocess.Popen[str]] = []

    def interrupted() -> None:
        with stage._children() as start:
            children.extend(start("consume", url_of(tmp_path), name) for name in NAMES)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(children) == len(NAMES)
    assert all(child.poll() is not None for child in children)


def test_it_reads_no_configuration_but_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bridge.toml").write_text("this is no TOML")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOUDEVENTS_BRIDGE_CONFIG", str(tmp_path / "missing.toml"))
    monkeypatch.setenv("CLOUDEVENTS_BRIDGE_URL", "nothing://at-all")
    assert run() == 0
    assert "The broker is sqlite:///ceb-demo/events.db;" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_ends_the_demo_quietly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cloudevents_bridge", "demo", "--workdir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline().startswith("orders.ndjson")
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert out == ""
    assert "Traceback" not in err


def consume(tmp_path: Path, told: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cloudevents_bridge.demo", "consume", url_of(tmp_path), "analytics"]
    return subprocess.run(command, input=told, capture_output=True, text=True, timeout=60, check=False)


def test_an_order_that_comes_twice_counts_once(tmp_path: Path) -> None:
    first, second = islice(read_orders(FILE), 2)
    assert isinstance(first, Order)
    with connect(url_of(tmp_path), topics=[ORDERS], create_missing=True) as broker:
        assert publish(broker, [first, first, second]) == (3, [])
        done = consume(tmp_path, "2\n")
        assert json.loads(done.stdout)["consumed"] == 2
        with broker.subscriber("orders", "analytics") as subscriber:
            left = {delivery.event.id for delivery in subscriber.receive(wait=0)}
        assert left <= {first.id}, "it ended before it had seen them all"  # twice, perhaps, it need not see one


def test_a_consumer_ends_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    with connect(url_of(tmp_path), topics=[ORDERS]) as broker:
        broker.topology.apply()
    done = consume(tmp_path, "")
    assert done.returncode == 0
    assert json.loads(done.stdout)["consumed"] == 0
    assert done.stderr == ""


def test_a_consumer_that_cannot_go_on_says_why(tmp_path: Path) -> None:
    with connect(url_of(tmp_path), topics=[ORDERS]) as broker:
        broker.topology.apply()
        broker.topology.delete()
    done = consume(tmp_path, "391\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "consume analytics: topic orders does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_that_fails_ends_the_demo_with_its_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "FILE", tmp_path / "no orders")
    assert run(tmp_path, as_json=True) == 1
    told = capfd.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    assert "no orders" in told.err
    assert "ended with exit code 1" in told.err


def test_people_see_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary(
        url="sqlite:///ceb-demo/events.db",
        lines=12,
        published=10,
        refused=[Refused(3, "Expected `array`, got `str` - at `$.items[0]`"), Refused(7, "the line is empty")],
        subscriptions={"payment": Feed(9, 4, 1, "charged"), "analytics": Feed(10, 0, 0, "counted")},
        seconds=1.25,
        next=["ceb --url sqlite:///ceb-demo/events.db dead-letters list orders/payment"],
    )
    assert summary.complete
    show(summary)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "10 of 12 lines published, 2 refused" in out
    assert "line   3  Expected `array`, got `str` - at `$.items[0]`\n" in out
    assert ["payment", "9", "4", "1", "charged"] in [line.split() for line in out.splitlines()]
    assert f"  {summary.next[0]}\n" in out
    assert "do not add up" not in out


@pytest.mark.parametrize("feed", [Feed(9, 0, 0, ""), Feed(10, 0, 1, "")])
def test_numbers_that_do_not_add_up_are_said(feed: Feed, capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary("sqlite:///x.db", 10, 10, [], {"payment": feed}, 1.0, [])
    assert not summary.complete
    show(summary)
    assert "do not add up" in capsys.readouterr().out
