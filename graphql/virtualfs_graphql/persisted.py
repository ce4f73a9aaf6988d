"""Automatic persisted queries, as Apollo's clients send them: a hash first, the text if need be.

A client sends the SHA-256 of its document. A server that does not know it says so, the client sends
both, and from then on the hash is enough. https://www.apollographql.com/docs/apollo-server/performance/apq
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

__all__ = ["PersistedQueries", "hash_of"]

_MOST = 1_000
"""Documents that are kept, those asked for last."""
_MOST_LENGTH = 500_000
"""Characters of all that are kept."""


def hash_of(extensions: Mapping[str, Any] | None) -> str | None:
    """Return the hash that a request names its document by; None if it does not."""
    asked = (extensions or {}).get("persistedQuery")
    found = asked.get("sha256Hash") if isinstance(asked, dict) else None
    return found.lower() if isinstance(found, str) else None


class PersistedQueries:
    """The documents that clients have sent with their hashes. Each worker keeps its own."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._length = 0

    def get(self, sha256: str) -> str | None:
        """Return the document of a hash."""
        found = self._kept.get(sha256)
        if found is not None:
            self._kept.move_to_end(sha256)
        return found

    def keep(self, sha256: str, text: str) -> bool:
        """Keep a document under its hash; return whether the hash is its own."""
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            return False
        if sha256 not in self._kept:
            self._kept[sha256] = text
            self._length += len(text)
            while len(self._kept) > _MOST or self._length > _MOST_LENGTH:
                _, dropped = self._kept.popitem(last=False)
                self._length -= len(dropped)
        return True
