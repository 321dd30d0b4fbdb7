"""Malformed invocations: one line that names the offender, the right exit code, and no stack trace without --debug."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge.cli.app import COMMANDS, app
from cloudevents_bridge.cli.failures import describe, exit_code
from cloudevents_bridge.errors import ErrorCode, SettleError, make_error

Ceb = Callable[..., Any]
T = ("--type", "t")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["publsh"], 2, "no command 'publsh'; did you mean publish?"),
        (["dl", "lst"], 2, "no command 'lst'; did you mean list?"),
        (["--nope"], 2, "No such option"),
        (["publish", "--nope", "orders"], 2, "No such option"),
        (["publish"], 2, "Missing argument 'TOPIC'"),
        (["publish", "orders", "more", *T], 2, "unexpected extra argument"),
        (["publish", "Orders", *T], 2, "topic name 'Orders' is not portable"),
        (["publish", "orders/billing", *T], 2, "'orders/billing' is a topic and a subscription"),
        (["publish", "orders"], 2, "no type of event: give --type"),
        (["publish", "orders", "--type", ""], 2, "attribute type is ''"),
        (["publish", "orders", *T, "--source", "a b"], 2, "attribute source is 'a b'"),
        (["publish", "orders", *T, "--source", ""], 2, "attribute source is ''"),
        (["publish", "orders", *T, "--subject", "\x1b"], 2, "attribute subject is '\\x1b'"),
        (["publish", "orders", *T, "--key", ""], 2, "attribute partitionkey"),
        (["publish", "orders", *T, "--id", ""], 2, "attribute id is ''"),
        (["publish", "orders", *T, "--data", "{"], 2, "the data is not JSON"),
        (["publish", "orders", *T, "--data", ""], 2, "the data is not JSON"),
        (["publish", "orders", *T, "--data", "1", "--text", "x"], 2, "--data and --text both say what to publish"),
        (["publish", "orders", *T, "--file", "-", "--lines", "-"], 2, "--file and --lines both say"),
        (["publish", "orders", *T, "--file", "nope.json"], 2, "cannot read 'nope.json': No such file"),
        (["publish", "orders", *T, "--file", "."], 2, "cannot read '.': Is a directory"),
        (["publish", "orders", *T, "--lines", "nope"], 2, "cannot read 'nope'"),
        (["publish", "orders", *T, "--lines", "-", "--id", "1"], 2, "--id would be the same for every line"),
        (["publish", "orders", "--events", "-", *T], 2, "--type does not go with --events"),
        (["publish", "orders", "--events", "-", "--key", "k"], 2, "--key does not go with --events"),
        (["publish", "orders", "--events", "-", "-a", "x=1"], 2, "-a does not go with --events"),
        (["publish", "orders", *T, "--data", "1", "--content-type", "text/plain"], 2, "--data is JSON"),
        (["publish", "orders", *T, "--content-type", "nonsense"], 2, "attribute datacontenttype is 'nonsense'"),
        (["publish", "orders", *T, "-a", "x"], 2, "'x' is not NAME=VALUE"),
        (["publish", "orders", *T, "-a", "=x"], 2, "'=x' is not NAME=VALUE"),
        (["publish", "orders", *T, "-a", "X=1"], 2, "extension name 'X' is not allowed"),
        (["publish", "orders", *T, "-a", "x=1", "-a", "x=2"], 2, "-a x=… is given twice"),
        (["publish", "orders", *T, "-a", "subject=1"], 2, "use --subject"),
        (["publish", "orders", *T, "-a", "time=noon"], 2, "attribute time is 'noon'"),
        (["publish", "orders", *T, "-a", "sampledrate=x"], 2, "attribute sampledrate is 'x'"),
        (["publish", "orders", *T, "-a", "specversion=0.3"], 2, "specversion"),
        (["publish", "orders", *T, "--delay", "soon"], 2, "'soon' is no duration"),
        (["publish", "orders", *T, "--delay", "-5"], 2, "'-5' is no duration"),
        (["receive", "orders"], 2, "'orders' names no subscription: write TOPIC/SUBSCRIPTION"),
        (["receive", "orders/"], 2, "subscription name ''"),
        (["receive", "/billing"], 2, "topic name ''"),
        (["receive", "a/b/c"], 2, "is not portable"),
        (["receive", "orders/billing", "-n", "0"], 2, "'-n'"),
        (["receive", "orders/billing", "-n", "x"], 2, "'x' is not a valid integer"),
        (["receive", "orders/billing", "--wait", "never"], 2, "'never' is no duration"),
        (["receive", "orders/nope", "--wait", "0"], 3, "nope"),
        (["receive", "nothing-here/nope", "--wait", "0"], 3, "nothing-here"),
        (["tail", "orders/billing"], 2, "give the topic only"),
        (["tail", "nothing-here"], 3, "nothing-here"),
        (["dl", "list", "orders"], 2, "names no subscription"),
        (["dl", "list", "orders/billing", "--since", "yesterday"], 2, "'yesterday' is no time"),
        (["dl", "list", "orders/nope"], 3, "nope"),
        (["dl", "show", "orders/billing"], 2, "Missing argument 'ID...'"),
        (["dl", "replay", "orders/billing"], 2, "which letters: give IDs, --all, or a filter"),
        (["dl", "replay", "orders/billing", "x", "--all"], 2, "leave out --all"),
        (["dl", "replay", "orders/billing", "--all", "--rate", "0"], 2, "'--rate'"),
        (["dl", "purge", "orders/billing", "--yes"], 2, "which letters"),
        (["topology", "export", "pulumi"], 2, "'pulumi' is not one of 'terraform', 'bicep', 'commands'"),
        (["topology", "policy", "root"], 2, "'root' is not one of"),
        (["check", "a/b/c"], 2, "is not portable"),
        (["check", "--as", "root"], 2, "'root' is not one of"),
        (["check", "--all-profiles", "--profile", "local"], 2, "leave out --profile and --url"),
        (["completion", "tcsh"], 2, "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        (["contract", "--rig", "nothing"], 2, "'nothing' is not MODULE:RIG"),
        (["contract", "--report", "pdf=x"], 2, "'pdf=x' is not FORMAT=FILE"),
        (["contract", "--deadline", "soon"], 2, "'soon' is no duration"),
        (["contract", "--existing", "nope"], 2, "'nope' is no file"),
        (["contract", "amqp://me:hunter2@h"], 2, "holds a user or password"),
        (["contract", "nosuch://x"], 2, "no adapter for nosuch:// is installed"),
        (["contract", "--profile", "other"], 2, "profile other has options (endpoint)"),
        (["contract", "--profile", "prod"], 2, "has no profile 'prod'"),
        (["contract", "memory://", "--url", "memory://"], 2, "both name the broker"),
        (["--url", "nonsense", "publish", "orders", *T], 2, "'nonsense' is no broker's URL"),
        (["--url", "amqp://me:hunter2@h", "publish", "orders", *T], 2, "holds a user or password"),
        (["--url", "nosuch://x", "publish", "orders", *T], 2, "no adapter for nosuch:// is installed"),
        (["--url", "memory://x?y=1", "publish", "orders", *T], 2, "'y' is no query key of memory:// URLs"),
        (["--url", "memory://", "--profile", "local", "info"], 2, "give one of them"),
        (["--url", "memory://", "--profile", "local", "publish", "orders", *T], 2, "give one of them"),
        (["--profile", "prod", "publish", "orders", *T], 2, "has no profile 'prod'"),
        (["--config", "nope.toml", "publish", "orders", *T], 2, "nope.toml', named by config, is no file"),
        (["--config", "not.toml", "publish", "orders", *T], 2, "is not valid TOML"),
        (["--profile", "broken", "publish", "orders", *T], 2, "profiles.broken.colour is no key"),
    ],
)
def test_one_line(ceb: Ceb, project: Path, words: list[str], code: int, says: str) -> None:
    project.write_text(
        project.read_text() + '[profiles.broken]\nurl = "memory://"\ncolour = 1\n'
        '[profiles.other]\nurl = "memory://"\nendpoint = "http://localhost"\n'
    )
    (project.parent / "not.toml").write_text("default =")
    result = ceb(*words)
    assert result.code == code, result
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("error: ")
    assert says in result.err
    assert "hunter2" not in result.err
    assert "Traceback" not in result.err


def test_nothing_configured_shows_the_line_to_write(ceb: Ceb) -> None:
    result = ceb("publish", "orders", *T)
    assert result.code == 2
    assert 'export CLOUDEVENTS_BRIDGE_URL="sqlite:///events.db"' in result.err


def test_no_file_no_profiles(ceb: Ceb) -> None:
    assert "there is none" in ceb("check", "--all-profiles").err


def test_debug_shows_the_trace(ceb: Ceb) -> None:
    result = ceb("--debug", "publish", "orders", *T)
    assert "Traceback (most recent call last)" in result.err
    assert result.err.splitlines()[-1].startswith("error: no broker is configured")


def test_a_fault_of_our_own_is_one_line_too(ceb: Ceb, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("some\nthing")

    monkeypatch.setattr("cloudevents_bridge.config.load", broken)
    result = ceb("publish", "orders", *T, "--dry-run")
    assert result.code == 1
    assert "error: unexpected RuntimeError: some thing (--debug shows where; please report it)\n" in result.err
    assert "Traceback" not in result.err


def test_a_broken_database_file(ceb: Ceb, tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"this is no database" * 100)
    result = ceb("--url", "sqlite:///events.db", "publish", "orders", *T)
    assert result.code in (1, 2, 5)
    assert result.err.count("\n") == 1
    assert "events.db" in result.err


def test_every_code_has_its_exit_code() -> None:
    codes = {code.name: exit_code(make_error(code, "x")) for code in ErrorCode}
    assert codes == {
        "INVALID_ARGUMENT": 2,
        "UNSUPPORTED": 2,
        "NOT_FOUND": 3,
        "PERMISSION_DENIED": 4,
        "UNAUTHENTICATED": 4,
        "UNAVAILABLE": 5,
        "DEADLINE_EXCEEDED": 5,
        "RESOURCE_EXHAUSTED": 5,
        "ALREADY_EXISTS": 1,
        "FAILED_PRECONDITION": 1,
        "TOO_LARGE": 1,
        "LEASE_LOST": 1,
        "CLOSED": 1,
        "INTERNAL": 1,
        "UNKNOWN": 1,
    }
    assert exit_code(SettleError("x", code=ErrorCode.NOT_FOUND)) == 1
    assert exit_code(KeyboardInterrupt()) == 130
    assert describe(KeyboardInterrupt()) == "interrupted"


def test_the_help_of_the_group_is_that_of_the_commands(ceb: Ceb) -> None:
    import click

    listed = ceb("--help").out
    with click.Context(app) as ctx:
        for name, (_, help) in COMMANDS.items():
            command = app.get_command(ctx, name)
            assert command is not None
            assert f"{name} " in listed
            assert help.rstrip(".") in " ".join(listed.split())
            assert ceb(name, "--help").code == 0


def test_global_options_stand_before_or_after_the_command(ceb: Ceb, project: Path) -> None:
    before, after = ceb("--json", "topology", "show"), ceb("topology", "show", "--json")
    assert before == after
    assert ceb("topology", "--json", "show") == before
    assert ceb("info", "--config", "nope.toml").out.count("nope.toml") == 1
