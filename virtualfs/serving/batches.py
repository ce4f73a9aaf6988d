"""Cache reads of one event loop: those that are wanted while one is under way go out as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Batches"]

Values = list[bytes | None] | None


class Batches:
    """Reads values for the tasks of one event loop, at most one call of the cache at a time.

    Parameters
    ----------
    fetch
        Returns the values of keys, in order; None while the cache is out of reach.
    """

    def __init__(self, fetch: Callable[[Sequence[bytes]], Awaitable[Values]]) -> None:
        self._fetch = fetch
        self._wanted: list[tuple[list[bytes], asyncio.Future[Values]]] = []
        self._is_reading = False
        self._task: asyncio.Task[None] | None = None

    async def fetch(self, keys: list[bytes]) -> Values:
        """Return the values of `keys`, in order; None while the cache is out of reach."""
        if self._is_reading:
            future: asyncio.Future[Values] = asyncio.get_running_loop().create_future()
            self._wanted.append((keys, future))
            return await future
        # Nobody else reads: it needs no task of its own.
        self._is_reading = True
        try:
            return await self._fetch(keys)
        finally:
            if self._wanted:
                self._task = asyncio.get_running_loop().create_task(self._read_all())
            else:
                self._is_reading = False

    async def _read_all(self) -> None:
        try:
            while self._wanted:
                batch, self._wanted = self._wanted, []
                await self._read(batch)
        finally:
            self._is_reading = False
            self._task = None  # which would keep its loop alive

    async def _read(self, batch: Sequence[tuple[list[bytes], asyncio.Future[Values]]]) -> None:
        keys = [key for some, _ in batch for key in some]
        try:
            values = await self._fetch(keys)
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for some, future in batch:
            if not future.done():  # its task may have been cancelled
                end = start + len(some)
                future.set_result(None if values is None else values[start:end])
            start += len(some)
