"""What the tests of `ceb run` share: a program, and what can be seen of it from outside."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent
from typing import IO, Any

Process = Callable[..., "subprocess.Popen[str]"]
PATIENCE = 30.0
PROGRAM = """
import os, time
import cloudevents_bridge as ceb

router = ceb.Router()

@router.on("t")
def handle(event):
    open("seen", "a").write(f"{event.id} {os.getpid()}\\n")
    if event.data == "fails":
        raise ValueError("no stock")
    if event.data == "hangs":
        time.sleep(60)
    if event.data == "kills":
        os._exit(9)

@router.on("bad")
def refuse(event):
    raise ceb.Reject("never")

def twice(a: int, b: str): ...

number = 3
"""


def write(body: str, *, how: str = "def", before: str = "") -> None:
    """A program `shop:handle` that notes each event it is called for, and then does this."""
    put(
        Path("shop.py"),
        "import asyncio, os, sys, threading, time\n"
        "def seen(event, what=None):\n"
        "    with open('seen', 'a') as file:\n"
        "        file.write(f'{what or event.id} {os.getpid()}\\n')\n"
        f"{before}\n{how} handle(event):\n    seen(event)\n{indent(dedent(body).strip(), '    ')}\n",
    )


def put(path: Path, text: str) -> None:
    """Write a file that is looked at meanwhile: whoever looks sees all of it, or what was there before."""
    whole = path.with_suffix(".new")
    whole.write_text(text)
    whole.replace(path)


def seen() -> list[tuple[str, int]]:
    path = Path("seen")
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(id, int(process)) for id, process in rows]


def ids() -> list[str]:
    return [id for id, _ in seen()]


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


class Lines:
    """What a process writes, line by line as it comes."""

    def __init__(self, stream: IO[str] | None) -> None:
        assert stream is not None
        self.read: list[str] = []
        self._stream = stream
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        self.read.extend(iter(self._stream.readline, ""))

    def find(self, pattern: str) -> list[str]:
        return [line for line in self.read if re.search(pattern, line)]
