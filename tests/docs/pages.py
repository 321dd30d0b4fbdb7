"""Reads the code blocks of a Markdown page and runs them as a reader would: in order, in one directory.

The info string of a block says what becomes of it:

    python                  executed, in one namespace per page
    python file=NAME        written to NAME, as any other block with file=
    text output             what the Python block before it has printed
    console                 each line that starts with "$ " goes to one shell per page; what follows is its output
    … no-run                shown only, with the reason in the text around it

In an expected output "…" stands for anything within a line, and a line that is only "…" for any number of lines. A
command that fails must be followed by "$ echo $?", which shows with what.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(
    r"(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=indent)(?P=fence) *$", re.M | re.S
)
RUN = frozenset({"python", "console"})
PATIENCE = 60.0
"""Seconds that one shell command may take."""


class Block(NamedTuple):
    """One fenced block. `line`: of its first line of code, from 1."""

    language: str
    words: tuple[str, ...]
    code: str
    line: int

    @property
    def file(self) -> str | None:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), None)


class Mismatch(AssertionError):
    """A block did not do what the page says."""


def read(page: Path) -> Iterator[Block]:
    """The code blocks of a page; directives such as ```{note} are none."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        info = found["info"].split()
        if info and not info[0].startswith("{"):
            indent = found["indent"]
            code = "".join(line.removeprefix(indent) for line in found["code"].splitlines(keepends=True))
            yield Block(info[0], tuple(info[1:]), code, text.count("\n", 0, found.start("code")) + 1)


def run(page: Path, directory: Path) -> int:
    """Run the blocks of a page in `directory`; how many were run.

    Raises:
        Mismatch: naming the page and the line.
    """
    name = f"page_{page.stem.replace('-', '_').lower()}"
    module = types.ModuleType(name)
    sys.modules[name] = module
    count, printed = 0, ""
    with Shell(directory) as shell:
        try:
            for block in read(page):
                where = f"{page.name}:{block.line}"
                if "no-run" in block.words:
                    continue
                count += 1
                if block.file is not None:
                    (directory / block.file).parent.mkdir(parents=True, exist_ok=True)
                    (directory / block.file).write_text(block.code, encoding="utf-8")
                elif block.language == "python":
                    printed = _execute(block, page, module)
                elif block.language == "console":
                    _converse(block, shell, where)
                elif block.language == "text" and "output" in block.words:
                    compare(where, block.code, printed)
                else:
                    count -= 1
        finally:
            for value in list(vars(module).values()):
                if hasattr(value, "close") and type(value).__module__.startswith("cloudevents_bridge"):
                    asyncio.run(value.close()) if inspect.iscoroutinefunction(value.close) else value.close()
            del sys.modules[name]
    return count


def _execute(block: Block, page: Path, module: types.ModuleType) -> str:
    # empty lines before it, so that a traceback shows the line of the page
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    out = StringIO()
    with redirect_stdout(out):
        exec(code, module.__dict__)
    return out.getvalue()


def _converse(block: Block, shell: Shell, where: str) -> None:
    steps = [step for step in re.split(r"^\$ ", block.code, flags=re.M) if step.strip()]
    if not block.code.startswith("$ "):
        raise Mismatch(f"{where}: a console block starts with a command, '$ …'")
    code, command = 0, ""
    for step in steps:
        lines = step.splitlines()
        size = 1
        while lines[size - 1].endswith("\\"):
            size += 1
        last, command, expected = command, "\n".join(lines[:size]), "\n".join(lines[size:])
        if code and command != "echo $?":
            raise Mismatch(f"{where}: `{last}` ended with {code}; show that with `$ echo $?`")
        output, code = shell.ask(command)
        if expected.strip():
            compare(f"{where}: $ {command}", expected, output)
    if code:
        raise Mismatch(f"{where}: `{command}` ended with {code}\n{output}")


def compare(where: str, expected: str, actual: str) -> None:
    """Compare what was printed with what the page says."""
    pattern = ""
    for line in expected.strip("\n").splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += (
                "".join(".*?" if part == "…" else re.escape(part) for part in re.split("(…)", line.rstrip())) + r" *\n"
            )
    if not re.fullmatch(pattern, actual.strip("\n") + "\n"):
        raise Mismatch(f"{where}\n--- the page says\n{expected.rstrip()}\n--- it printed\n{actual.rstrip()}\n")


class Shell:
    """One bash in a directory, with the commands of this Python first on its path."""

    def __init__(self, directory: Path) -> None:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("CLOUDEVENTS_BRIDGE_", "PYTEST_"))
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), clean.get("PATH", "")])
        quiet = {
            "PATH": path,
            "TERM": "dumb",
            "NO_COLOR": "1",
            "COLUMNS": "120",
            "PYTHONUTF8": "1",
            "LC_ALL": "C.UTF-8",
        }
        self._bash = subprocess.Popen(
            [shutil.which("bash") or "bash", "--norc", "--noprofile"],
            cwd=directory,
            env=clean | quiet | {"HOME": str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ask(self, command: str) -> tuple[str, int]:
        """Run one command; what it wrote and its exit code, which the next one finds in `$?`."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = f"--done-{time.monotonic_ns()}-"
        # its standard input is ours: no command may read from it
        script = f"{{ {command}\n}} </dev/null\n__code=$?; echo; echo {mark}$__code; (exit $__code)\n"
        self._bash.stdin.write(script.encode())
        self._bash.stdin.flush()
        deadline, output = time.monotonic() + PATIENCE, b""
        while mark.encode() not in output or not output.endswith(b"\n"):
            if not select.select([self._bash.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Mismatch(f"`{command}` did not end within {PATIENCE:.0f} s; it printed\n{output.decode()}")
            read = os.read(self._bash.stdout.fileno(), 65536)
            if not read:
                raise Mismatch(f"`{command}` ended the shell; it printed\n{output.decode()}")
            output += read
        text, _, code = output.decode().rpartition(mark)
        return text, int(code)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bash.poll() is None:
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        for stream in (self._bash.stdin, self._bash.stdout):
            if stream is not None:
                stream.close()
