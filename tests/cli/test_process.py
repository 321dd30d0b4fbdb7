"""What only a real process shows: signals, pipes, start-up time, completion."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from cloudevents_bridge import Broker, CloudEvent

Ceb = Callable[..., Any]
Process = Callable[..., "subprocess.Popen[str]"]
PATIENCE = 30.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


def names_of_tails(broker: Broker) -> list[str]:
    import sqlite3

    with sqlite3.connect(broker.url.removeprefix("sqlite:///")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [str(row) for table in tables for row in database.execute(f'SELECT * FROM "{table}"')]
    database.close()
    return [row for row in rows if "ceb-tail-" in row]


def read_until(stream: IO[str] | None, text: str) -> str:
    assert stream is not None
    for line in stream:
        if text in line:
            return line
    pytest.fail(f"the process ended without {text!r}")


def event(number: int, type: str = "t") -> CloudEvent:
    return CloudEvent(type=type, source="/s", id=str(number), data={"n": number})


def test_the_whole_way(start: Process, project: Path) -> None:
    publish = start("publish", "orders", "--type", "t", stdin=subprocess.PIPE)
    out, err = publish.communicate('{"id":7}\n', timeout=PATIENCE)
    assert (publish.returncode, err) == (0, "")
    assert out.startswith("published ")
    receive = start("receive", "orders/billing", "--ack", "--json")
    out, err = receive.communicate(timeout=PATIENCE)
    assert json.loads(out)["data"] == {"id": 7}
    again = start("receive", "orders/billing", "--wait", "0")
    out, err = again.communicate(timeout=PATIENCE)
    assert (again.returncode, out) == (0, "")


def test_no_stdin_at_all_is_no_data(start: Process, broker: Broker) -> None:
    publish = start("publish", "orders", "--type", "t")
    publish.communicate(timeout=PATIENCE)
    with broker.subscriber("orders", "billing") as subscriber:
        [delivery] = subscriber.receive(1)
        assert delivery.event.data_bytes is None


def test_tail_shows_what_is_published_from_now_on(start: Process, broker: Broker) -> None:
    broker.publish("orders", event(0))
    tail = start("tail", "orders", "--json", "-n", "2", "--type", "com.*")
    read_until(tail.stderr, "tail of orders")
    broker.publish_many("orders", [event(1), event(2, "com.x"), event(3, "org.x"), event(4, "com.y")])
    out, _ = tail.communicate(timeout=PATIENCE)
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["2", "4"]
    assert tail.returncode == 0
    assert names_of_tails(broker) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_tail_removes_its_subscription(start: Process, broker: Broker, signum: signal.Signals) -> None:
    tail = start("tail", "orders")
    read_until(tail.stderr, "tail of orders")
    assert names_of_tails(broker)
    tail.send_signal(signum)
    _, err = tail.communicate(timeout=PATIENCE)
    assert (tail.returncode, err) == (130, "interrupted\n")
    assert names_of_tails(broker) == []


def test_a_tail_whose_reader_has_gone_ends_quietly(start: Process, broker: Broker) -> None:
    tail = start("tail", "orders")
    read_until(tail.stderr, "tail of orders")
    assert tail.stdout is not None
    tail.stdout.close()
    broker.publish("orders", event(1))
    assert tail.wait(PATIENCE) == 0
    assert tail.stderr is not None
    assert tail.stderr.read() == ""
    assert names_of_tails(broker) == []


def test_an_interrupt_while_nobody_reads(start: Process, broker: Broker) -> None:
    import fcntl
    import termios
    import time

    tail = start("tail", "orders", "--json")
    read_until(tail.stderr, "tail of orders")
    assert tail.stdout is not None
    broker.publish_many("orders", [event(n) for n in range(3000)])
    waiting, deadline = b"", time.monotonic() + PATIENCE
    while int.from_bytes(waiting, "little") < 60_000:  # the pipe is full, or nearly
        assert time.monotonic() < deadline
        waiting = fcntl.ioctl(tail.stdout, termios.FIONREAD, b"\0" * 4)
        time.sleep(0.01)
    tail.send_signal(signal.SIGINT)
    assert tail.wait(PATIENCE) == 130
    assert names_of_tails(broker) == []


def test_an_interrupted_receive_leaves_nothing_locked(start: Process, broker: Broker) -> None:
    receive = start("receive", "orders/billing", "--wait", "1h", "-n", "1000000", "--json")
    broker.publish_many("orders", [event(n) for n in range(3000)])
    read_until(receive.stdout, '"id":"0"')
    receive.send_signal(signal.SIGINT)
    receive.communicate(timeout=PATIENCE)
    with broker.subscriber("orders", "billing") as subscriber:
        found: set[str] = set()
        while len(found) < 3000:
            deliveries = subscriber.receive(500, wait=5)
            assert deliveries, f"only {len(found)} of 3000 can be had"
            found |= {delivery.event.id for delivery in deliveries}


def test_an_interrupted_wait_ends_at_once(start: Process, broker: Broker) -> None:
    receive = start("receive", "orders/billing", "--wait", "1h", "-v")
    read_until(receive.stderr, "waiting for")
    receive.send_signal(signal.SIGINT)
    _, err = receive.communicate(timeout=PATIENCE)
    assert receive.returncode == 130
    assert err.endswith("interrupted\n")


def test_what_could_not_be_written_is_not_acknowledged(start: Process, broker: Broker) -> None:
    broker.publish("orders", event(1))
    read, write = os.pipe()
    os.close(read)
    receive = start("receive", "orders/billing", "--ack", stdout=write)
    os.close(write)
    _, err = receive.communicate(timeout=PATIENCE)
    assert (receive.returncode, err) == (1, "")
    with broker.subscriber("orders", "billing") as subscriber:
        assert subscriber.receive(1, wait=5)


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_closed_or_full_output_acknowledges_nothing(broker: Broker, redirection: str) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    broker.publish("orders", event(1))
    line = f'"$0" -m cloudevents_bridge receive orders/billing --ack {redirection}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    with broker.subscriber("orders", "billing") as subscriber:
        assert subscriber.receive(1, wait=5)


def test_a_closed_input_is_no_data(broker: Broker) -> None:
    line = '"$0" -m cloudevents_bridge publish orders --type t -q <&- 2>&-'
    assert subprocess.run(["sh", "-c", line, sys.executable], timeout=PATIENCE, check=False).returncode == 0
    with broker.subscriber("orders", "billing") as subscriber:
        [delivery] = subscriber.receive(1)
        assert delivery.event.data_bytes is None


def test_an_interrupted_stream_says_how_far_it_came(start: Process, broker: Broker) -> None:
    publish = start("publish", "orders", "--type", "t", "--lines", "-", stdin=subprocess.PIPE)
    assert publish.stdin is not None
    publish.stdin.write("1\n2\nx\n")
    publish.stdin.flush()
    read_until(publish.stderr, "line 3: the data is not JSON")
    publish.send_signal(signal.SIGINT)
    _, err = publish.communicate(timeout=PATIENCE)
    assert publish.returncode == 130
    assert "published 2, failed 1, read 3 lines" in err
    assert "interrupted after line 3" in err
    assert err.endswith("\ninterrupted\n")


def test_no_color(start: Process, project: Path) -> None:
    """Not even on a terminal."""
    import pty

    for environ, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        parent, child = pty.openpty()
        process = start(
            "check", "--offline", stdout=child, stderr=child, env={**os.environ, "TERM": "xterm", **environ}
        )
        os.close(child)
        written = b""
        try:
            while chunk := os.read(parent, 4096):
                written += chunk
        except OSError:  # how Linux says that the other end was closed
            pass
        os.close(parent)
        assert process.wait(PATIENCE) == 0
        assert b"configuration" in written
        assert (b"\x1b[" in written) is coloured


def test_a_progress_bar_on_a_terminal(start: Process, broker: Broker, tmp_path: Path) -> None:
    import pty

    (tmp_path / "lines").write_text("1\nx\n" + "2\n" * 3000)
    parent, child = pty.openpty()
    process = start(
        "publish", "orders", "--type", "t", "--lines", "lines", stderr=child, env={**os.environ, "TERM": "xterm"}
    )
    os.close(child)
    written = b""
    try:
        while chunk := os.read(parent, 4096):
            written += chunk
    except OSError:
        pass
    os.close(parent)
    assert process.wait(PATIENCE) == 1
    assert b"line 2: the data is not JSON" in written
    assert b"published 3001, failed 1" in written
    assert "━".encode() in written


def test_help_loads_no_command_and_nothing_heavy() -> None:
    program = (
        "import sys\nfrom cloudevents_bridge.cli.app import app\n"
        "try:\n    app.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in "
        "{'rich', 'tenacity', 'asyncio', 'pydantic', 'sqlite3', 'logging.config', 'tomllib'} "
        "or name.startswith(('cloudevents_bridge.cli.commands', 'importlib.metadata'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(start: Process, project: Path, shell: str) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version")
    script = start("completion", shell)
    out, err = script.communicate(timeout=PATIENCE)
    assert (script.returncode, err) == (0, "")
    assert "_CEB_COMPLETE" in out

    def complete(*words: str) -> str:
        environ = {"_CEB_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        process = start(env={**os.environ, **environ})
        return process.communicate(timeout=PATIENCE)[0]

    if shell == "bash":
        assert "plain,publish" in complete("ceb", "pub")
        assert "plain,orders/billing" in complete("ceb", "receive", "ord")
        assert "plain,local" in complete("ceb", "--profile", "lo")


def test_contract_and_demo_are_found_or_said_to_be_missing(ceb: Ceb, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    called: dict[str, Any] = {}

    def run(url: str | None, **settings: Any) -> int:
        called.update(settings, url=url)
        return 1

    package, cli = types.ModuleType("cloudevents_bridge_contract"), types.ModuleType("cloudevents_bridge_contract.cli")
    cli.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cloudevents_bridge_contract", package)
    monkeypatch.setitem(sys.modules, "cloudevents_bridge_contract.cli", cli)
    words = ["--only", "settle", "--only", "order", "-k", "ack", "--deadline", "15m", "--report", "md=out.md"]
    assert ceb("contract", "memory://", *words, "--fail-on-not-run").code == 1
    assert called == {
        "url": "memory://",
        "rig": None,
        "explain": False,
        "only": ("settle", "order"),
        "k": "ack",
        "prefix": None,
        "existing": None,
        "max_events": None,
        "deadline": 900.0,
        "reports": (("md", Path("out.md")),),
        "fail_on_not_run": True,
        "sweep": False,
    }
    monkeypatch.setitem(sys.modules, "cloudevents_bridge_contract.cli", None)
    result = ceb("contract", "memory://")
    assert result.code == 2
    assert "the contract suite is not installed here" in result.err
    assert "pip install cloudevents-bridge-contract" in result.err
    monkeypatch.setitem(sys.modules, "cloudevents_bridge_contract.emulators", None)
    result = ceb("emulators", "status")
    assert result.code == 2
    assert "the emulators are not installed here" in result.err
    monkeypatch.setattr("cloudevents_bridge.demo.run", lambda *given: 7 if given == (None, True, None) else 0)
    assert ceb("demo", "--json").code == 7
    assert ceb("demo", "--workdir", "here", "--url", "memory://").code == 2
