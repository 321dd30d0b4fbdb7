"""Every example of the documentation runs and prints what the page says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]

_spec = importlib.util.spec_from_file_location("ceb_docs_pages", Path(__file__).with_name("pages.py"))
assert _spec is not None
assert _spec.loader is not None
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)

needs_shell = pytest.mark.skipif(pages.shutil.which("bash") is None, reason="the examples of the shell need bash")


@needs_shell
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name == "contract.md":
        pytest.importorskip("cloudevents_bridge_contract", reason="the contract suite is not installed")
    for name in ("URL", "PROFILE", "CONFIG"):
        monkeypatch.delenv(f"CLOUDEVENTS_BRIDGE_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    pages.run(page, tmp_path)


def test_few_blocks_are_not_run() -> None:
    blocks = [block for page in PAGES for block in pages.read(page) if block.language in pages.RUN]
    shown_only = [block for block in blocks if "no-run" in block.words]
    assert len(shown_only) <= len(blocks) / 10


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("```python\nassert 1 == 2\n```\n", ""),
        ("```python\nprint(1)\n```\n```text output\n2\n```\n", "the page says"),
        ("```console\n$ echo one\ntwo\n```\n", "the page says"),
        ("```console\n$ false\n$ echo next\n```\n", "echo $?"),
        ("```console\n$ false\n```\n", "ended with 1"),
    ],
)
@needs_shell
def test_a_wrong_page_fails(text: str, what: str, tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError) as caught:
        pages.run(page, tmp_path)
    assert what in str(caught.value)


@needs_shell
def test_a_right_page_runs(tmp_path: Path) -> None:
    page = tmp_path / "right.md"
    page.write_text(
        "```toml file=a/b.toml\nx = 1\n```\n"
        "```console\n$ cat a/b.toml; export X=3\nx = …\n$ (exit $X)\n$ echo $?\n3\n```\n"
        "```python no-run\nassert False\n```\n"
        "```python\nfor i in range(9):\n    print(i)\n```\n```text output\n0\n…\n8\n```\n",
        encoding="utf-8",
    )
    assert pages.run(page, tmp_path) == 4
