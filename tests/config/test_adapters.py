from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloudevents_bridge.adapters import check_options, installed, load_adapter
from cloudevents_bridge.config import parse_url
from cloudevents_bridge.driver import Connection, Url
from cloudevents_bridge.errors import ConfigurationError


def distribution(folder: Path, name: str, entries: str, module: str = "") -> None:
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[cloudevents_bridge.adapters]\n{entries}\n")
    (folder / f"{name.replace('-', '_')}_module.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    load_adapter.cache_clear()
    yield tmp_path
    load_adapter.cache_clear()


def test_only_the_scheme_asked_for_is_loaded(site: Path) -> None:
    distribution(site, "ceb-one", "one = ceb_one_module:adapter\nother = ceb_one_other:adapter", "adapter = 'the one'")
    assert load_adapter("one") == "the one"  # type: ignore[comparison-overlap]
    assert "ceb_one_other" not in sys.modules
    assert installed()["one"] == installed()["other"] == "ceb-one 1.2"


def test_the_embedded_brokers_use_the_same_door() -> None:
    assert {"memory", "sqlite"} <= set(installed())


def test_an_unknown_scheme() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_adapter("aws-lambda")
    message = str(caught.value)
    assert message.startswith("no adapter for aws-lambda:// is installed; ")
    assert "memory, sqlite" in message
    assert message.endswith('pip install "cloudevents-bridge[aws]"')


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean sqlite\?"):
        load_adapter("sqllite")


def test_an_adapter_that_cannot_be_imported(site: Path) -> None:
    distribution(site, "ceb-broken", "broken = ceb_broken_module:adapter", "import no_such_sdk")
    with pytest.raises(ConfigurationError) as caught:
        load_adapter("broken")
    assert "broken:// (ceb-broken 1.2) cannot be imported: ModuleNotFoundError: No module" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_two_distributions_for_one_scheme(site: Path) -> None:
    distribution(site, "ceb-a", "twice = ceb_a_module:adapter")
    distribution(site, "ceb-b", "twice = ceb_b_module:adapter")
    with pytest.raises(ConfigurationError, match=r"ceb-a 1\.2, ceb-b 1\.2; uninstall all but one"):
        load_adapter("twice")


class Adapter:
    query = frozenset({"account"})
    options = frozenset({"endpoint"})

    def __call__(self, url: Url, options: Mapping[str, Any]) -> Connection:
        raise NotImplementedError


def test_unknown_query_keys_and_options() -> None:
    check_options(Adapter(), parse_url("x://h?account=1"), {"endpoint": "y"})
    with pytest.raises(ConfigurationError, match="'acount' is no query key of x:// URLs; did you mean account"):
        check_options(Adapter(), parse_url("x://h?acount=1"), {})
    with pytest.raises(ConfigurationError, match="'pool' is no option of x:// brokers; known: endpoint"):
        check_options(Adapter(), parse_url("x://h"), {"pool": 1})
