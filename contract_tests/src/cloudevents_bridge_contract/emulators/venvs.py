"""Emulators that are Python programs: each in a virtual environment of its own, from a frozen list of packages.

Their pins must not meet those of whoever tests. An environment is `NAME` in a directory `.emulators`: that of the
variable CLOUDEVENTS_BRIDGE_EMULATORS, else one in the working directory or above, else one of the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LOCKS = Path(__file__).with_name("locks")
_PYENV_VERSIONS = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"


class NotInstalledError(RuntimeError):
    """An emulator is not on this machine; the message says how to get it."""


class Recipe(NamedTuple):
    """How to install an emulator.

    Attributes:
        pythons: the versions of Python that it runs on, the best first.
    """

    name: str
    pythons: tuple[str, ...]

    @property
    def place(self) -> Path:
        return home() / self.name

    @property
    def lock(self) -> Path:
        """The frozen list of packages."""
        return _LOCKS / f"{self.name}.txt"

    @property
    def version(self) -> str:
        """That of the emulator's own package."""
        lines = self.lock.read_text().splitlines()
        return next(line.partition("==")[2] for line in lines if line.startswith(self.name))

    @property
    def line(self) -> str:
        """The command line that installs it."""
        return f"python -m cloudevents_bridge_contract.emulators install {self.name}"

    def python(self) -> Path:
        """The Python of its environment.

        Raises:
            NotInstalledError: if there is none, or one made from another list.
        """
        if not self._is_made():
            raise NotInstalledError(f"{self.name} is not installed; to get it: {self.line}")
        return self.place / "bin" / "python"

    def install(self) -> bool:
        """Make the environment, if it is not there. False: it was.

        Raises:
            NotInstalledError: if no fitting Python is found, or a package cannot be had.
        """
        if self._is_made():
            return False
        python = next((found for each in self.pythons for found in interpreters(each)), None)
        if python is None:
            wanted = " or ".join(self.pythons)
            raise NotInstalledError(f"{self.name} needs Python {wanted}, and none is on the path or under pyenv")
        shutil.rmtree(self.place, ignore_errors=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        pip = (str(self.place / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check")
        steps = (
            [str(python), "-m", "venv", str(self.place)],
            [*pip, "install", "--no-deps", "--requirement", str(self.lock)],
        )
        for step in steps:
            done = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotInstalledError(f"{self.name} cannot be installed: {done.stderr.strip()[-500:]}")
        self._stamp.write_text(self._made_from())
        return True

    @property
    def _stamp(self) -> Path:
        return self.place / ".made"

    def _is_made(self) -> bool:
        return self._stamp.is_file() and self._stamp.read_text() == self._made_from()

    def _made_from(self) -> str:
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()


LOCALSTACK = Recipe("localstack", ("3.13",))
MINISTACK = Recipe("ministack", ("3.11", "3.12", "3.13"))
RECIPES = {recipe.name: recipe for recipe in (LOCALSTACK, MINISTACK)}


def home() -> Path:
    """The directory of the environments."""
    if named := os.environ.get("CLOUDEVENTS_BRIDGE_EMULATORS"):
        return Path(named).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".emulators").is_dir():
            return folder / ".emulators"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "cloudevents-bridge" / "emulators"


def interpreters(version: str) -> Iterator[Path]:
    """Pythons of a version (`3.13`) on this machine that start."""
    named = f"python{version}"
    candidates = [Path(sys.executable)] if sys.version_info[:2] == tuple(map(int, version.split("."))) else []
    candidates += [Path(found)] if (found := shutil.which(named)) else []
    candidates += sorted(_PYENV_VERSIONS.glob(f"{version}.*/bin/{named}"), reverse=True)
    for each in candidates:
        said = subprocess.run(
            [str(each), "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode == 0 and said.stdout.strip() == version:  # a shim of pyenv may be there for none
            yield each
