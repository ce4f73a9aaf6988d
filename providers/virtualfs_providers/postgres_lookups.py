"""Look-ups of a few keys in PostgreSQL: one statement bound to arrays, in one round trip.

Each thread that looks something up has a connection to itself meanwhile. The server ends what takes
too long; a server that does not even do that is noticed by a thread that watches the time, and its
connection is cut.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from virtualfs.forks import abandon, renew_in_child
from virtualfs_providers.postgres_arrow import read_as_text

__all__ = ["PostgresLookups"]

# In a pipeline all up to the next synchronisation is one transaction, so these end with it.
_SETTINGS = (
    "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true), "
    "set_config('standard_conforming_strings', 'on', true), "
    "set_config('transaction_read_only', 'on', true), set_config('statement_timeout', $1, true)"
)
_GRACE = 0.5
"""Seconds that the server has to say that its own time-out has passed."""
_TICK = 0.1

Columns = list[tuple[str, int, int]]
"""Name, type and modifier of each column."""


class PostgresLookups:
    """Runs SELECTs on connections of its own.

    Parameters
    ----------
    connect
        Opens a connection, in autocommit mode.
    """

    def __init__(self, name: str, connect: Callable[[], Any]) -> None:
        self._name = name
        self._connect = connect
        self._idle: list[Any] = []
        self._watch = _Watch(name)
        self._prepares = True
        self._closed = False
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Leave sockets and the watching thread to the parent process."""
        abandon(self._idle, self._watch)
        self._idle, self._watch = [], _Watch(self._name)

    def run(
        self, statement: str, arrays: Sequence[Sequence[Any]], seconds: float
    ) -> tuple[list[tuple[Any, ...]], Columns]:
        """Return the rows of a SELECT, and its columns.

        Raises
        ------
        TimeoutError
            There is no answer in `seconds`.
        psycopg.Error
            The server refuses, or cannot be reached.
        """
        import psycopg

        while True:
            fresh = not self._idle
            try:
                connection = self._idle.pop()
            except IndexError:
                fresh, connection = True, self._connect()
            prepares = self._prepares
            try:
                with self._watch.over(connection, seconds + _GRACE):
                    found = self._ask(connection, statement, arrays, seconds, prepare=prepares)
            except (
                psycopg.errors.InvalidSqlStatementName,
                psycopg.errors.DuplicatePreparedStatement,
            ):
                # A pooler that hands statements to one server process or another.
                connection.close()
                if not prepares:
                    raise
                self._prepares = False
                continue
            except psycopg.errors.FeatureNotSupported:
                # A statement prepared before a column's type was changed is of no use any more.
                connection.close()
                if fresh:
                    raise
                continue
            except psycopg.Error as error:
                if connection.closed or connection.broken:
                    connection.close()
                    if not fresh and not isinstance(error, psycopg.errors.QueryCanceled):
                        continue  # an earlier restart of the server has closed it
                else:
                    self._give_back(connection)
                raise
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return found

    def _ask(
        self,
        connection: Any,
        statement: str,
        arrays: Sequence[Any],
        seconds: float,
        *,
        prepare: bool,
        tolerant: bool = False,
    ) -> tuple[list[tuple[Any, ...]], Columns]:
        import psycopg

        with connection.pipeline():
            settings = psycopg.RawCursor(connection)
            settings.execute(_SETTINGS, [str(max(1, int(seconds * 1000)))], prepare=prepare)
            cursor = psycopg.RawCursor(connection)
            read_as_text(cursor, tolerant=tolerant)
            cursor.execute(statement, arrays, prepare=prepare)
        try:
            rows = cursor.fetchall()
        except psycopg.DataError:  # of a time that Python cannot hold, which is rare
            if tolerant:
                raise
            return self._ask(
                connection, statement, arrays, seconds, prepare=prepare, tolerant=True
            )
        result = cursor.pgresult
        assert result is not None
        encoding = connection.info.encoding
        return rows, [
            ((result.fname(n) or b"").decode(encoding), result.ftype(n), result.fmod(n))
            for n in range(result.nfields)
        ]

    def _give_back(self, connection: Any) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close what is not in use; what is closes itself afterwards."""
        self._closed = True
        self._watch.close()
        while self._idle:
            self._idle.pop().close()


class _Watch:
    """Cuts connections whose time is over. Its thread runs while there is something to watch."""

    def __init__(self, name: str) -> None:
        self._name = f"virtualfs {name} time-outs"
        self._lock = threading.Condition()
        self._cutting = threading.Lock()
        self._ends: dict[Any, float] = {}
        self._cut: set[Any] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def over(self, connection: Any, seconds: float) -> Iterator[None]:
        """Let a connection be used for so many seconds.

        Raises
        ------
        TimeoutError
            They were over.
        """
        self._ends[connection] = time.monotonic() + seconds
        if self._thread is None:
            self._start()
        try:
            yield
        except Exception:
            if connection in self._cut:
                raise TimeoutError("the server is silent") from None
            raise
        finally:
            with self._cutting:
                self._ends.pop(connection, None)
                self._cut.discard(connection)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                self._lock.wait(_TICK if self._ends else 10 * _TICK)
            now = time.monotonic()
            for connection, end in list(self._ends.items()):
                if now <= end or connection in self._cut:
                    continue
                with self._cutting:
                    if self._ends.get(connection) != end:
                        continue  # it came to its end meanwhile
                    self._cut.add(connection)
                    with suppress(Exception):  # it may be gone by now
                        _shut(connection.fileno())

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        with self._lock:
            self._lock.notify_all()


def _shut(number: int) -> None:
    """End what waits for a socket, which stays its owner's."""
    copy = socket.socket(fileno=os.dup(number))
    with copy:
        copy.shutdown(socket.SHUT_RDWR)
