"""MODULE:ROUTER: what is found, and what is said of the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cloudevents_bridge import Router
from cloudevents_bridge.cli.program import load_program, split_program


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of what a test imports stays."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


ROUTER = "import cloudevents_bridge as ceb\nrouter = ceb.Router()\nrouter.on('*')(lambda event: None)\n"


def test_a_router_a_function_a_method_and_a_module_of_a_package(tmp_path: Path) -> None:
    write("prog_a/__init__.py", "")
    write(
        "prog_a/parts.py", ROUTER + "def bill(event): ...\nclass Shop:\n    def sell(self, event): ...\nshop = Shop()\n"
    )
    assert isinstance(load_program("prog_a.parts:router"), Router)
    for name in ("bill", "shop.sell"):
        assert callable(load_program(f"prog_a.parts:{name}"))


def test_the_working_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("elsewhere/prog_b.py", "def handle(event): ...\nhere = False\n")
    write("prog_b.py", "def handle(event): ...\nhere = True\n")
    sys.path.insert(0, str(tmp_path / "elsewhere"))
    sys.path.append(str(tmp_path))
    load_program("prog_b:handle")
    assert sys.modules["prog_b"].here


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shop", "'shop' names no router: write MODULE:ROUTER"),
        (":router", "':router' names no router"),
        ("shop:", "'shop:' names no router"),
        ("shop:a:b", "'shop:a:b' names no router"),
        ("shop:a-b", "'shop:a-b' names no router"),
        ("my shop:router", "names no router"),
        ("shop.py:router", "'shop.py' is a file: name the module, such as shop:router"),
        ("./src/shop.py", "'./src/shop.py' is a file: name the module, such as src.shop:router"),
        ("src/shop:app", "'src/shop' is a file: name the module, such as src.shop:app"),
    ],
)
def test_what_is_no_name(name: str, says: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        split_program(name)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("import cloudevents_bridge as ceb\nRouter = ceb.Router", "Router", "prog_c:Router is the class"),
        ("import cloudevents_bridge as ceb\nrouter = ceb.Router()", "router", "has no handlers, and would dead-letter"),
        ("router = None", "router", "prog_c:router is of type NoneType"),
        ("import sys\nsys.exit(3)", "router", "importing prog_c failed at prog_c.py:2: SystemExit: 3"),
        ("raise ModuleNotFoundError('gone')", "router", "importing prog_c failed at prog_c.py:1: ModuleNotFoundError"),
        ("import prog_c.nothing", "router", "it needs 'prog_c.nothing', which is not installed"),
        ("def f():\n    raise OSError('no disk')\nf()", "router", "failed at prog_c.py:2: OSError: no disk"),
        ("from json import loads\ndef handle(e): ...", "handel", "prog_c has no 'handel'; did you mean handle?"),
        ("class Shop: ...\nshop = Shop()", "shop.sell", "prog_c has no 'shop.sell'"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, text: str, name: str, says: str) -> None:
    write("prog_c.py", text)
    with pytest.raises(click.UsageError) as caught:
        load_program(f"prog_c:{name}")
    assert says in caught.value.message


def test_an_empty_router_that_loses_nothing_is_none_of_our_business(tmp_path: Path) -> None:
    write("prog_d.py", "import cloudevents_bridge as ceb\nrouter = ceb.Router(unmatched='ack')")
    assert isinstance(load_program("prog_d:router"), Router)


def test_ctrl_c_while_it_is_imported_is_none_of_its_errors(tmp_path: Path) -> None:
    write("prog_e.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_program("prog_e:router")
