"""Bearer tokens: which scopes a request has."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from virtualfs.config import LOOPBACK, Scope, Server
from virtualfs.errors import PermissionDeniedError

__all__ = ["ALL", "Tokens"]

ALL: frozenset[Scope] = frozenset(("read", "write", "admin"))
_IMPLIED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset(("read",)),
    "write": frozenset(("read", "write")),
    "admin": ALL,
}
_READ: frozenset[Scope] = frozenset(("read",))
_NONE: frozenset[Scope] = frozenset()


class Tokens:
    """The tokens of one server. Only their hashes are held.

    Parameters
    ----------
    host
        The address that is bound.
    """

    def __init__(self, settings: Server, host: str) -> None:
        is_local = host in LOOPBACK
        self._by_address = settings.open_reads == "loopback" and is_local
        self._open = _READ if settings.open_reads is True or self._by_address else _NONE
        self._known: list[tuple[bytes, frozenset[Scope]]] = []
        if settings.token is not None:
            self._known.append((_hashed(settings.token.get_secret_value()), ALL))
        for token in settings.tokens.values():
            scopes = frozenset().union(*(_IMPLIED[scope] for scope in token.scopes))
            self._known.append((bytes.fromhex(token.hash.removeprefix("sha256:")), scopes))

    @property
    def has_open_reads(self) -> bool:
        """Whether some reads need no token."""
        return bool(self._open)

    def of_request(self, scope: Mapping[str, Any]) -> frozenset[Scope]:
        """Return what a request may do, by its ASGI scope.

        Raises
        ------
        PermissionDeniedError
            It brings a token that is not known, or more than one.
        """
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) > 1:
            raise PermissionDeniedError("there are several Authorization headers; send one")
        open_scopes = self._open
        if self._by_address and not _is_local(scope.get("server")):
            open_scopes = _NONE
        return self._of_token(given[0]) | open_scopes if given else open_scopes

    def _of_token(self, header: bytes) -> frozenset[Scope]:
        scheme, _, given = header.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise PermissionDeniedError("the Authorization header must be 'Bearer TOKEN'")
        hashed = _hashed(given.strip())
        # All are compared, so that time tells nothing of which it is nearest to.
        found = [scopes for known, scopes in self._known if hmac.compare_digest(known, hashed)]
        if not found:
            raise PermissionDeniedError("the token is not known here")
        return found[0]

    def __iter__(self) -> Iterator[frozenset[Scope]]:
        return iter([scopes for _, scopes in self._known])


def _is_local(server: Any) -> bool:
    """Tell whether a request came in by an address that only this machine reaches."""
    return server is None or _is_local_host(str(server[0]))


@lru_cache(maxsize=256)
def _is_local_host(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return True  # a name, as of a socket's path or of a test


def _hashed(token: str) -> bytes:
    # Tokens are long and random, so that a plain hash tells nothing.
    return hashlib.sha256(token.encode()).digest()
