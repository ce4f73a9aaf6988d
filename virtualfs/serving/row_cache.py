"""The cache as reads see it: rows kept near, before the online store behind a circuit breaker."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from virtualfs.errors import OnlineStoreError
from virtualfs.forks import renew_in_child
from virtualfs.serving.breaker import Breaker
from virtualfs.serving.codec import Row
from virtualfs.serving.outages import Outages

if TYPE_CHECKING:
    from virtualfs.provider import OnlineStore
    from virtualfs.serving.near import NearCache

__all__ = ["CLOCK_SKEW", "RowCache"]

_READS = "the cache is away, and reads go to the warehouse"
_WRITES = "rows are not cached"
_FULL = "the cache is full"
_SINCE = struct.Struct(">q")
_NEVER = -(2**63)
CLOCK_SKEW = 5_000_000
"""Microseconds by which the clocks of processes are believed to differ."""
_BUDGET_SECONDS = 1.0
"""How long a look at the memory in use is believed."""


class RowCache:
    """Near rows and the online store of one project.

    Parameters
    ----------
    open_store
        Opens the online store when it is first needed.
    is_remote
        Whether a call of it is a round trip.
    prefix
        What all its keys begin with.
    max_bytes
        Memory in use at which nothing more is written; None for no such bound.
    clock
        Returns the configured time in microseconds since 1970; None where that is the real time.
    """

    def __init__(
        self,
        open_store: Callable[[], OnlineStore],
        near: NearCache | None,
        *,
        is_remote: bool,
        prefix: str,
        max_bytes: int | None = None,
        clock: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.prefix = prefix
        self.is_remote = is_remote
        self._open = open_store
        self._near = near
        self._max_bytes = max_bytes
        self._clock = clock
        self._store: OnlineStore | None = None
        self._since: dict[bytes, int] = {}
        self._looked = (0.0, False)
        self._outages = Outages()
        self._renew()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Make what belongs to one process; the online store renews itself."""
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(4, "virtualfs-cache")
        self._breaker = Breaker(patience=2, first=0.25, longest=4.0, probe=5.0)
        # A breaker of its own, because a full server refuses writes and still answers reads.
        self._write_breaker = Breaker(patience=2, first=0.25, longest=4.0, probe=5.0)

    @property
    def store(self) -> OnlineStore:
        """The online store, opened when first needed.

        Raises
        ------
        OnlineStoreError
            It cannot be reached, so that it cannot even be opened.
        """
        with self._lock:
            if self._store is None:
                self._store = self._open()
            return self._store

    @property
    def is_open(self) -> bool:
        """Whether the online store has been needed yet."""
        return self._store is not None

    @property
    def keeps_near(self) -> bool:
        """Whether rows are kept near."""
        return self._near is not None

    # -- what never fails

    def near_rows(self, places: Sequence[bytes], seconds: float | None = None) -> list[Row | None]:
        """Return the rows kept near, since a moment ago or some seconds; None for others."""
        if self._near is None:
            return [None] * len(places)
        return self._near.get_many(places, seconds)

    def keep_near(self, rows: Iterable[tuple[bytes, Row]]) -> None:
        """Keep rows near for a moment."""
        if self._near is not None:
            self._near.keep(rows)

    def forget_near(self, places: Iterable[bytes] | None) -> None:
        """Forget rows that are kept near; None forgets all."""
        if self._near is None:
            return
        if places is None:
            self._near.clear()
        else:
            self._near.forget(places)

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """Return the values of `keys`; None while the store is out of reach."""
        if not self._breaker.allows():
            return None
        try:
            found = self.store.get_many(keys)
        except OnlineStoreError as error:
            self._missed(error, len(keys))
            return None
        self._breaker.succeeded()
        self._outages.end(_READS)
        return found

    async def fetch_async(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """Return what :meth:`fetch` does, without holding up the event loop."""
        read = getattr(self._store, "get_many_async", None)
        if read is None:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.fetch, keys)
        if not self._breaker.allows():
            return None
        try:
            found: list[bytes | None] = await read(keys)
        except OnlineStoreError as error:
            self._missed(error, len(keys))
            return None
        self._breaker.succeeded()
        self._outages.end(_READS)
        return found

    def _missed(self, error: OnlineStoreError, keys: int) -> None:
        self._breaker.failed(error)
        self._outages.note(_READS, str(error), keys)

    def write(self, items: Sequence[tuple[bytes, bytes, float | None]]) -> None:
        """Keep values unless newer ones are held, if the store can be reached and has room."""
        if not items or not self._write_breaker.allows():
            return
        try:
            if not self.is_remote or self._has_room():
                self.merge(items)
        except OnlineStoreError as error:
            self._write_breaker.failed(error)
            self._outages.note(_WRITES, str(error), len(items))
            return
        self._write_breaker.succeeded()
        self._outages.end(_WRITES)

    def merge(self, items: Sequence[tuple[bytes, bytes, float | None]]) -> list[bool]:
        """Keep values unless newer ones are held, and return which of them stay.

        Raises
        ------
        OnlineStoreError
            The store does not answer, or is full.
        """
        return self.store.merge_many(items, self._clock())

    def now(self, own: int) -> int:
        """Return the time by the store's clock, which all processes share, or else one's own.

        Raises
        ------
        OnlineStoreError
            The store does not answer.
        """
        fixed = self._clock()
        if fixed is not None:
            return fixed
        found = self.store.now()
        return own if found is None else found

    def _has_room(self) -> bool:
        """Tell whether the memory in use is below the budget, as of a moment ago."""
        if self._max_bytes is None:
            return True
        looked, had_room = self._looked
        if time.monotonic() - looked > _BUDGET_SECONDS:
            had_room = self.store.used_memory() < self._max_bytes
            if not had_room:
                what = "the cache uses its max_memory; nothing more is written to it"
                self._outages.note(_FULL, what, 0)
            else:
                self._outages.end(_FULL)
            self._looked = (time.monotonic(), had_room)
        return had_room

    def require_room(self) -> None:
        """Refuse to fill a cache that has no room.

        Raises
        ------
        OnlineStoreError
            Its memory is used up, or it does not answer.
        """
        if self._max_bytes is None:
            return
        used = self.store.used_memory()
        if used >= self._max_bytes * 0.98:  # one that forgets by itself never quite gets there
            raise OnlineStoreError(
                f"the cache uses {used / 1e6:,.0f} MB, and its max_memory is "
                f"{self._max_bytes / 1e6:,.0f} MB; raise it in [cache], or materialize fewer keys, "
                "such as the hottest"
            )

    # -- what was declared invalid

    def since_key(self, prefix: bytes) -> bytes:
        """Return where it is kept since when rows of a view are valid."""
        return prefix[:-1] + b"!since"

    def since(self, prefix: bytes, at: int = 2**62) -> int:
        """Return the instant before which what was known of a view is invalid, in microseconds.

        Parameters
        ----------
        at
            The time. What lies well after it was written by a clock that was ahead, and is ignored.
        """
        found = self._since.get(prefix, _NEVER)
        return found if found <= at + CLOCK_SKEW else _NEVER

    def note_since(self, prefix: bytes, value: bytes | None, at: int = 2**62) -> None:
        """Remember what the store says of it at an instant."""
        if value is not None and len(value) == _SINCE.size:
            self._since[prefix] = max(_SINCE.unpack(value)[0], self.since(prefix, at))

    def ask_since(self, prefix: bytes, at: int) -> int:
        """Return :meth:`since` as the store has it now.

        Raises
        ------
        OnlineStoreError
            The store does not answer.
        """
        self.note_since(prefix, self.store.get_many([self.since_key(prefix)])[0], at)
        return self.since(prefix, at)

    def invalidate(self, prefix: bytes, instant: int) -> None:
        """Declare invalid what was known of a view before an instant, in every process.

        Raises
        ------
        OnlineStoreError
            The store cannot be told.
        """
        value = _SINCE.pack(instant)
        # For ever, as rows that were written from queries of before may be kept as long.
        self.store.put(self.since_key(prefix), value, None)
        self.note_since(prefix, value, instant)

    def close(self) -> None:
        """Close the online store."""
        self._threads.shutdown(wait=False)
        if self._store is not None:
            self._store.close()
