"""MODULE:ROUTER on the command line: the program's own handlers."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from cloudevents_bridge import Router
from cloudevents_bridge.config.section import suggest


def split_program(name: str) -> tuple[str, str]:
    """Module and attribute of `MODULE:ROUTER`.

    Raises:
        click.UsageError: if it is not of that form.
    """
    module, _, path = name.partition(":")
    if module.endswith(".py") or os.sep in module:
        dotted = module.removesuffix(".py").strip("./").replace(os.sep, ".") or "shop"
        raise click.UsageError(f"{module!r} is a file: name the module, such as {dotted}:{path or 'router'}")
    if not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise click.UsageError(f"{name!r} names no router: write MODULE:ROUTER, such as shop:router")
    return module, path


def load_program(name: str) -> Router | Callable[..., object]:
    """The router or handler that `MODULE:ROUTER` names; the working directory is looked in first.

    Raises:
        click.UsageError: if there is none; it says what is wrong and where.
    """
    module_name, path = split_program(name)
    here = str(Path.cwd())
    if sys.path[:1] not in ([here], [""]):
        sys.path.insert(0, here)
    found: Any = _import(module_name)
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            names = [each for each, value in getattr(found, "__dict__", {}).items() if _may_be_meant(each, value)]
            raise click.UsageError(f"{module_name} has no {path!r}; {suggest(attribute, names)}")
        found = getattr(found, attribute)
    if isinstance(found, type) and issubclass(found, Router):
        raise click.UsageError(f"{name} is the class: name a router that was made of it, with Router()")
    if isinstance(found, Router) and not found._table.routes and found._unmatched == "dead_letter":
        raise click.UsageError(
            f"{name} has no handlers, and would dead-letter every event: decorate functions with .on(…), in "
            f"{module_name} or in a module that it imports"
        )
    if not isinstance(found, Router) and not callable(found):
        raise click.UsageError(
            f"{name} is of type {type(found).__name__}: it must be a Router, or a function of an event"
        )
    program: Router | Callable[..., object] = found
    return program


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            raise click.UsageError(
                f"there is no module {missing!r}, neither in {Path.cwd()} nor installed: go to the directory that "
                "holds it, or install it here"
            ) from error
        what = f"it needs {missing!r}, which is not installed" if missing else f"{type(error).__name__}: {error}"
        raise click.UsageError(f"importing {name} failed{_where(error)}: {what}") from error


def _may_be_meant(name: str, value: object) -> bool:
    return not name.startswith("_") and (isinstance(value, Router) or inspect.isroutine(value))


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
