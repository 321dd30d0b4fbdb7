"""`ceb contract`: the suite against one broker, without a test file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge import Capability, Topic, connect
from cloudevents_bridge.errors import BridgeError, ConfigurationError, UnsupportedError
from cloudevents_bridge_contract import chosen as chosen_rigs
from cloudevents_bridge_contract import plugin
from cloudevents_bridge_contract.existing import Pool
from cloudevents_bridge_contract.faulty import native_url
from cloudevents_bridge_contract.report import FAILED, GROUPS, NOT_RUN, OUTCOMES
from cloudevents_bridge_contract.rig import Rig
from cloudevents_bridge_contract.rigs import (
    AwkwardRig,
    EmbeddedRig,
    MemoryRig,
    SqliteProcessesRig,
    SqliteRig,
    topics_in,
)

TIMED_OUT = 5
RUNNING = "cloudevents_bridge_contract.running"
EMBEDDED: tuple[type[EmbeddedRig], ...] = (MemoryRig, SqliteRig, SqliteProcessesRig, AwkwardRig)


class UrlRig(Rig):
    """The broker at a URL, as far as it can be known from there: what needs more is not run."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = url.partition("://")[0]
        self.kind = "live"
        self.crosses_processes = True

    @contextmanager
    def start(self) -> Iterator[str]:
        yield self.url


class EmbeddedUrlRig(EmbeddedRig):
    """An embedded broker at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name, _, rest = url.partition("://")
        self.crosses_processes = self.name == "sqlite"
        if not rest and not self.crosses_processes:
            self.url = f"{url}contract"  # a private one would not be the same broker for each connection

    @contextmanager
    def start(self) -> Iterator[str]:
        yield self.url

    def list_topics(self, url: str) -> Iterable[str]:
        return topics_in(Path(native_url(url).path[1:])) if self.name == "sqlite" else []


def rig_for(url: str) -> Rig:
    """The rig that a URL alone makes possible."""
    scheme = url.partition("://")[0]
    return EmbeddedUrlRig(url) if scheme in ("memory", "sqlite", "awkward", "faulty") else UrlRig(url)


def load_rig(name: str) -> Rig:
    """The rig `MODULE:RIG`: an instance of `Rig`, or a class of one.

    Raises:
        ConfigurationError: if there is none of that name.
    """
    module, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"--rig {name}: {error}") from error
    made = found() if isinstance(found, type) else found
    if not isinstance(made, Rig):
        raise ConfigurationError(f"--rig {name} is no rig: {made!r}; derive it from cloudevents_bridge_contract.Rig")
    return made


def run(
    url: str | None,
    *,
    rig: str | None = None,
    explain: bool = False,
    only: Sequence[str] = (),
    k: str | None = None,
    prefix: str | None = None,
    existing: Path | None = None,
    max_events: int | None = None,
    deadline: float | None = None,
    reports: Iterable[tuple[str, Path]] = (),
    fail_on_not_run: bool = False,
    sweep: bool = False,
) -> int:
    """Run the suite and print the matrix.

    Args:
        url: the broker; None: that of the rig, or without a rig the embedded ones.
        rig: `MODULE:RIG`; with a URL, the rig's own `start` is not used.
        explain: only say what a run needs and makes.
        only: groups of cases.
        k: a pytest expression.
        prefix: start of the names of topics.
        existing: a file of topics to use instead of creating some.
        max_events: events of one case, at most.
        deadline: seconds for the whole run.
        reports: pairs of "json", "md" or "junit" and the file to write.
        fail_on_not_run: whether a case that was not run makes the run fail.
        sweep: remove what earlier runs left, and run nothing.

    Returns:
        0 if no case failed, 1 if one did, 5 if the deadline was over before all had their turn.

    Raises:
        ConfigurationError: if a group, rig, prefix or file is wrong.
    """
    for group in only:
        if group not in GROUPS:
            raise ConfigurationError(f"--only {group}: there is no such group; the groups are {', '.join(GROUPS)}")
    rigs = _rigs(url, rig)
    for each in rigs:
        if prefix is not None:
            each.prefix = _checked_prefix(prefix)
        if existing is not None:
            each.existing = Pool.read(existing)
        each.max_events = max_events
    if explain:
        for each in rigs:
            print(_explained(each, only))
        return 0
    if sweep:
        return max(map(_sweep, rigs))
    chosen = _Chosen(only)
    code = _pytest(rigs, chosen, k=k, deadline=deadline, reports=list(reports))
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise ConfigurationError("no case was chosen: see `ceb contract --explain` for the groups")
    outcomes = chosen.outcomes()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or FAILED in outcomes:
        return 1
    if chosen.unfinished():
        return TIMED_OUT
    return 1 if fail_on_not_run and NOT_RUN in outcomes else 0


def _rigs(url: str | None, rig: str | None) -> list[Rig]:
    if rig is None:
        return [rig_for(url)] if url is not None else [kind() for kind in EMBEDDED]
    loaded = load_rig(rig)
    if url is not None:
        at = UrlRig(url)
        loaded.start = at.start  # type: ignore[method-assign]
    return [loaded]


def _checked_prefix(prefix: str) -> str:
    try:
        Topic(f"{prefix}-topic-00000000")
    except ConfigurationError as error:
        raise ConfigurationError(
            f"--prefix {prefix!r}: names begin with it, so use up to 19 lower-case letters, digits and single hyphens, "
            "starting with a letter"
        ) from error
    return prefix


def _pytest(
    rigs: list[Rig], chosen: _Chosen, *, k: str | None, deadline: float | None, reports: list[tuple[str, Path]]
) -> int:
    """Run the cases in this process."""
    arguments: list[str] = ["--pyargs", RUNNING, "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    arguments += ["-p", "no:asyncio"]  # where pytest-asyncio is installed, it has nothing to do here
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    arguments += ["-c", str(Path(__file__).with_name("pytest.ini")), f"--rootdir={Path.cwd()}"]
    if k:
        arguments += ["-k", k]
    if deadline is not None:
        arguments += ["--session-timeout", str(deadline)]
    for kind, path in reports:
        arguments += [f"--junitxml={path}"] if kind == "junit" else ["--contract-report", f"{kind}={path}"]
    chosen_rigs.RIGS[:] = rigs
    sys.modules.pop(RUNNING, None)
    return int(pytest.main(arguments, plugins=[chosen]))


class _Chosen:
    """A pytest plugin for one run: takes the groups chosen, and keeps what came out."""

    def __init__(self, only: Sequence[str]) -> None:
        self.only = only
        self._collector: plugin.Collector | None = None

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self._collector = config.pluginmanager.get_plugin(plugin.COLLECTOR)
        if self.only:
            dropped = [item for item in items if plugin.case_of(item).partition(".")[0] not in self.only]
            config.hook.pytest_deselected(items=dropped)
            items[:] = [item for item in items if item not in dropped]

    def outcomes(self) -> set[str]:
        """How the cases ended."""
        matrix = self._collector.matrix if self._collector is not None else None
        return {cell.outcome for row in matrix.cells.values() for cell in row.values()} if matrix is not None else set()

    def unfinished(self) -> bool:
        """Whether the run ended before all cases had their turn."""
        return self._collector is not None and bool(self._collector.unfinished)


def _explained(rig: Rig, only: Sequence[str]) -> str:
    """What a run needs: rights, resources, requests. Nothing is created."""
    groups = [group for group in GROUPS if not only or group in only]
    from cloudevents_bridge_contract.running import count

    cases = count(groups)
    with rig.running() as url, connect(url, **rig.options) as broker:
        declared = ", ".join(sorted(broker.capabilities)) or "none"
        rights = [
            f"{role}: {_policy(broker, role, rig)}" for role in ("publisher", "consumer", "operator", "provisioner")
        ]
    events = f"at most {rig.max_events} events a case" if rig.max_events else "up to 1,000 events a case"
    if rig.existing is not None:
        names = ", ".join(topic.name for topic in rig.existing.topics)
        resources = f"uses the topics {names}; creates nothing"
    else:
        resources = (
            f"creates, and removes after each case, topics {rig.prefix}-…-<8 hex digits> with up to two subscriptions "
            f"(alpha, bravo) and their dead letters; up to three topics at a time"
        )
    lines = [
        f"{rig.name} ({rig.kind}) at {url}",
        f"  capabilities   {declared}",
        f"  cases          {sum(cases.values())}: " + ", ".join(f"{group} {cases[group]}" for group in groups),
        f"  resources      {resources}",
        f"  requests       {events}; the whole suite publishes some 7,000 small events and settles them",
        f"  outcomes       {', '.join(OUTCOMES)}",
        *(f"  rights         {line}" for line in rights),
    ]
    return "\n".join(lines)


def _policy(broker: Any, role: str, rig: Rig) -> str:
    topic = Topic(f"{rig.prefix}-topic-00000000", subscriptions=["alpha", "bravo"])
    try:
        return str(broker.topology.policy(role, topic)).strip()
    except UnsupportedError:
        return "the broker knows no rights"
    except BridgeError as error:
        return f"not known ({error})"


def _sweep(rig: Rig) -> int:
    """Remove what earlier runs left behind: those topics with the prefix that the broker can list."""
    with rig.running() as url, connect(url, **rig.options) as broker:
        if Capability.TOPOLOGY not in broker.capabilities:
            raise ConfigurationError(f"{url} does not let topics be removed: the capability topology is not declared")
        try:
            left = [name for name in rig.list_topics(url) if name.startswith(f"{rig.prefix}-")]
        except NotImplementedError as error:
            raise ConfigurationError(f"{url}: {error}") from error
        for name in left:
            broker.topology.delete(Topic(name))
    print(f"{rig.name}: removed {len(left)} topics" + "".join(f"\n  {name}" for name in left))
    return 0
