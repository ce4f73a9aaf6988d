"""The online store inside the process: bounded, thread-safe, forgetting the least recently used."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from virtualfs.forks import renew_in_child
from virtualfs.serving.codec import merged_bytes

__all__ = ["MemoryStore"]

_OVERHEAD = 250
"""Bytes that Python needs for one item beside its key and value."""


class MemoryStore:
    """An online store in this process's memory, for ``memory://``.

    Parameters
    ----------
    max_bytes
        Memory that rows may take, about; the least recently used is forgotten first.
    """

    is_remote = False

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Begin empty; a forked child does too, as it would not see its parent's writes."""
        self._bytes = 0
        self._items: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._counts: dict[bytes, tuple[Counter[bytes], float]] = {}
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys` in order, None for those not held."""
        now, items = time.monotonic(), self._items
        found: list[bytes | None] = []
        with self._lock:
            for key in keys:
                item = items.get(key)
                if item is None or item[1] <= now:
                    found.append(self._get(key, now))
                else:
                    items.move_to_end(key)
                    found.append(item[0])
        return found

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        return time.time_ns() // 1000

    def merge_many(
        self, items: Sequence[tuple[bytes, bytes, float | None]], now: int | None = None
    ) -> list[bool]:
        """Keep each value unless what is held is newer; return which of them stay."""
        latest = self.now() if now is None else now
        monotonic = time.monotonic()
        stays = []
        with self._lock:
            for key, value, seconds in items:
                held = self._get(key, monotonic)
                merged, given = (
                    (value, True) if held is None else merged_bytes(held, value, latest)
                )
                stays.append(given)
                if given and merged is not None:
                    self._set(key, merged, monotonic, seconds)
                elif merged is not None:
                    self._items[key] = (merged, self._items[key][1])
        return stays

    def put(self, key: bytes, value: bytes, seconds: float | None) -> None:
        """Keep a value, whatever is held."""
        with self._lock:
            self._set(key, value, time.monotonic(), seconds)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Forget `keys`; return how many were held."""
        with self._lock:
            return sum(self._drop(key) for key in keys)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that begin with `prefix`, in pages."""
        now = time.monotonic()
        with self._lock:
            found = [
                key
                for key, (_, expiry) in self._items.items()
                if key.startswith(prefix) and expiry > now
            ]
        for start in range(0, len(found), 1000):
            yield found[start : start + 1000]

    def sizes(self, keys: Sequence[bytes]) -> list[int]:
        """Return the bytes that each of `keys` takes; 0 for those not held."""
        with self._lock:
            return [
                len(key) + len(self._items[key][0]) + _OVERHEAD if key in self._items else 0
                for key in keys
            ]

    def used_memory(self) -> int:
        """Return the bytes that all rows take."""
        return self._bytes

    def add_counts(self, name: bytes, amounts: Mapping[bytes, int], seconds: float) -> None:
        """Add to the counters kept under a name, for `seconds` from now."""
        now = time.monotonic()
        with self._lock:
            kept = {name: item for name, item in self._counts.items() if item[1] > now}
            counts = kept.get(name, (Counter(), 0.0))[0]
            counts.update(amounts)
            self._counts = {**kept, name: (counts, now + seconds)}

    def top_counts(self, name: bytes, limit: int) -> dict[bytes, int]:
        """Return the greatest counters under a name."""
        with self._lock:
            counts, expiry = self._counts.get(name, (Counter(), 0.0))
            return dict(counts.most_common(limit)) if expiry > time.monotonic() else {}

    def ping(self) -> None:
        """Do nothing: memory always answers."""

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()
            self._counts.clear()
            self._bytes = 0

    def _get(self, key: bytes, now: float) -> bytes | None:
        found = self._items.get(key)
        if found is None:
            return None
        if found[1] <= now:
            self._drop(key)
            return None
        self._items.move_to_end(key)
        return found[0]

    def _set(self, key: bytes, value: bytes, now: float, seconds: float | None) -> None:
        self._drop(key)
        self._items[key] = (value, float("inf") if seconds is None else now + seconds)
        self._bytes += len(key) + len(value) + _OVERHEAD
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._items)))

    def _drop(self, key: bytes) -> bool:
        found = self._items.pop(key, None)
        if found is not None:
            self._bytes -= len(key) + len(found[0]) + _OVERHEAD
        return found is not None
