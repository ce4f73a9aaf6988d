"""Rows kept in the process for a moment, before a cache that is a round trip away."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from virtualfs.forks import renew_in_child
from virtualfs.serving.codec import Row, merged

__all__ = ["NearCache"]


class NearCache:
    """Rows by cache key, in two generations of which the older is forgotten as a whole.

    No lock is taken: every step is one operation on a dict, and a row that two threads keep at once
    is a row of the same key.

    Parameters
    ----------
    seconds
        For how long a row answers without the cache being asked again.
    max_rows
        About how many rows are kept.
    """

    def __init__(self, seconds: float, max_rows: int = 50_000) -> None:
        self._seconds = seconds
        self._half = max(1, max_rows // 2)
        self._young: dict[bytes, tuple[Row, float]] = {}
        self._old: dict[bytes, tuple[Row, float]] = {}
        renew_in_child(self.clear)

    def get_many(self, keys: Sequence[bytes], seconds: float | None = None) -> list[Row | None]:
        """Return rows that were kept a moment ago, or within some seconds."""
        if not self._young and not self._old:
            return [None] * len(keys)
        oldest = time.monotonic() - (self._seconds if seconds is None else seconds)
        found: list[Row | None] = []
        for key in keys:
            kept = self._young.get(key)
            if kept is None:
                kept = self._old.get(key)
                if kept is not None:
                    self._young[key] = kept
            found.append(kept[0] if kept is not None and kept[1] >= oldest else None)
        return found

    def keep(self, rows: Iterable[tuple[bytes, Row]]) -> None:
        """Keep rows that the cache or the warehouse just gave."""
        now = time.monotonic()
        for key, row in rows:
            held = self._young.get(key) or self._old.get(key)
            # What was kept longer ago may have been invalidated since.
            is_recent = held is not None and now - held[1] <= self._seconds and row.values
            self._young[key] = (merged(held[0], row) if held and is_recent else row, now)
        if len(self._young) > self._half:
            self._old, self._young = self._young, {}

    def forget(self, keys: Iterable[bytes]) -> None:
        """Forget rows."""
        for key in keys:
            self._young.pop(key, None)
            self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}
