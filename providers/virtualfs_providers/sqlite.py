"""SQLite, in a file or in memory.

SQLite keeps times as text, in several spellings that do not compare, so instants are integers of
microseconds here, read from the text whatever its spelling. It knows no time zones but offsets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from virtualfs import config
from virtualfs.capabilities import (
    Capabilities,
    literal_micros,
    same_micros,
    shift_micros,
)
from virtualfs.compiler import sql
from virtualfs.compiler.allow_list import SqlUse
from virtualfs.compiler.key_forms import UNKNOWN_FORM
from virtualfs.definitions.aggregate import FUNCTIONS
from virtualfs.errors import WarehouseError, did_you_mean, without_secrets
from virtualfs.forks import abandon
from virtualfs.lookups import Columns, Unreadable, marked, values_of
from virtualfs.provider import OneConnection, SessionLookups, SilentCatalog, TemporaryTables
from virtualfs_providers.sqlite_sql import LEXIS, PLANNING_SECONDS, SQLiteGuard

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir
    import pyarrow as pa

__all__ = ["CAPABILITIES", "PROVIDER"]


def instant(value: ir.Value, timezone: str, rounding: Literal["up", "down"]) -> ir.Value:  # noqa: ARG001
    """Read a time, kept as text, as microseconds since 1970 in UTC.

    The text is a date, or a date and a time behind a space or T, perhaps with a fraction, perhaps
    with an offset. SQLite's own functions round to milliseconds, so the fraction is read apart.
    """
    import ibis

    substr = sql.builtin("substr", ("string", "int64", "int64"), "string")
    tail = sql.builtin("substr", ("string", "int64"), "string")
    seconds_of = sql.builtin("strftime", ("string", "string"), "string")
    text = sql.builtin("trim", (sql.type_text(value),), "string")(value)
    # Offsets as people write them; SQLite's own functions read +HH:MM and Z alone. Cases stand
    # beside each other, because its parser's stack is shallow.
    has_clock = substr(text, 14, 1) == ":"
    offset = ibis.cases(
        (tail(text, -1) == "Z", "Z"),
        (has_clock & substr(text, -6, 1).isin(["+", "-"]), tail(text, -6)),
        (
            has_clock & substr(text, -5, 1).isin(["+", "-"]),
            substr(text, -5, 3) + ":" + tail(text, -2),
        ),
        (has_clock & substr(text, -3, 1).isin(["+", "-"]), tail(text, -3) + ":00"),
        else_="",
    )
    whole = ibis.coalesce(
        seconds_of("%s", substr(text, 1, 19) + offset), seconds_of("%s", text)
    ).cast("int64")
    has_fraction = substr(text, 20, 1) == "."
    fraction = ("0" + tail(text, 20)).cast("float64") * 1_000_000
    nearly = 0.9999 if rounding == "up" else 0.0001
    micros = has_fraction.ifelse((fraction + nearly).cast("int64"), 0)
    return whole * 1_000_000 + micros


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Write the row as one text; SQLite has no hash, and text orders as well."""
    written = [sql.builtin("quote", (sql.type_text(value),), "string")(value) for value in values]
    row = written[0]
    for value in written[1:]:
        row = row + "," + value
    return row


CAPABILITIES = Capabilities(
    engine="SQLite",
    dialect="sqlite",
    lexis=LEXIS,
    instant=instant,
    row_hash=row_hash,
    instant_type="int64",
    literal_instant=literal_micros,
    shift=shift_micros,
    micros=same_micros,
    time_zones=False,
    aggregates=frozenset(FUNCTIONS) - {"first", "last", "quantile", "median", "std", "var"},
    collect=None,
    materialized=True,
)


class SQLiteSession(TemporaryTables):
    """Statements on the one connection, each under its lock."""

    def __init__(self, connection: Any, guard: SQLiteGuard) -> None:
        self._connection = connection
        self._guard = guard
        self._lock = guard.lock
        super().__init__()

    def load(self, name: str, table: pa.Table) -> None:
        """Copy Arrow rows into a temporary table, in one prepared statement."""
        import ibis
        from ibis.backends.sql.datatypes import SQLiteType

        schema = ibis.Schema.from_pyarrow(table.schema)
        columns = ", ".join(
            f"{sql.quoted(column, 'sqlite')} {SQLiteType.from_ibis(dtype).sql('sqlite')}"
            for column, dtype in schema.items()
        )
        quoted = sql.quoted(name, "sqlite")
        marks = ", ".join("?" * table.num_columns)
        values = [_written(column.to_pylist()) for column in table.columns]
        self._tables.add(name)
        with self._lock, _readable():
            self._connection.execute(f"CREATE TEMPORARY TABLE {quoted} ({columns})")
            self._connection.executemany(
                f"INSERT INTO temp.{quoted} VALUES ({marks})", zip(*values, strict=True)
            )

    def keep(self, name: str, select: str) -> None:
        """Evaluate a SELECT once, into a temporary table."""
        self._tables.add(name)
        self.execute(f"CREATE TEMPORARY TABLE {sql.quoted(name, 'sqlite')} AS {select}")

    def _drop(self, name: str) -> None:
        self.execute(f"DROP TABLE IF EXISTS temp.{sql.quoted(name, 'sqlite')}")

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing."""
        with self._lock, _readable():
            self._connection.execute(statement)

    def query(self, statement: str, schema: Mapping[str, str]) -> pa.Table:
        """Run a SELECT and return all of its rows, typed as the compiler expects."""
        with _readable(), self._guard.reading():
            rows = self._connection.execute(statement).fetchall()
        return _to_arrow(rows, schema)

    def columns(self, statement: str, schema: Mapping[str, str]) -> Columns:
        """Run a SELECT and return its columns as Python values; a bad one alone is bad."""
        with _readable(), self._guard.reading():
            rows = self._connection.execute(statement).fetchall()
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
        return marked(
            {
                name: _values(name, text, values)
                for (name, text), values in zip(schema.items(), columns, strict=True)
            }
        )

    def stream_columns(
        self, statement: str, schema: Mapping[str, str], rows: int  # noqa: ARG002
    ) -> Iterator[Columns]:  # fmt: skip
        """Run a SELECT and return its rows at once, as Python values."""
        yield self.columns(statement, schema)

    def stream(
        self, statement: str, schema: Mapping[str, str], rows: int  # noqa: ARG002
    ) -> Iterator[pa.Table]:  # fmt: skip
        """Run a SELECT and return its rows at once: there are always temporary tables here."""
        yield self.query(statement, schema)

    def interrupt(self) -> None:
        """Stop the statement that reads, if it is this session's."""
        self._guard.interrupt()

    def explain(self, statement: str) -> str:
        """Return SQLite's plan of a SELECT, without running it."""
        with _readable(), self._guard.reading():
            rows = self._connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        return "\n".join(str(row[3]) for row in rows)


class SQLiteWarehouse(OneConnection, SessionLookups, SilentCatalog):
    """One open SQLite database."""

    capabilities = CAPABILITIES

    _own_guard: SQLiteGuard | None = None

    def _renew(self) -> None:
        super()._renew()
        abandon(self._own_guard)
        self._own_guard = None

    @property
    def _guard(self) -> SQLiteGuard:
        with self._lock:
            if self._own_guard is None:
                self._own_guard = SQLiteGuard(self.connection.con, self._lock)
            return self._own_guard

    @contextmanager
    def session(self, *, shared: bool = False) -> Iterator[SQLiteSession]:  # noqa: ARG002
        """Open a session; every session shares the connection, and its tables have own names."""
        session = SQLiteSession(self.connection.con, self._guard)
        try:
            yield session
        finally:
            session.drop_all()

    def describe(self, select: str) -> Mapping[str, dt.DataType]:
        """Return the columns and types of a SELECT: as declared, else as the first value's."""
        from ibis.backends.sql.datatypes import SQLiteType

        with self._lock, _readable(self.table_names):
            declared = self._declared(select)
        found = {}
        for name, text in declared.items():
            kind = text
            if not kind:
                with _readable(), self._guard.reading(PLANNING_SECONDS):
                    kind = self._type_of_first_value(select, name)
            found[name] = SQLiteType.from_string(kind, nullable=True)
        return found

    def _declared(self, select: str) -> dict[str, str]:
        """Return the columns of a SELECT with their declared types; expressions have none."""
        con, view = self.connection.con, sql.reserved("described")
        con.execute(f'CREATE TEMPORARY VIEW "{view}" AS {select}')
        try:
            rows = con.execute("SELECT name, type FROM pragma_table_info(?)", [view]).fetchall()
        finally:
            con.execute(f'DROP VIEW temp."{view}"')
        return dict(rows)

    def _type_of_first_value(self, select: str, name: str) -> str:
        column = sql.quoted(name, "sqlite")
        row = self.connection.con.execute(
            f"SELECT typeof({column}) FROM (\n{select}\n) WHERE {column} IS NOT NULL LIMIT 1"
        ).fetchone()
        if row is None:
            raise WarehouseError(
                f"SQLite: the type of column {name!r} is not known: it is an expression that has "
                "no value yet; load a row, or write CAST(... AS ...)"
            )
        return str(row[0])

    def judge(self, text: str, use: SqlUse) -> None:
        """Refuse SQL that does anything but read, by what SQLite asks leave for."""
        with _readable():
            self._guard.judge(text, use)

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables and views, for messages."""
        with self._lock:
            rows = self.connection.con.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
            ).fetchall()
        return [name for (name,) in rows]

    def key_forms(self, select: str, columns: Sequence[str]) -> Mapping[str, str]:
        """Return that equal strings have no known form where a table has a collation.

        SQLite goes by the collation of a comparison's left side, which may be either.
        """
        with self._lock, _readable():
            rows = self.connection.con.execute(
                "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            ).fetchall()
        collated = [
            name
            for name, text in rows
            if re.search(r"(?i)\bcollate\s+[\"'\[]?(?!binary\b)", text)
            and name.casefold() in select.casefold()
        ]
        return dict.fromkeys(columns, UNKNOWN_FORM) if collated else {}

    def ping(self) -> None:
        """Raise WarehouseError unless the database answers."""
        with self.session() as session:
            session.query("SELECT 1 AS one", {"one": "int64"})


def _written(values: list[Any]) -> list[Any]:
    """Return values as SQLite keeps them: times as text, decimals as text."""
    return [
        value.isoformat(" ")
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, date | Decimal | timedelta)
        else value
        for value in values
    ]


def _to_arrow(rows: list[tuple[Any, ...]], schema: Mapping[str, str]) -> pa.Table:
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [
        _array(name, text, values)
        for (name, text), values in zip(schema.items(), columns, strict=True)
    ]
    return pa.table(arrays, names=list(schema))


def _array(name: str, text: str, values: Sequence[Any]) -> pa.Array:
    import ibis
    import pyarrow as pa

    dtype = ibis.dtype(text)
    read = _reader(dtype)
    try:
        read_values = [None if value is None else read(value) for value in values]
        return pa.array(read_values, dtype.to_pyarrow())
    except (ArithmeticError, ValueError, TypeError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise WarehouseError(
            f"SQLite: column {name!r} holds a value that is no {text}: {error}. SQLite keeps "
            "any value in any column; cast it in the feature's expr="
        ) from None


def _values(name: str, text: str, values: Sequence[Any]) -> list[Any]:
    """Return values in the form that Arrow gives them, those that do not fit as unreadable."""
    try:
        return values_of(_array(name, text, values), text)
    except WarehouseError as error:
        if len(values) == 1:
            return [Unreadable(str(error))]
        return [item for value in values for item in _values(name, text, [value])]


def _reader(dtype: dt.DataType) -> Any:
    if dtype.is_boolean():
        return bool
    if dtype.is_timestamp():
        return datetime.fromisoformat
    if dtype.is_date():
        return lambda value: date.fromisoformat(value[:10])
    if dtype.is_decimal():
        return lambda value: Decimal(str(value))
    if dtype.is_floating():
        return float
    if dtype.is_integer():
        return _whole
    return lambda value: value


def _whole(value: Any) -> int:
    if value != int(value):
        raise ValueError(f"{value!r}")
    return int(value)


class SQLiteProvider:
    """Opens ``sqlite://path`` URLs; ``sqlite://`` alone is a database in memory."""

    def open(
        self, name: str, settings: config.Warehouse, url: str, folder: Path,  # noqa: ARG002
        roots: Sequence[str] = (),  # noqa: ARG002
    ) -> SQLiteWarehouse:  # fmt: skip
        """Open a database file (read-only unless the settings say otherwise) or one in memory.

        Raises
        ------
        WarehouseError
            The file does not exist or is no database.
        """
        import sqlite3

        import ibis

        path = url.removeprefix("sqlite://").split("?")[0]
        in_memory = path in ("", "/", ":memory:")
        if not in_memory and settings.read_only and not Path(path).exists():
            raise WarehouseError(
                f"warehouse {name!r}: there is no SQLite file {path}; check url in virtualfs.toml"
            )
        place = ":memory:"
        if not in_memory:
            mode = "ro" if settings.read_only else "rwc"
            place = f"{Path(path).resolve().as_uri()}?mode={mode}"

        def connect() -> Any:
            with _readable():
                opened = sqlite3.connect(
                    place, uri=True, check_same_thread=False, isolation_level=None
                )
                opened.execute("SELECT 1 FROM sqlite_master LIMIT 1")
                return ibis.sqlite.from_connection(opened)

        return SQLiteWarehouse(name, connect(), connect)

    def adopt(self, name: str, connection: Any) -> SQLiteWarehouse:
        """Use the caller's Ibis connection as it is."""
        return SQLiteWarehouse(name, connection)


@contextmanager
def _readable(table_names: Any = None) -> Iterator[None]:
    """Turn SQLite's errors into ours, with what to do next."""
    import sqlite3

    try:
        yield
    except sqlite3.Error as error:
        text = without_secrets(str(error))
        if isinstance(error, sqlite3.OperationalError) and text == "interrupted":
            raise KeyboardInterrupt from None
        if table_names is not None and text.startswith("no such table: "):
            wanted = text.removeprefix("no such table: ")
            text = f"there is no table {wanted!r}. {did_you_mean(wanted, table_names())}"
        raise WarehouseError(f"SQLite: {text}") from error


PROVIDER = SQLiteProvider()
