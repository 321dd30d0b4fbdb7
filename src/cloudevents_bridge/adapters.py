"""Adapters by entry point: the entry's name is the URL scheme, and only the scheme asked for is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from cloudevents_bridge.driver import Adapter, Url
from cloudevents_bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "cloudevents_bridge.adapters"


@lru_cache(maxsize=64)
def load_adapter(scheme: str) -> Adapter:
    """The adapter of a URL scheme.

    Raises:
        ConfigurationError: if none is installed, two different ones are, or it cannot be imported. It lists the
            schemes that are installed, or names the distribution, and gives the `pip` line.
    """
    from importlib.metadata import entry_points

    entries = {entry.value: entry for entry in entry_points(group=GROUP, name=scheme)}
    if not entries:
        from cloudevents_bridge.config.section import suggest

        raise ConfigurationError(
            f"no adapter for {scheme}:// is installed; {suggest(scheme, installed())}; to get it: {_line(scheme)}"
        )
    if len(entries) > 1:
        names = ", ".join(sorted(_distribution(entry) for entry in entries.values()))
        raise ConfigurationError(f"{scheme}:// is claimed by several distributions: {names}; uninstall all but one")
    [entry] = entries.values()
    try:
        return cast("Adapter", entry.load())
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigurationError(
            f"the adapter for {scheme}:// ({_distribution(entry)}) cannot be imported: {reason}; "
            f"install what it needs: {_line(scheme)}"
        ) from error


def installed() -> Mapping[str, str]:
    """The schemes that have an adapter, each with its distribution and version."""
    from importlib.metadata import entry_points

    return {entry.name: _distribution(entry) for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def check_options(adapter: Adapter, url: Url, options: Mapping[str, Any]) -> None:
    """Refuse query keys and options that the adapter does not know.

    Raises:
        ConfigurationError: it names the key and lists the known ones.
    """
    from cloudevents_bridge.config.section import suggest

    for key in url.query:
        if key not in adapter.query:
            raise ConfigurationError(f"{key!r} is no query key of {url.scheme}:// URLs; {suggest(key, adapter.query)}")
    for key in options:
        if key not in adapter.options:
            raise ConfigurationError(
                f"{key!r} is no option of {url.scheme}:// brokers; {suggest(key, adapter.options)}"
            )


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _line(scheme: str) -> str:
    cloud = re.split(r"[-+.]", scheme, maxsplit=1)[0]
    return f'pip install "cloudevents-bridge[{cloud}]"'
