"""Which keys are read, and how often the cache has them: counted here, gathered in the cache."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from virtualfs.forks import renew_in_child

if TYPE_CHECKING:
    from virtualfs.provider import OnlineStore

__all__ = ["HOURS", "Usage", "hottest", "totals"]

HOURS = 24
"""For how many hours keys count as read lately."""
_SECONDS = 10.0
"""How often counts are gathered in the cache."""
MOST = 1_000
"""Keys of one view that are gathered beside reads, those that were read most: more would hold them
up."""
_BOUND = 200_000
"""Keys that are counted between two gatherings, about."""
HITS, MISSES, STALE = b"hits", b"misses", b"stale"


class Usage:
    """Counts of one process."""

    def __init__(self) -> None:
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Begin at zero, in a forked child too: its parent still writes what it counted."""
        self._lock = threading.Lock()
        self._gathered = time.monotonic()
        self._reset()

    def _reset(self) -> None:
        self._reads: dict[bytes, Counter[bytes]] = {}
        self._totals: dict[bytes, Counter[bytes]] = {}

    def count(self, prefix: bytes, places: Sequence[bytes], misses: int, stale: int) -> None:
        """Count one read of some keys of a view, of which the warehouse was asked for some.

        Stale ones are those that it did not answer.
        """
        reads = self._reads.get(prefix)
        if reads is None:
            reads = self._reads.setdefault(prefix, Counter())
        if len(reads) > _BOUND:
            with self._lock:
                self._reads[prefix] = reads = Counter(
                    dict(Counter(dict(reads)).most_common(_BOUND // 2))
                )
        reads.update(places)
        totals = self._totals.setdefault(prefix, Counter())
        totals[HITS] += len(places) - max(misses, stale)
        totals[MISSES] += max(0, misses - stale)
        totals[STALE] += stale

    def is_due(self) -> bool:
        """Tell whether it is time to gather; of several who ask, one is told so."""
        if time.monotonic() - self._gathered < _SECONDS:
            return False
        with self._lock:
            now = time.monotonic()
            if now - self._gathered < _SECONDS:
                return False
            self._gathered = now
            return True

    def gather(self, store: OnlineStore, most: int | None = None) -> None:
        """Add what was counted to the counters in the cache, and begin anew.

        Parameters
        ----------
        most
            How many keys of each view; all when None.

        Raises
        ------
        OnlineStoreError
            The cache does not answer; what was counted is lost.
        """
        with self._lock:
            reads, totals = self._reads, self._totals
            self._reset()
        hour = int(time.time() // 3600)
        for prefix, counts in reads.items():
            keys = {place[len(prefix) :]: n for place, n in Counter(dict(counts)).most_common(most)}
            if keys:
                store.add_counts(_name(prefix, b"hot", hour), keys, (HOURS + 1) * 3600.0)
        for prefix, counts in totals.items():
            if counts:
                store.add_counts(_name(prefix, b"reads", hour), counts, (HOURS + 1) * 3600.0)


def _name(prefix: bytes, what: bytes, hour: int) -> bytes:
    return prefix[:-1] + b"!" + what + b":%d" % hour


def _summed(store: OnlineStore, prefix: bytes, what: bytes, limit: int) -> Counter[bytes]:
    now = int(time.time() // 3600)
    found: Counter[bytes] = Counter()
    for hour in range(now - HOURS, now + 1):
        found.update(store.top_counts(_name(prefix, what, hour), limit))
    return found


def hottest(store: OnlineStore, prefix: bytes, limit: int) -> list[tuple[bytes, int]]:
    """Return the keys of a view that were read most lately, as they are encoded, with counts."""
    return _summed(store, prefix, b"hot", max(limit, 1000) * 2).most_common(limit)


def totals(store: OnlineStore, prefix: bytes) -> Counter[bytes]:
    """Return how many reads of a view found their key in the cache, and how many did not."""
    return _summed(store, prefix, b"reads", 10)
