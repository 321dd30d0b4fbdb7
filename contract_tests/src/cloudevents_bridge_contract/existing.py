"""Topics that exist already, for accounts where a test may create nothing."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudevents_bridge import Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError


class Pool:
    """Topics to borrow, each by one case at a time. What others left there is told apart by the event's source."""

    def __init__(self, topics: list[Topic]) -> None:
        self.topics = topics
        self._lock = threading.Lock()
        self._lent: set[str] = set()

    @classmethod
    def read(cls, path: str | Path) -> Pool:
        """The `[topics]` of a file in the form of `bridge.toml`; numbers are seconds.

        Raises:
            ConfigurationError: if the file cannot be read or a declaration is wrong.
        """
        try:
            declared = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("topics", {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"cannot read the existing topics from {path}: {error}") from error
        if not declared:
            raise ConfigurationError(f"{path} declares no topic: write [topics.NAME] as in bridge.toml")
        try:
            return cls([_topic(name, settings) for name, settings in declared.items()])
        except (TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path}: {error}") from error

    @contextmanager
    def borrow(self, wanted: Topic) -> Iterator[Topic | None]:
        """The first free topic that serves as `wanted`; None where there is none."""
        with self._lock:
            found = next((t for t in self.topics if t.name not in self._lent and _serves(t, wanted)), None)
            if found is not None:
                self._lent.add(found.name)
        try:
            yield found
        finally:
            if found is not None:
                with self._lock:
                    self._lent.discard(found.name)


def _topic(name: str, settings: Mapping[str, Any]) -> Topic:
    given = dict(settings)
    subscriptions = given.pop("subscriptions", {})
    return Topic(name, subscriptions=[Subscription(each, **values) for each, values in subscriptions.items()], **given)


def _serves(topic: Topic, wanted: Topic) -> bool:
    pairs = list(zip(topic.subscriptions, wanted.subscriptions, strict=False))
    return (
        topic.ordered == wanted.ordered
        and all(topic.native.get(key) == value for key, value in wanted.native.items())
        and len(pairs) == len(wanted.subscriptions)
        and all(
            have.lease == want.lease and have.max_attempts == want.max_attempts and have.filter == want.filter
            for have, want in pairs
        )
    )
