"""Look-ups of a few keys in PostgreSQL: one statement bound to arrays, in one round trip.

An event loop in a thread of its own drives an asynchronous pool, so that a look-up that takes too
long is cancelled at the server and gives its connection back, whoever waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from virtualfs_providers.postgres_arrow import read_as_text

__all__ = ["PostgresLookups"]

_SETTINGS = (
    "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true), "
    "set_config('statement_timeout', $1, true)"
)
_GRACE = 0.25
"""Seconds for the server to say that its own time-out has passed."""


class PostgresLookups:
    """Runs SELECTs for threads that wait for them.

    Parameters
    ----------
    options
        Keywords of `psycopg.connect`.
    size
        Connections at most.
    """

    def __init__(self, name: str, url: str, options: dict[str, Any], size: int) -> None:
        self._name = name
        self._url = url
        self._options = options
        self._size = size
        self._pool: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"virtualfs {name} look-ups", daemon=True
        )
        self._thread.start()

    def run(
        self, statement: str, arrays: Sequence[Sequence[Any]], seconds: float
    ) -> tuple[list[tuple[Any, ...]], list[tuple[str, int, int]]]:
        """Return the rows of a SELECT, and the name, type and modifier of its columns.

        Raises
        ------
        TimeoutError
            There is no connection, or no answer, in `seconds`.
        psycopg.Error
            The server refuses.
        """
        work = self._run(statement, arrays, seconds)
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            # The loop's own time-out comes first, unless it waits for a server that is gone.
            found: tuple[Any, Any] = future.result(seconds + 2 * _GRACE)
        except BaseException:
            future.cancel()
            raise
        return found

    async def _run(self, statement: str, arrays: Sequence[Any], seconds: float) -> tuple[Any, Any]:
        import psycopg

        if self._pool is None:
            await self._open()
        milliseconds = str(max(1, int(seconds * 1000)))
        async with (
            asyncio.timeout(seconds + _GRACE),
            self._pool.connection(timeout=seconds) as connection,
        ):
            async with connection.pipeline():
                settings = psycopg.AsyncRawCursor(connection)
                await settings.execute(_SETTINGS, [milliseconds])
                cursor = psycopg.AsyncRawCursor(connection)
                read_as_text(cursor)
                await cursor.execute(statement, arrays)
                await connection.commit()
            rows = await cursor.fetchall()
            result = cursor.pgresult
            assert result is not None
            encoding = connection.info.encoding
            columns = [
                ((result.fname(n) or b"").decode(encoding), result.ftype(n), result.fmod(n))
                for n in range(result.nfields)
            ]
            return rows, columns

    async def _open(self) -> None:
        import psycopg_pool

        async def configure(connection: Any) -> None:
            connection.prepare_threshold = None  # a pooler may answer from another server process
            await connection.set_read_only(True)

        self._pool = psycopg_pool.AsyncConnectionPool(
            self._url, kwargs=self._options, min_size=0, max_size=self._size, open=False,
            configure=configure, reconnect_timeout=1.0, name=f"virtualfs {self._name} look-ups",
        )  # fmt: skip
        await self._pool.open()

    def close(self) -> None:
        """Close the pool and end the thread."""

        async def end() -> None:
            if self._pool is not None:
                await self._pool.close(timeout=1.0)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()
