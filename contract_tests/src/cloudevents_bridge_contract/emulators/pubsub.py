"""Google's own emulator of Pub/Sub, from the jar that comes with the gcloud command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cloudevents_bridge_contract.emulators.process import HOST, Server

INSTALL = "apt-get install google-cloud-cli-pubsub-emulator default-jdk-headless"
"""The line that brings what is missing, where Google's package archive is set up; else `gcloud components install
pubsub-emulator`.
"""
MENDED = "0.8.20"
"""The version that needs the shim, and the only one that gets it."""
_JARS = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"
_SHIM = Path(__file__).with_name("pubsub_shim")
_MAIN = "com.google.cloud.pubsub.testing.v1.Main"


class Missing(Exception):  # noqa: N818 - it is a finding, and no error of the program's
    """The emulator cannot run here; the message says what is missing, and how to get it."""


class Emulator(NamedTuple):
    """What was found. `compiler`: None where the version needs no shim."""

    jar: Path
    version: str
    java: str
    compiler: str | None

    @contextmanager
    def started(self, *, mended: bool = True) -> Iterator[Server]:
        """Run it until the block ends.

        Args:
            mended: False leaves out the shim, to see what it is for.
        """
        with Server("pubsub", lambda server: self._command(server, mended=mended), _serves) as server:
            yield server

    def _command(self, server: Server, *, mended: bool) -> Sequence[str]:
        path = str(self.jar)
        if self.compiler is not None and mended:
            path = f"{self._shim(server.folder)}{os.pathsep}{path}"
        lean = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        return [self.java, *lean, "-cp", path, _MAIN, f"--host={HOST}", f"--port={server.port}"]

    def _shim(self, folder: Path) -> Path:
        """The folder with the compiled shim."""
        assert self.compiler is not None
        classes = folder / "classes"
        classes.mkdir(exist_ok=True)
        sources = [str(each) for each in _SHIM.rglob("*.java")]
        command = [self.compiler, "--release", "11", "-cp", str(self.jar), "-d", str(classes), *sources]
        subprocess.run(command, check=True, capture_output=True)
        return classes


def find(environ: Mapping[str, str] = os.environ) -> Emulator:
    """The emulator on this machine: the newest jar under the folder of `gcloud`, or of CLOUDSDK_ROOT_DIR.

    Raises:
        Missing: if the jar, a Java runtime, or the compiler for the shim is not here.
    """
    jars = [jar for root in _roots(environ) for jar in root.glob(_JARS)]
    if not jars:
        raise Missing(f"Google's Pub/Sub emulator is not installed; to get it: {INSTALL}")
    jar = max(jars, key=_version)
    version = ".".join(map(str, _version(jar)))
    java = _tool("java", environ)
    if java is None:
        raise Missing(f"Google's Pub/Sub emulator needs a Java runtime, 11 or newer; to get it: {INSTALL}")
    compiler = _tool("javac", environ) if version == MENDED else None
    if version == MENDED and compiler is None:
        raise Missing(f"version {MENDED} of Google's Pub/Sub emulator needs javac to be mended; to get it: {INSTALL}")
    return Emulator(jar, version, java, compiler)


def _roots(environ: Mapping[str, str]) -> Iterator[Path]:
    if root := environ.get("CLOUDSDK_ROOT_DIR"):
        yield Path(root)
    if gcloud := shutil.which("gcloud", path=environ.get("PATH")):
        yield Path(gcloud).resolve().parent.parent
    yield Path("/usr/lib/google-cloud-sdk")


def _version(jar: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", jar.name)))


def _tool(name: str, environ: Mapping[str, str]) -> str | None:
    home = environ.get("JAVA_HOME")
    paths = [str(Path(home) / "bin")] if home else []
    return shutil.which(name, path=os.pathsep.join([*paths, environ.get("PATH", "")]))


def _serves(server: Server) -> bool:
    with urllib.request.urlopen(f"http://{server.address}/", timeout=5) as answer:
        return bool(answer.read().strip() == b"Ok")
