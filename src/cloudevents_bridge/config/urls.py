"""The address of a broker: `scheme://authority/path?query`, which identifies and never holds a credential.

RFC 3986, narrowed: no user information, no fragment, each query key once.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from cloudevents_bridge.driver import Url
from cloudevents_bridge.errors import ConfigurationError

_FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"[^\s\\\"<>^`{|}@]*")
_USER_INFO = re.compile(r"//[^/?#]*@")
_NO_PORT = re.compile(r":(?!\d*(,|$))[^\]]*$")
_SECRET_PART = re.compile(
    r"passw|passphrase|secret|token|accesskey|apikey|sharedaccess|accountkey|privatekey|credential|signature"
)
_SECRET_WORD = frozenset({"auth", "key", "pass", "pwd", "sas", "sig"})
_NO_SECRETS = (
    "a URL identifies a broker and never holds a credential; take it out, "
    "credentials come from the broker's own default chain"
)


def parse_url(text: object) -> Url:
    """The checked address of a broker.

    The scheme is lower-cased; authority, path and query are percent-decoded, so that a `%` in a file's name is written
    `%25`, a `#` as `%23` and a `?` as `%3F`.

    Args:
        text: `scheme://authority/path?query`, such as `sqlite:///events.db`.

    Raises:
        ConfigurationError: if it is no such address, or holds a user, a password, a key or a fragment. The message
            never repeats what may be a secret.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"the broker's URL is a {type(text).__name__}: give a string, scheme://authority/path")
    if not text:
        raise ConfigurationError(
            'the broker\'s URL is empty: give scheme://authority/path, such as "sqlite:///events.db"'
        )
    shown = shorten_url(text)
    if text != text.strip() or _CONTROL.search(text):
        raise ConfigurationError(
            f"the URL {shown} has white space around it or control characters in it: take them out"
        )
    match = _FORM.match(text)
    if match is None:
        raise ConfigurationError(
            f"{shown} is no broker's URL: write scheme://authority/path, such as sqlite:///events.db or memory://name"
        )
    scheme, authority, path, query = match[1].lower(), match[2], match[3], match[4]
    if "@" in authority or ("@" in path and _NO_PORT.search(authority)):
        raise ConfigurationError(f"the URL {shown} holds a user or password: {_NO_SECRETS}")
    if match.end() != len(text):
        raise ConfigurationError(f"the URL {shown} has a fragment: leave out # and what follows, or write # as %23")
    if not _AUTHORITY.fullmatch(authority):
        raise ConfigurationError(
            f"the URL {shown} has a character between :// and the path that no name there may have"
        )
    return Url(
        text=scheme + text[len(scheme) :],
        scheme=scheme,
        authority=_decode(authority, shown),
        path=_decode(path, shown),
        query=MappingProxyType(_query(query, shown)),
    )


def shorten_url(text: str) -> str:
    """The part of a URL that may be shown: never user information, a query value, a fragment or a connection string."""
    head = re.split(r"[?#;\s]", text, maxsplit=1)[0]
    scheme, found, _ = head.partition("://")
    if "@" in text or "=" in head:
        head = f"{scheme}://" if found and _FORM.match(f"{scheme}://") else ""
    elif not found and not re.fullmatch(r"[\w./~-]{1,80}", head):
        head = ""
    head = _CONTROL.sub("", head[:200])
    return repr(head if head == text else head + "…")


def _query(query: str | None, shown: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in query.split("&") if query else ():
        raw_key, found, raw_value = part.partition("=")
        key = _decode(raw_key, shown)
        if not found or not key or not re.fullmatch(r"[\w.-]{1,64}", key):
            raise ConfigurationError(
                f"the URL {shown} has a query part that is not key=value: write ?key=value&key=value"
            )
        value = _decode(raw_value, shown)
        plain = re.sub(r"[^a-z0-9]", "", key.lower())
        if plain in _SECRET_WORD or _SECRET_PART.search(plain) or _USER_INFO.search(value):
            raise ConfigurationError(f"the URL {shown} has a credential in {key}: {_NO_SECRETS}")
        if key in values:
            raise ConfigurationError(f"the URL {shown} gives {key} twice: give it once")
        values[key] = value
    return values


def _decode(part: str, shown: str) -> str:
    if "%" not in part:
        return part
    problem = "a % that is not followed by two hexadecimal digits: write % as %25"
    if not _BAD_ESCAPE.search(part):
        try:
            decoded = unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            problem = "an escape that is no UTF-8"
        else:
            if not _CONTROL.search(decoded):
                return decoded
            problem = "an escaped control character: take it out"
    raise ConfigurationError(f"the URL {shown} has {problem}")
