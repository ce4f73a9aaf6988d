"""DuckDB, in a file or in memory.

Files are opened read-only unless ``read_only = false``; temporary tables work there all the same.
A connection shared by threads gives wrong answers, so every session has a cursor of its own; a
connection that the caller handed over is used itself, under a lock, because only it sees the
caller's temporary tables and views.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from virtualfs import config
from virtualfs.capabilities import Capabilities
from virtualfs.errors import ConfigError, WarehouseError, did_you_mean, without_secrets

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir
    import pyarrow as pa

__all__ = ["CAPABILITIES", "PROVIDER"]


@cache
def _builtin(name: str, arguments: tuple[str, ...], result: str) -> Any:
    import ibis

    def function() -> None: ...

    parameters = [
        inspect.Parameter(f"argument_{number}", inspect.Parameter.POSITIONAL_ONLY)
        for number in range(len(arguments))
    ]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    types = tuple(ibis.dtype(argument) for argument in arguments)
    return ibis.udf.scalar.builtin(function, name=name, signature=(types, ibis.dtype(result)))


def instant(value: ir.Value, timezone: str, rounding: Literal["up", "down"]) -> ir.Value:
    """Write a time column as a naive UTC TIMESTAMP (rule 9); a plain one stays as it is."""
    kind = value.type()
    if kind.is_date():
        value, kind = value.cast("timestamp(6)"), None
    elif kind.timezone is not None:
        return _without_zone(value)
    elif kind.scale is not None and kind.scale > 6:
        # Euclidean remainder by hand: DuckDB's % takes the sign of the dividend.
        nanos = _builtin("epoch_ns", (_name(value),), "int64")(value)
        rest = ((nanos % 1000) + 1000) % 1000
        micros = (nanos - rest).cast("int64") // 1000
        if rounding == "up":
            micros = micros + (rest > 0).cast("int64")
        value = _builtin("make_timestamp", ("int64",), "timestamp(6)")(micros.cast("int64"))
    elif kind.scale not in (None, 6):
        value = value.cast("timestamp(6)")
    if timezone == "UTC":
        return value
    zoned = _builtin("timezone", ("string", "timestamp(6)"), "timestamp('UTC', 6)")(timezone, value)
    return _without_zone(zoned)


def _without_zone(value: ir.Value) -> ir.Value:
    # Twenty times faster than timezone('UTC', ...), which asks the ICU library for each row.
    micros = _builtin("epoch_us", (_name(value),), "int64")(value)
    return _builtin("make_timestamp", ("int64",), "timestamp(6)")(micros)


def _name(value: ir.Value) -> str:
    return str(value.type()).lstrip("!")


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Hash columns with DuckDB's own hash, an unsigned 64-bit integer."""
    types = tuple(_name(value) for value in values)
    return _builtin("hash", types, "uint64")(*values)


def read_files(path: str) -> str:
    """Return the SELECT that reads a Parquet or CSV path or glob."""
    quoted = path.replace("'", "''")
    plain = path.lower().removesuffix(".gz").removesuffix(".zst")
    if plain.endswith((".csv", ".tsv")):
        return f"SELECT * FROM read_csv('{quoted}')"
    if plain.endswith(".parquet"):
        return f"SELECT * FROM read_parquet('{quoted}')"
    raise ConfigError(f"path {path!r}: expected a name that ends in .parquet, .csv or .csv.gz")


CAPABILITIES = Capabilities(
    engine="DuckDB",
    dialect="duckdb",
    instant=instant,
    row_hash=row_hash,
    asof_join=True,
    read_files=read_files,
)


class DuckDBSession:
    """Statements on one cursor."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def load_spine(self, name: str, table: pa.Table) -> None:
        """Copy an Arrow table into a temporary table.

        A registered Arrow table would be guessed to hold one row, and joins on it planned as
        nested loops; a copy is counted.
        """
        with _readable():
            self._cursor.register(f"{name}_arrow", table)
            try:
                self._cursor.execute(
                    f'CREATE OR REPLACE TEMPORARY TABLE "{name}" AS FROM "{name}_arrow"'
                )
            finally:
                self._cursor.unregister(f"{name}_arrow")

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing."""
        with _readable():
            self._cursor.execute(statement)

    def query(self, statement: str) -> pa.Table:
        """Run a SELECT and return all of its rows."""
        with _readable():
            return self._cursor.execute(statement).to_arrow_table()

    def stream(self, statement: str, rows: int) -> pa.RecordBatchReader:
        """Run a SELECT and return its rows in batches."""
        with _readable():
            return self._cursor.execute(statement).to_arrow_reader(rows)


class DuckDBWarehouse:
    """One open DuckDB database."""

    capabilities = CAPABILITIES

    def __init__(self, name: str, connection: Any, *, owned: bool) -> None:
        self.name = name
        self._connection = connection
        self._owned = owned
        self._lock = threading.RLock()

    @property
    def connection(self) -> Any:
        """The Ibis connection."""
        return self._connection

    @contextmanager
    def session(self, *, shared: bool = False) -> Iterator[DuckDBSession]:
        """Open a session on a cursor of its own, or on the caller's connection under a lock."""
        if self._owned and not shared:
            with _readable():
                cursor = self._connection.con.cursor()
            try:
                yield DuckDBSession(cursor)
            finally:
                cursor.close()
            return
        from virtualfs.compiler.program import SPINE

        with self._lock:
            cursor = self._connection.con
            try:
                yield DuckDBSession(cursor)
            finally:
                # In a transaction that failed nothing can be dropped, nor is anything left.
                with suppress(WarehouseError), _readable():
                    cursor.execute(f'DROP TABLE IF EXISTS temp."{SPINE}"')

    def can_stream(self, *, shared: bool = False) -> bool:
        """Tell whether a stream of such a session stays whole while others run statements.

        A statement on a connection closes the result that is open on it, so only a cursor of its
        own can stream.
        """
        return self._owned and not shared

    def describe(self, select: str) -> Mapping[str, dt.DataType]:
        """Return the columns and types of a SELECT without running it."""
        from ibis.backends.sql.datatypes import DuckDBType

        with self._lock, _readable(self.table_names):
            rows = self._connection.con.execute(f"DESCRIBE {select}").fetchall()
        return {name: DuckDBType.from_string(kind, nullable=True) for name, kind, *_ in rows}

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables and views, for messages."""
        with self._lock:
            rows = self._connection.con.execute(
                "SELECT CASE WHEN table_schema IN ('main', 'temp') THEN table_name "
                "ELSE table_schema || '.' || table_name END FROM information_schema.tables"
            ).fetchall()
        return [name for (name,) in rows]

    def ping(self) -> None:
        """Raise WarehouseError unless the database answers."""
        with self.session() as session:
            session.query("SELECT 1")

    def close(self) -> None:
        """Close the database if this object opened it."""
        if self._owned:
            self._connection.disconnect()


class DuckDBProvider:
    """Opens ``duckdb://path`` URLs; ``duckdb://`` alone is a database in memory."""

    def open(
        self, name: str, settings: config.Warehouse, url: str, folder: Path
    ) -> DuckDBWarehouse:
        """Open a database file (read-only unless the settings say otherwise) or one in memory.

        Raises
        ------
        WarehouseError
            The file does not exist, is no database, or is locked by another process.
        """
        import ibis

        path = url.removeprefix("duckdb://").split("?")[0]
        in_memory = path in ("", ":memory:")
        if not in_memory and settings.read_only and not Path(path).exists():
            raise WarehouseError(
                f"warehouse {name!r}: there is no DuckDB file {path}; check url in virtualfs.toml"
            )
        with _readable():
            connection = ibis.duckdb.connect(
                ":memory:" if in_memory else path, read_only=settings.read_only and not in_memory
            )
        # GLOBAL, because every session is a cursor of its own. Small spines joined to large tables
        # must not become nested loops; relative paths are meant from the configuration's folder.
        place = str(folder).replace("'", "''")
        connection.con.execute("SET GLOBAL asof_loop_join_threshold = 0")
        connection.con.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.con.execute("SET GLOBAL autoinstall_known_extensions = false")
        connection.con.execute(f"SET GLOBAL file_search_path = '{place}'")
        return DuckDBWarehouse(name, connection, owned=True)

    def adopt(self, name: str, connection: Any) -> DuckDBWarehouse:
        """Use the caller's Ibis connection as it is."""
        return DuckDBWarehouse(name, connection, owned=False)


@contextmanager
def _readable(table_names: Any = None) -> Iterator[None]:
    """Turn DuckDB's errors into ours, with what to do next."""
    import duckdb

    try:
        yield
    except duckdb.CatalogException as error:
        message = _first_lines(error)
        if table_names is not None and "Table with name" in message:
            wanted = message.split("Table with name ")[1].split(" does not")[0]
            message = f"there is no table {wanted!r}. {did_you_mean(wanted, table_names())}"
        raise WarehouseError(f"DuckDB: {message}") from None
    except duckdb.IOException as error:
        message = _first_lines(error)
        if "lock" in message.lower():
            message += (
                ". Another process has the file open for writing; close it, or open it "
                "read-only there too"
            )
        raise WarehouseError(f"DuckDB: {message}") from None
    except duckdb.Error as error:
        raise WarehouseError(f"DuckDB: {_first_lines(error)}") from error


def _first_lines(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return without_secrets(" ".join(lines[:2]))


PROVIDER = DuckDBProvider()
