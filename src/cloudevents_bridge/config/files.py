"""Finding and reading `bridge.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from cloudevents_bridge.config.section import Section
from cloudevents_bridge.errors import ConfigurationError

NAME = "bridge.toml"
VARIABLE = "CLOUDEVENTS_BRIDGE_CONFIG"


def find(config: str | PathLike[str] | None, environ: Mapping[str, str], cwd: Path) -> tuple[Path | None, str]:
    """The file to read and what it was named by: the argument, the environment, or the search upwards from `cwd`.

    Raises:
        ConfigurationError: if a file was named and does not exist.
    """
    if config is not None:
        return _named(cwd / Path(config).expanduser(), "config"), "the argument"
    if (value := variable(VARIABLE, environ)) is not None:
        return _named(cwd / Path(value).expanduser(), VARIABLE), VARIABLE
    for folder in (cwd, *cwd.parents):
        path = folder / NAME
        try:
            if path.is_file():
                return path, f"the nearest above {cwd}"
        except OSError:
            break
    return None, ""


def variable(name: str, environ: Mapping[str, str]) -> str | None:
    """The value of an environment variable, None when unset.

    Raises:
        ConfigurationError: if it is set and empty. Taken for unset, a deployment that lost the value would go on with
            another broker.
    """
    value = environ.get(name)
    if value is not None and not value.strip():
        raise ConfigurationError(f"the environment variable {name} is set but empty: give it a value or unset it")
    return value


def read(path: Path, environ: Mapping[str, str]) -> Section:
    """The whole file.

    Raises:
        ConfigurationError: if it cannot be read, is not UTF-8 or not TOML; it names the file, the line and the problem.
    """
    import tomllib

    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path}: is nested too deeply to be a configuration") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {' '.join(str(error).split())}") from error
    return Section(values, str(path), "", environ)


def _named(path: Path, by: str) -> Path:
    try:
        exists = path.is_file()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise ConfigurationError(
            f"{str(path)!r}, named by {by}, is no file that can be read: correct {by} or create it"
        )
    return path
