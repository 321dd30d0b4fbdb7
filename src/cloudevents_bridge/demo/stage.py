"""The demo as a whole: makes the topic, starts the processes, waits for them and adds up."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

from cloudevents_bridge import Broker, Capability
from cloudevents_bridge.demo.orders import FILE
from cloudevents_bridge.demo.report import Consumed, Feed, Published, Summary, show, to_json
from cloudevents_bridge.demo.shop import ORDERS, by_hand, open_broker
from cloudevents_bridge.errors import ErrorCode, make_error

PATIENCE = 120.0
"""Seconds after which a process that has not ended is taken for stuck."""

GRACE = 5.0
"""Seconds a process is given to end when asked to."""


T = TypeVar("T")
Child: TypeAlias = "subprocess.Popen[str]"


class StuckError(Exception):
    """A process of the demo failed or did not end."""


def run(workdir: Path | None = None, as_json: bool = False, url: str | None = None) -> int:
    """Run the order system of the tutorials in several processes: on the embedded SQLite broker, or on another one.

    Args:
        workdir: the directory for the broker's file, made if missing; `ceb-demo` where not given. It stays there
            afterwards, and the next run empties the broker.
        as_json: print one JSON object instead of a table.
        url: another broker. What the demo makes there stays, and a topic that is there already is never touched, but
            where only other tools make topics.

    Returns:
        0 if every order was published or refused, and consumed or kept as a dead letter by every subscription; else 1.

    Raises:
        BridgeError: if the broker cannot be used, or the one at `url` has a topic of the demo's name.
        OSError: if `workdir` cannot be made.
    """
    own = url is None
    if url is None:
        workdir = workdir or Path("ceb-demo")
        workdir.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{quote((workdir / 'events.db').as_posix())}"
    if not as_json:
        sys.stdout.write(
            f"{FILE.name} to {url}: one publisher, {len(ORDERS.subscriptions)} consumers, each a process\n"
        )
        sys.stdout.flush()
    try:
        summary = perform(url, own=own)
    except StuckError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    if as_json:
        sys.stdout.write(to_json(summary) + "\n")
    else:
        show(summary)
    return 0 if summary.complete else 1


def perform(url: str, *, own: bool) -> Summary:
    """Run all processes and add up what they counted. The demo's own broker is emptied before."""
    began = time.monotonic()
    deadline = began + PATIENCE
    with open_broker(url) as broker:
        if own:
            broker.topology.delete()
        elif not _is_unused(broker):
            raise make_error(
                ErrorCode.ALREADY_EXISTS,
                f"topic {ORDERS.name} is on {url} already, and the demo begins with an empty one: use a broker without",
                broker=url,
            )
        broker.topology.apply()  # or it says what to run
        with _children() as start:
            consumers = {each.name: start("consume", url, each.name) for each in ORDERS.subscriptions}
            published = _end(start("publish", url, str(FILE)), Published, deadline)
            for child in consumers.values():  # all of them before the first is waited for: some take a while to end
                _tell(child, f"{published.accepted}\n")
            counted = {name: _end(child, Consumed, deadline) for name, child in consumers.items()}
        feeds = {name: _feed(broker, name, consumed) for name, consumed in counted.items()}
    return Summary(
        url=url,
        lines=len(FILE.read_bytes().splitlines()),
        published=published.accepted,
        refused=published.refused,
        subscriptions=feeds,
        seconds=round(time.monotonic() - began, 2),
        next=_next(url),
    )


def _is_unused(broker: Broker) -> bool:
    """Whether there is no topic of the demo's name.

    Where only other tools make topics there has to be one: then whether no demo has left its dead letters there.
    """
    if Capability.TOPOLOGY in broker.capabilities:
        return any(change.action == "create" and change.kind == "topic" for change in broker.topology.plan())
    return broker.topology.plan() != [] or not any(_dead(broker, each.name) for each in ORDERS.subscriptions)


def _dead(broker: Broker, name: str) -> int:
    return sum(1 for _ in broker.dead_letters(ORDERS.name, name).find())


def _feed(broker: Broker, name: str, counted: Consumed) -> Feed:
    dead = _dead(broker, name)
    return Feed(consumed=counted.consumed, retried=counted.failed - dead, dead_lettered=dead, done=counted.done)


@contextmanager
def _children() -> Iterator[Callable[..., Child]]:
    """Gives what starts a process of the demo; none is left when the block ends, however it ends."""
    with ExitStack() as stack:

        def start(*arguments: str) -> Child:
            child = subprocess.Popen(  # noqa: S603  - our own arguments
                [sys.executable, "-m", __package__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=os.environ | {"PYTHONUTF8": "1"},
                start_new_session=True,  # Ctrl-C reaches us, and we end the children
            )
            stack.enter_context(child)
            stack.callback(_stop, child)
            return child

        yield start


def _stop(child: Child) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()


def _tell(child: Child, words: str) -> None:
    """Tell a process what it waits for. One that has ended already says so by its exit code."""
    assert child.stdin is not None
    with suppress(BrokenPipeError):
        child.stdin.write(words)
        child.stdin.flush()


def _end(child: Child, kind: type[T], deadline: float) -> T:
    """Wait for the end of a process and return what it counted."""
    name = " ".join(child.args[3:])  # type: ignore[index, arg-type]
    try:
        output, _ = child.communicate(None, max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise StuckError(f"the process `{name}` has not ended after {PATIENCE:.0f} s") from None
    if child.returncode:
        raise StuckError(f"the process `{name}` ended with exit code {child.returncode}")
    return msgspec.json.decode(output, type=kind)


def _next(url: str) -> list[str]:
    """Commands that can be copied into the shell that this process was started from."""
    ceb = f"{_command()} --url {shlex.quote(url)}"
    return [
        f"{ceb} dead-letters list orders/payment",
        f"{ceb} dead-letters replay orders/payment --all",
        f"{ceb} run {by_hand.__module__}:{by_hand.__name__} orders/payment --until-idle 1",
    ]


def _command() -> str:
    """How the shell finds `ceb`: by name, by path, or through this Python."""
    script = Path(sys.executable).with_name("ceb")
    found = shutil.which("ceb")
    if found and Path(found).absolute() == script:
        return "ceb"
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m cloudevents_bridge"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))
