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
        self._task: asyncio.Task[None] | None = None

    async def fetch(self, keys: list[bytes]) -> Values:
        """Return the values of `keys`, in order; None while the cache is out of reach."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Values] = loop.create_future()
        self._wanted.append((keys, future))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            await self._read_all()
        finally:
            self._task = None  # which would keep its loop alive

    async def _read_all(self) -> None:
        while self._wanted:
            batch, self._wanted = self._wanted, []
            keys = [key for some, _ in batch for key in some]
            try:
                values = await self._fetch(keys)
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            start = 0
            for some, future in batch:
                if not future.done():  # its task may have been cancelled
                    end = start + len(some)
                    future.set_result(None if values is None else values[start:end])
                start += len(some)
