"""Who may do what: shared access keys, and the tokens signed with them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from cloudevents_bridge_contract.emulators.servicebus import refusals
from cloudevents_bridge_contract.emulators.servicebus.refusals import Refusal

ALL = frozenset({"Manage", "Send", "Listen"})


class Key(NamedTuple):
    secret: str
    rights: frozenset[str] = ALL


class Claim(NamedTuple):
    """`audience`: the lower-case path below which it holds; empty: everywhere."""

    audience: str
    rights: frozenset[str]
    expires: float

    def allows(self, right: str, path: str, now: float) -> bool:
        below = path.lower() == self.audience or path.lower().startswith(f"{self.audience}/")
        return right in self.rights and self.expires > now and (not self.audience or below)


def claim(token: str, keys: Mapping[str, Key], now: float) -> Claim:
    """What a token allows. One that is no shared access signature is one of Entra ID's: taken as it is, for all.

    Raises:
        Refusal: if it is not signed with one of the keys, or has expired.
    """
    kind, _, rest = token.partition(" ")
    if kind != "SharedAccessSignature" and token:
        return Claim("", ALL, now + 3600)
    fields = dict(urllib.parse.parse_qsl(rest, keep_blank_values=True))
    key = keys.get(fields.get("skn", ""))
    if key is None:
        raise Refusal(refusals.UNAUTHORIZED, "InvalidSignature: The token has an invalid signature.")
    raw = dict(each.partition("=")[::2] for each in rest.split("&"))  # it is signed as it was written
    digest = hmac.new(
        key.secret.encode(), f"{raw.get('sr', '')}\n{raw.get('se', '')}".encode(), hashlib.sha256
    ).digest()
    if not hmac.compare_digest(base64.b64encode(digest).decode(), fields.get("sig", "")):
        raise Refusal(refusals.UNAUTHORIZED, "InvalidSignature: The token has an invalid signature.")
    expires = float(fields["se"]) if fields.get("se", "").isdigit() else 0.0
    if expires <= now:
        raise Refusal(refusals.UNAUTHORIZED, "ExpiredToken: The token is expired.")
    path = urllib.parse.urlsplit(fields["sr"]).path.strip("/").lower()
    return Claim(path, key.rights, expires)
