"""Bearer tokens: which scopes a request has."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

from virtualfs.config import Scope, Server
from virtualfs.errors import PermissionDeniedError

__all__ = ["ALL", "Tokens"]

ALL: frozenset[Scope] = frozenset(("read", "write", "admin"))
_IMPLIED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset(("read",)),
    "write": frozenset(("read", "write")),
    "admin": ALL,
}


class Tokens:
    """The tokens of one server. Only their hashes are held."""

    def __init__(self, settings: Server) -> None:
        self._open: frozenset[Scope] = frozenset(("read",) if settings.open_reads else ())
        self._known: list[tuple[bytes, frozenset[Scope]]] = []
        if settings.token is not None:
            self._known.append((_hashed(settings.token.get_secret_value()), ALL))
        for token in settings.tokens.values():
            scopes = frozenset().union(*(_IMPLIED[scope] for scope in token.scopes))
            self._known.append((bytes.fromhex(token.hash.removeprefix("sha256:")), scopes))

    def scopes(self, header: bytes | None) -> frozenset[Scope]:
        """Return what a request may do, by its Authorization header.

        Raises
        ------
        PermissionDeniedError
            It brings a token that is not known.
        """
        if header is None:
            return self._open
        scheme, _, given = header.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise PermissionDeniedError("the Authorization header must be 'Bearer TOKEN'")
        hashed = _hashed(given.strip())
        # All are compared, so that time tells nothing of which it is nearest to.
        found = [scopes for known, scopes in self._known if hmac.compare_digest(known, hashed)]
        if not found:
            raise PermissionDeniedError("the token is not known here")
        return found[0] | self._open

    def __iter__(self) -> Iterator[frozenset[Scope]]:
        return iter([scopes for _, scopes in self._known])


def _hashed(token: str) -> bytes:
    # Tokens are long and random, so that a plain hash tells nothing.
    return hashlib.sha256(token.encode()).digest()
