"""What SQL of a definition may do in SQLite, enforced by SQLite's own authorizer.

SQLite asks for leave for everything that a statement would do, while it compiles it: each column
that is read, each function that is called. So nothing has to be concluded from the text, and what
is not listed is refused wherever it hides. A progress handler ends what runs too long.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from virtualfs.capabilities import Lexis
from virtualfs.compiler.allow_list import FunctionCatalog, SqlFunction, SqlUse, not_rowwise
from virtualfs.compiler.judge import check_tokens
from virtualfs.compiler.tokens import arguments_of, calls_in, is_word
from virtualfs.compiler.user_sql import as_derived_table
from virtualfs.errors import DefinitionError, WarehouseError
from virtualfs.forks import no_fork

__all__ = ["LEXIS", "PLANNING_SECONDS", "SQLiteGuard"]

LEXIS = Lexis(
    name_quotes={'"': '"', "`": "`", "[": "]"},
    string_prefixes={"x": False},
    parameters="?:@$#",
)
PLANNING_SECONDS = 5.0
"""How long a query may run whose types SQLite tells by its first row."""
_STEPS = 50_000
"""Instructions of SQLite's machine between two looks at the clock."""
_SETS = frozenset(("generate_series", "json_each", "json_tree"))
"""Tables that are functions, and make rows of their arguments alone."""
_OUTSIDE = re.compile(
    r"load_extension|fts3_tokenizer|fts5\w*|rtree\w*|match|matchinfo|offsets|optimize|highlight|"
    r"snippet|bm25|sqlite_\w+|\w*changes|last_insert_rowid|readfile|writefile|edit|fsdir|sha3_query"
)
_CLOCK = re.compile(r"current_(date|time|timestamp)")
_CLOCK_FUNCTIONS = {
    "date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1,
    "timediff": -1,
}  # fmt: skip
"""Functions of time, and with how many arguments they take the current one."""
_DETERMINISTIC = 0x800
_FUNCTIONS = "SELECT name, type, narg, flags FROM pragma_function_list"
_RELATIONS = """
SELECT name FROM main.sqlite_schema WHERE type IN ('table', 'view')
UNION SELECT name FROM temp.sqlite_schema WHERE type IN ('table', 'view')
"""


class SQLiteGuard:
    """Bounds what statements that read may do on one connection, and for how long.

    Parameters
    ----------
    connection
        Python's own.
    lock
        That of everything that uses the connection.
    """

    def __init__(self, connection: Any, lock: threading.RLock) -> None:
        self.lock = lock
        self._connection = connection
        self._deadline: float | None = None
        self._stopped = False
        # SQLite asks for more when such a table is used for the first time.
        for name in ("json_each", "json_tree"):
            connection.execute(f"SELECT 1 FROM {name}('[]')").fetchall()
        # A handler in Python is also where Ctrl-C is noticed while a statement runs.
        connection.set_progress_handler(self._is_over, _STEPS)

    def _is_over(self) -> int:
        late = self._deadline is not None and time.monotonic() > self._deadline
        return int(self._stopped or late)

    def interrupt(self) -> None:
        """Stop what is being read, from another thread."""
        self._stopped = True

    @contextmanager
    def reading(self, seconds: float | None = None) -> Iterator[None]:
        """Let the connection do nothing but read, perhaps for some seconds at most.

        Raises
        ------
        WarehouseError
            It took longer.
        """
        with self.lock, no_fork():
            self._stopped = False
            self._deadline = None if seconds is None else time.monotonic() + seconds
            self._connection.set_authorizer(_may_read)
            try:
                yield
            except sqlite3.OperationalError as error:
                if str(error) == "interrupted" and self._is_over():
                    what = "it was stopped" if self._stopped else f"no end within {seconds:g} s"
                    raise WarehouseError(
                        f"SQLite: {what}; a query whose first row takes so long cannot be planned"
                    ) from None
                raise
            finally:
                self._connection.set_authorizer(None)
                self._deadline = None

    def judge(self, text: str, use: SqlUse) -> None:
        """Refuse what does anything but read tables and views of this database.

        Raises
        ------
        DefinitionError
            See :meth:`virtualfs.provider.Warehouse.judge`.
        """
        with self.lock:
            catalog = _catalog(self._connection)
            tokens = check_tokens(text, use, LEXIS, catalog)
            if use == "expression":
                for token, after in pairwise(tokens):
                    if is_word(token, "in") and after.text != "(":
                        raise DefinitionError(not_rowwise(f"IN {after.text}, a table,"))
                for call in calls_in(tokens):
                    inside = arguments_of(tokens, call.position + 1)
                    texts = [token.value.lower() for token in inside if token.kind == "string"]
                    _refuse_clock(call.name.lower(), call.arguments, texts)
                return
            relations = {name.lower() for (name,) in self._connection.execute(_RELATIONS)} | _SETS
            asked: list[str] = []

            def authorize(
                action: int, first: str | None, second: str | None, place: str | None, *_: Any
            ) -> int:
                refused = _refusal(action, first, second, relations, catalog)
                if action == sqlite3.SQLITE_READ and place not in ("main", "temp", None):
                    refused = f"{place}.{first} is of another database"
                if refused:
                    asked.append(refused)
                return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

            self._connection.set_authorizer(authorize)
            try:
                self._connection.execute(f"EXPLAIN {as_derived_table(text, LEXIS)}").fetchall()
            except sqlite3.Error as error:
                if asked:
                    raise DefinitionError(asked[0]) from None
                raise DefinitionError(f"not SQL: {error}") from None
            finally:
                self._connection.set_authorizer(None)


def _may_read(action: int, *_: Any) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


_READING = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


def _refusal(
    action: int, first: str | None, second: str | None, relations: set[str],
    catalog: FunctionCatalog,
) -> str:  # fmt: skip
    """Return why something may not be done; empty where it may."""
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
        return ""
    if action == sqlite3.SQLITE_READ:
        if (first or "").lower() in relations:
            return ""
        return f"{first!r} is SQLite's own, not a table of yours"
    if action == sqlite3.SQLITE_FUNCTION:
        name = (second or "").lower()
        known = catalog.functions.get(name)
        if known and any(not f.reaches_outside and f.stability != "volatile" for f in known):
            return ""
        return f"{name}() reads outside the warehouse's tables, or is not the same on each run"
    return f"stored SQL may only read tables and views; it would do more ({first or second})"


def _refuse_clock(name: str, arguments: int, texts: list[str]) -> None:
    takes_now = _CLOCK_FUNCTIONS.get(name)
    if takes_now is None:
        return
    if arguments == takes_now or any(
        text.strip() in ("now", "subsec", "subsecond") for text in texts
    ):
        raise DefinitionError(
            f"{name} of the current time gives another answer on each run, so it cannot be part "
            "of a definition"
        )


def _catalog(connection: Any) -> FunctionCatalog:
    rows = connection.execute(_FUNCTIONS).fetchall()
    return FunctionCatalog.of((row[0], _function(*row)) for row in rows)


def _function(name: str, kind: str, arguments: int, flags: int) -> SqlFunction:
    name = name.lower()
    is_scalar = kind == "s"
    steady: Any = "pure"
    if _CLOCK.fullmatch(name):
        steady = "clock"
    elif is_scalar and not flags & _DETERMINISTIC and name not in ("like", "glob"):
        steady = "volatile"
    return SqlFunction(
        kind="scalar" if is_scalar else "aggregate",
        stability=steady,
        least=2 if is_scalar and name in ("max", "min") else max(arguments, 0),
        most=10**6 if arguments < 0 else arguments,
        reaches_outside=bool(_OUTSIDE.fullmatch(name)),
    )
