"""Nothing is left out: each code, capability, command, key and public name has its place in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.cli.app import COMMANDS
from cloudevents_bridge.config import settings
from cloudevents_bridge.errors import ErrorCode

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HEADINGS = [
    "URL",
    "Names",
    "Delivery semantics",
    "Wire form",
    "Limits",
    "Permissions",
    "Native access",
    "Quirks",
]


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def test_each_error_code_is_in_the_table() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", text("concepts/errors.md"), re.M)
    assert rows == list(ErrorCode)


def test_each_capability_is_in_the_table() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \|", text("concepts/capabilities.md"), re.M)
    assert rows == list(ceb.Capability)


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_the_table_says_what_the_broker_declares(scheme: str, tmp_path: Path) -> None:
    column = {"memory": 3, "sqlite": 4}[scheme]
    rows = [
        line.split("|") for line in text("concepts/capabilities.md").splitlines() if re.match(r"\| `[a-z]+` \|", line)
    ]
    said = {row[1].strip(" `") for row in rows if row[column].strip() == "yes"}
    with ceb.connect("memory://" if scheme == "memory" else f"sqlite:///{tmp_path}/events.db") as broker:
        assert said == set(broker.capabilities)


def test_each_command_has_its_section() -> None:
    sections = re.findall(r"^## ([a-z-]+)$", text("cli.md"), re.M)
    assert sorted(sections) == sorted(COMMANDS)


def test_each_key_of_a_profile_is_in_the_table() -> None:
    table = text("concepts/configuration.md").partition("### Keys of a profile")[2].partition("\n\nNames of topics")[0]
    assert sorted(re.findall(r"^\| `([a-z_]+)` \|", table, re.M)) == sorted(settings._PROFILE_KEYS)


def test_each_public_name_is_in_the_reference() -> None:
    reference = text("api.md")
    public = {name: getattr(ceb, name) for name in ceb.__all__}
    errors = {name for name, value in public.items() if isinstance(value, type) and issubclass(value, ceb.BridgeError)}
    listed = set(re.findall(r"auto(?:class|function|exception):: (?:cloudevents_bridge\.)?(\w+)", reference))
    assert "automodule:: cloudevents_bridge.errors" in reference
    assert public.keys() - listed <= errors


@pytest.mark.parametrize("page", ["brokers/memory.md", "brokers/sqlite.md"])
def test_the_pages_of_brokers_have_the_same_headings(page: str) -> None:
    assert re.findall(r"^## (.*)$", text(page), re.M) == HEADINGS


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
