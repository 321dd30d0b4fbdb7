"""Who may call: access keys, shared access signatures and bearer tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import unquote

from cloudevents_bridge_contract.emulators.eventgrid.problems import unauthorized


class Access:
    """What is accepted.

    Args:
        key: the access key of the namespace and of every custom topic, in base64.
        token: the bearer token that is accepted; None: every one.
    """

    def __init__(self, key: str, token: str | None = None) -> None:
        self._key, self._token = key, token

    def check_namespace(self, headers: Mapping[str, str]) -> None:
        """Raises:
        Problem: 401 where the caller has neither the key nor a token.
        """
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "sharedaccesskey" and _same(credential, self._key):
            return
        self._bearer(scheme, credential)

    def check_custom(self, headers: Mapping[str, str]) -> None:
        """Raises:
        Problem: 401 where the caller has neither the key, nor a valid signature, nor a token.
        """
        if "aeg-sas-key" in headers:
            if not _same(headers["aeg-sas-key"], self._key):
                raise unauthorized("The access key is not valid.")
            return
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        signature = headers.get("aeg-sas-token") or (credential if scheme.lower() == "sharedaccesssignature" else "")
        if signature:
            self._signed(signature)
            return
        self._bearer(scheme, credential)

    def _bearer(self, scheme: str, credential: str) -> None:
        if scheme.lower() != "bearer" or not credential:
            raise unauthorized("The request has no valid access key, signature or token.")
        if self._token is not None and not _same(credential, self._token):
            raise unauthorized("The token is not valid.")

    def _signed(self, token: str) -> None:
        unsigned, _, signature = token.rpartition("&s=")
        made = hmac.new(base64.b64decode(self._key), unsigned.encode(), hashlib.sha256).digest()
        if not _same(unquote(signature), base64.b64encode(made).decode()):
            raise unauthorized("The shared access signature is not valid.")
        until = unquote(dict(part.partition("=")[::2] for part in unsigned.split("&")).get("e", ""))
        if _moment(until) <= datetime.now(UTC):
            raise unauthorized("The shared access signature has expired.")


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())


def _moment(text: str) -> datetime:
    """A moment as the SDKs write it: that of Python in ISO 8601, that of .NET as in the United States."""
    for read in (datetime.fromisoformat, lambda each: datetime.strptime(each, "%m/%d/%Y %I:%M:%S %p")):  # noqa: DTZ007
        try:
            moment = read(text)
        except ValueError:
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise unauthorized("The shared access signature has no readable expiry.")
