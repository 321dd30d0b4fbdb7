"""MODULE:ROUTER on the command line: the program's own handlers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudevents_bridge.config.section import suggest

if TYPE_CHECKING:
    from cloudevents_bridge import Router


def load_program(name: str) -> Router | Callable[..., object]:
    """The router or handler that `MODULE:ROUTER` names; the working directory is looked in first.

    Raises:
        click.UsageError: if there is none; it says what is wrong and where.
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise click.UsageError(f"{name!r} names no router: write MODULE:ROUTER, such as shop:router")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any = _import(module_name)
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            names = [each for each in vars(found) if not each.startswith("_")] if hasattr(found, "__dict__") else []
            raise click.UsageError(f"{module_name} has no {path!r}; {suggest(attribute, names)}")
        found = getattr(found, attribute)
    from cloudevents_bridge import Router

    if not isinstance(found, Router) and not callable(found):
        raise click.UsageError(
            f"{name} is of type {type(found).__name__}: it must be a Router, or a function of an event"
        )
    program: Router | Callable[..., object] = found
    return program


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise click.UsageError(
                f"there is no module {error.name!r}, neither in {Path.cwd()} nor installed: go to the directory that "
                "holds it, or install it here"
            ) from error
        raise click.UsageError(f"importing {name} failed: it needs {error.name!r}, which is not installed") from error
    except Exception as error:
        raise click.UsageError(f"importing {name} failed{_where(error)}: {type(error).__name__}: {error}") from error


def _where(error: BaseException) -> str:
    """The last line of the program's own that led to it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {Path(error.filename).name}:{error.lineno}"
    here, trace, found = Path.cwd(), error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(here):
            found = f" at {file.relative_to(here)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
