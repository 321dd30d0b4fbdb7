"""What `connect` goes by, put together from arguments, environment and `bridge.toml`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from cloudevents_bridge.config import files
from cloudevents_bridge.config.section import Section, suggest
from cloudevents_bridge.config.topics import build, declared_layer, file_layer, retry_policy
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge.driver import Url
from cloudevents_bridge.errors import ConfigurationError, UnsupportedError
from cloudevents_bridge.topics import RetryPolicy, Topic

URL_VARIABLE = "CLOUDEVENTS_BRIDGE_URL"
PROFILE_VARIABLE = "CLOUDEVENTS_BRIDGE_PROFILE"

_FILE_KEYS = ("default", "requires", "topics", "profiles")
_PROFILE_KEYS = (
    "url",
    "endpoint",
    "create_missing",
    "retry",
    "timeout",
    "requires",
    "telemetry",
    "options",
    "topics",
)
_MIGRATION_KEYS = ("publish", "publish_mode", "spool", "subscribe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one broker.

    Attributes:
        options: the adapter's own options, `endpoint` among them.
        topics: the declared topics, the profile's overrides put in.
        requires: capabilities, by name, that the broker must have.
        retry, timeout (seconds), telemetry: None where nothing was said.
        profile, file: where they came from, if from there.
        origins: for each key, in words, where its value came from.
    """

    url: Url
    options: Mapping[str, Any]
    topics: tuple[Topic, ...]
    create_missing: bool
    requires: tuple[str, ...]
    retry: RetryPolicy | None
    timeout: float | None
    telemetry: bool | None
    profile: str | None
    file: Path | None
    origins: Mapping[str, str]


def load(
    url: str | None = None,
    *,
    profile: str | None = None,
    config: str | PathLike[str] | None = None,
    topics: Iterable[Topic] = (),
    environ: Mapping[str, str] = os.environ,
    cwd: str | PathLike[str] | None = None,
) -> Settings:
    """Find out which broker is meant, and how it is to be used. No I/O but reading `bridge.toml`.

    The broker is named by, in this order: `url`, `profile`, CLOUDEVENTS_BRIDGE_URL, CLOUDEVENTS_BRIDGE_PROFILE, the
    file's `default`. A bare URL keeps the file's `[topics]` and `requires`.

    The file is `config`, else CLOUDEVENTS_BRIDGE_CONFIG names it, else `bridge.toml` is searched upwards from `cwd`. A
    relative SQLite path in it is relative to its folder. `topics` are the program's own declarations: the file's are
    laid over them key by key, and the profile's over both.

    Raises:
        ConfigurationError: if no broker is named, or a value, a file or a variable is wrong; one line that names it.
        UnsupportedError: if the profile uses what this version does not have.
    """
    folder = Path.cwd() if cwd is None else Path(cwd).absolute()
    path, by = files.find(config, environ, folder)
    whole = Section({}, "", "", environ) if path is None else files.read(path, environ)
    whole.only(_FILE_KEYS)
    origins = {} if path is None else {"file": by}
    if url is not None:
        address, origins["url"] = parse_url(url), "the argument"
    elif profile is None and (value := files.variable(URL_VARIABLE, environ)) is not None:
        address, origins["url"] = _named(value, URL_VARIABLE), URL_VARIABLE
    else:
        profile, origins["profile"] = _choose_profile(profile, whole, path, environ)
        return _of_profile(profile, whole, path, topics, origins)
    return _make(address, None, Section({}, "", "", environ), whole, path, topics, origins)


def profiles(
    *,
    config: str | PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: str | PathLike[str] | None = None,
) -> tuple[str, ...]:
    """The names of the file's profiles; empty without a file.

    Raises:
        ConfigurationError: if the file cannot be read.
    """
    folder = Path.cwd() if cwd is None else Path(cwd).absolute()
    path, _ = files.find(config, environ, folder)
    return () if path is None else tuple(files.read(path, environ).table("profiles"))


def _named(url: str, by: str) -> Url:
    try:
        return parse_url(url)
    except ConfigurationError as error:
        raise ConfigurationError(f"{by}: {error}") from error


def _choose_profile(
    profile: str | None, whole: Section, path: Path | None, environ: Mapping[str, str]
) -> tuple[str, str]:
    if profile is not None:
        by = "the argument"
    elif (value := files.variable(PROFILE_VARIABLE, environ)) is not None:
        profile, by = value, PROFILE_VARIABLE
    elif "default" in whole:
        profile, by = whole.text("default"), f"{whole.file}: default"
    else:
        raise ConfigurationError(_unconfigured(whole, path))
    if path is None:
        raise ConfigurationError(
            f"profile {profile!r} ({by}) cannot be found: there is no {files.NAME} here or in a folder above; "
            f'write one with [profiles.{profile}] and url = "…", or give a URL'
        )
    known = whole.table("profiles")
    if profile not in known:
        raise ConfigurationError(f"{path}: has no profile {profile!r} ({by}); {suggest(profile, known)}")
    return profile, by


def _unconfigured(whole: Section, path: Path | None) -> str:
    line = f'export {URL_VARIABLE}="sqlite:///events.db"'
    if path is None:
        return f"no broker is configured: give a URL, or write {line}"
    names = list(whole.table("profiles"))
    if not names:
        return f'no broker is configured: {path} has no profile; write profiles.local.url = "sqlite:///events.db" in it'
    return f'no broker is configured: choose a profile of {path} ({", ".join(names)}) or write default = "{names[0]}"'


def _of_profile(
    name: str, whole: Section, path: Path | None, topics: Iterable[Topic], origins: dict[str, str]
) -> Settings:
    section = whole.table("profiles").table(name)
    for key in _MIGRATION_KEYS:
        if key in section:
            raise UnsupportedError(
                f"{section.file}: {section.key(key)} is not supported yet by this version; "
                "use a profile that has a url of its own"
            )
    section.only(_PROFILE_KEYS)
    if "url" not in section:
        raise ConfigurationError(
            f'{section.file}: {section.path} has no url: write {section.key("url")} = "sqlite:///events.db", or another'
        )
    by = f"{section.file}: {section.key('url')}"
    address = _named(section.text("url"), by)
    assert path is not None
    origins["url"] = by
    return _make(_beside(address, path), name, section, whole, path, topics, origins)


def _beside(url: Url, path: Path) -> Url:
    """A relative SQLite file belongs to the folder of `bridge.toml`: the same file from every sub-folder."""
    file = url.path.removeprefix("/")
    if url.scheme != "sqlite" or url.authority or not file or file.startswith(":") or Path(file).is_absolute():
        return url
    _, mark, query = url.text.partition("?")
    there = quote((path.absolute().parent / file).as_posix(), safe="/:@!$&'()*+,;=~")
    return parse_url(f"sqlite:///{there}{mark}{query}")


def _make(
    url: Url,
    profile: str | None,
    section: Section,
    whole: Section,
    path: Path | None,
    topics: Iterable[Topic],
    origins: dict[str, str],
) -> Settings:
    def origin(key: str, within: Section = section) -> bool:
        if key in within:
            origins[key] = f"{within.file}: {within.key(key)}"
        return key in within

    options = section.table("options").plain()
    for key in options:
        origins[key] = f"{section.file}: {section.key('options')}.{key}"
    if origin("endpoint"):
        if "endpoint" in options:
            section.fail("endpoint", "is also given in options: give it once")
        options["endpoint"] = section.text("endpoint")
    if "@" in str(options.get("endpoint", "")):
        section.fail("endpoint", "holds a user or password: take it out, credentials come from the broker's own chain")
    declared = tuple(topics)
    base, over = file_layer(whole.table("topics")), file_layer(section.table("topics"))
    for layer, where in (
        (declared, "the argument"),
        (base, f"{whole.file}: topics"),
        (over, f"{section.file}: {section.key('topics')}"),
    ):
        for name in (each.name if isinstance(each, Topic) else each for each in layer):
            have = origins.get(f"topics.{name}")
            origins[f"topics.{name}"] = f"{have}; {where}" if have else where
    requires = dict.fromkeys(whole.capabilities("requires") if origin("requires", whole) else ())
    if "requires" in section:
        first = origins.get("requires")
        origin("requires")
        origins["requires"] = "; ".join(filter(None, (first, origins["requires"])))
        requires |= dict.fromkeys(section.capabilities("requires"))
    timeout = section.duration("timeout") if origin("timeout") else None
    if timeout == 0:
        section.fail("timeout", "is 0: give seconds above 0, or leave it out")
    return Settings(
        url=url,
        options=MappingProxyType(options),
        topics=build(declared_layer(declared), base, over),
        create_missing=section.flag("create_missing") if origin("create_missing") else False,
        requires=tuple(requires),
        retry=_retry(section) if origin("retry") else None,
        timeout=timeout,
        telemetry=section.flag("telemetry") if origin("telemetry") else None,
        profile=profile,
        file=path,
        origins=MappingProxyType(origins),
    )


def _retry(section: Section) -> RetryPolicy:
    return retry_policy(section.table("retry"), RetryPolicy(), ("attempts", "initial", "maximum", "factor"))
