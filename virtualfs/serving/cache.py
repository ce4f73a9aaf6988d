"""The online store inside the process: bounded, thread-safe, forgetting the least recently used."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

__all__ = ["MemoryStore"]


class MemoryStore:
    """An online store in this process's memory, for ``memory://``.

    Parameters
    ----------
    max_items
        Number of rows kept; the least recently used is forgotten first.
    """

    def __init__(self, max_items: int = 1_000_000) -> None:
        self._max_items = max_items
        self._items: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys` in order, None for those not held."""
        now = time.monotonic()
        found: list[bytes | None] = []
        with self._lock:
            for key in keys:
                value, expiry = self._items.get(key, (None, 0.0))
                if value is not None and expiry <= now:
                    del self._items[key]
                    value = None
                elif value is not None:
                    self._items.move_to_end(key)
                found.append(value)
        return found

    def set_many(self, items: Mapping[bytes, bytes], seconds: float | None) -> None:
        """Keep `items`, for `seconds` or until replaced."""
        expiry = float("inf") if seconds is None else time.monotonic() + seconds
        with self._lock:
            for key, value in items.items():
                self._items[key] = (value, expiry)
                self._items.move_to_end(key)
            while len(self._items) > self._max_items:
                self._items.popitem(last=False)

    def ping(self) -> None:
        """Do nothing: memory always answers."""

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()
