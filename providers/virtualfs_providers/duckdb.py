"""DuckDB, in a file or in memory.

Files are opened read-only unless ``read_only = false``; temporary tables work there all the same.
A connection shared by threads gives wrong answers, so every session has a cursor of its own; a
connection that the caller handed over is used itself, statement by statement under a lock, because
only it sees the caller's temporary tables and views.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

from sqlglot import exp

from virtualfs import config
from virtualfs.capabilities import Capabilities, Files, Statistics, round_up
from virtualfs.catalog import CatalogColumn, CatalogTable, assembled, share_to_read
from virtualfs.compiler import sql
from virtualfs.compiler.allow_list import SqlUse
from virtualfs.compiler.ibis_query import query_table
from virtualfs.compiler.plan import ResolvedView
from virtualfs.compiler.program import is_plain, with_head
from virtualfs.compiler.time_range import bind_range
from virtualfs.compiler.user_sql import tree_of_query
from virtualfs.dtypes import type_name
from virtualfs.errors import ConfigError, WarehouseError, did_you_mean, without_secrets
from virtualfs.forks import abandon, call_around_fork, no_fork
from virtualfs.lookups import Columns, KeySpine, columns_of
from virtualfs.provider import (
    ProbedKeys,
    Reopened,
    SessionLookups,
    SilentCatalog,
    TemporaryTables,
    interrupted,
    named_once,
)
from virtualfs_providers.duckdb_lookups import has_plain_columns, inline_spine, plain_columns
from virtualfs_providers.duckdb_sql import LEXIS, DuckDBJudge, quoted_text
from virtualfs_providers.lake import Lake, Snapshots, delta_scan

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir
    import pyarrow as pa

__all__ = ["CAPABILITIES", "PROVIDER"]

_INSTANT = "timestamp(6)"
_EVER = 2**61
"""Microseconds that differ from any instant's by more than any window is long."""


def instant(value: ir.Value, timezone: str, rounding: Literal["up", "down"]) -> ir.Value:
    """Write a time column as a naive UTC TIMESTAMP (rule 9); a plain one stays as it is."""
    kind = value.type()
    if kind.is_date():
        value, kind = value.cast("timestamp(6)"), None
    elif kind.timezone is not None:
        return _without_zone(value)
    elif kind.scale is not None and kind.scale > 6:
        # Euclidean remainder by hand: DuckDB's % takes the sign of the dividend.
        nanos = sql.builtin("epoch_ns", (sql.type_text(value),), "int64")(value)
        rest = ((nanos % 1000) + 1000) % 1000
        micros = (nanos - rest).cast("int64") // 1000
        if rounding == "up":
            micros = micros + (rest > 0).cast("int64")
        value = sql.builtin("make_timestamp", ("int64",), "timestamp(6)")(micros.cast("int64"))
    elif kind.scale not in (None, 6):
        value = value.cast("timestamp(6)")
    if timezone == "UTC":
        return value
    zoned = sql.builtin("timezone", ("string", "timestamp(6)"), "timestamp('UTC', 6)")(
        timezone, value
    )
    return _without_zone(zoned)


def _without_zone(value: ir.Value) -> ir.Value:
    # Twenty times faster than timezone('UTC', ...), which asks the ICU library for each row; but
    # infinities have no microseconds. A cast would be by the connection's zone, were they finite.
    import ibis

    micros = sql.builtin("epoch_us", (sql.type_text(value),), "int64")(value)
    finite = sql.builtin("make_timestamp", ("int64",), "timestamp(6)")(micros)
    return ibis.coalesce(finite, value.cast("timestamp(6)"))


def micros(value: ir.Value) -> ir.Value:
    """Write an instant as microseconds since 1970; those for ever as more than any other."""
    import ibis

    counted = sql.builtin("epoch_us", (_INSTANT,), "int64")(value)
    before = value < ibis.literal("1970-01-01").cast(_INSTANT)
    endless = ibis.cases(
        (value.isnull(), ibis.null("int64")), (before, -_EVER), else_=ibis.literal(_EVER)
    )
    return ibis.coalesce(counted, endless)


def variance(value: ir.Value, how: Literal["sample", "pop"], where: ir.Value | None) -> ir.Value:
    """Write a variance as a covariance, which DuckDB computes alike but lets be NaN."""
    return value.cov(value, how=how, where=where)


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Hash columns with DuckDB's own hash, an unsigned 64-bit integer."""
    # The hash of a nested NULL is that of an empty list; their texts differ.
    told = [value.cast("string") if value.type().is_nested() else value for value in values]
    types = tuple(sql.type_text(value) for value in told)
    return sql.builtin("hash", types, "uint64")(*told)


@cache
def _ibis_type(native: str) -> dt.DataType:
    import ibis.expr.datatypes as dt
    from ibis.backends.sql.datatypes import DuckDBType

    try:
        return DuckDBType.from_string(native, nullable=True)
    except Exception:  # noqa: BLE001 - of types that it does not know Ibis raises several kinds
        return dt.Unknown(native)


def read_files(files: Files) -> str:
    """Return the SELECT that reads Parquet or CSV files, or a Delta table."""
    if files.format == "delta":
        return delta_scan(files)
    folders = "" if files.folders else ", hive_partitioning = false"
    return f"SELECT * FROM read_{files.format}({quoted_text(files.path)}{folders})"


CAPABILITIES = Capabilities(
    engine="DuckDB",
    dialect="duckdb",
    lexis=LEXIS,
    instant=instant,
    row_hash=row_hash,
    micros=micros,
    prefix_sums=True,
    exact=lambda whole: whole.cast("decimal(38, 0)"),
    variance=variance,
    asof_join=True,
    materialized=True,
    replace_table=True,
    read_files=read_files,
)


def _engine_settings(warehouse: str, query: str) -> dict[str, str]:
    """Return the engine's settings that a URL ends in, such as ``memory_limit=4GB&threads=2``."""
    try:
        found = dict(parse_qsl(query, strict_parsing=bool(query)))
    except ValueError:
        raise ConfigError(
            f"warehouses.{warehouse}.url: {query!r} is not a list of settings; write "
            "duckdb://PATH?memory_limit=4GB&threads=2"
        ) from None
    if "read_only" in found:
        raise ConfigError(
            f"warehouses.{warehouse}.url: read_only is a setting of its own: write "
            f"read_only = false in [warehouses.{warehouse}]"
        )
    return found


class DuckDBSession(TemporaryTables):
    """Statements on one cursor, each under a lock where others use the cursor too."""

    def __init__(self, cursor: Any, lock: Any, lake: Lake) -> None:
        self._cursor = cursor
        self._lake = lake
        self._known: Snapshots = {}
        self._alone = lock is None
        self._lock = lock or nullcontext()
        super().__init__()

    def _run(self, statement: str) -> Any:
        return self._cursor.execute(self._lake.prepared(statement, self._known))

    def load(self, name: str, table: pa.Table) -> None:
        """Copy an Arrow table into a temporary table.

        A registered Arrow table would be guessed to hold one row, and joins on it planned as
        nested loops; a copy is counted, unless a transaction is open, which hides its size.
        """
        with self._lock, _readable():
            self._cursor.register(f"{name}_arrow", table)
            try:
                self.keep(name, f'FROM "{name}_arrow"')
            finally:
                self._cursor.unregister(f"{name}_arrow")

    def keep(self, name: str, select: str) -> None:
        """Evaluate a SELECT once, into a temporary table."""
        self._tables.add(name)
        self.execute(f'CREATE TEMPORARY TABLE "{name}" AS {select}')

    def _drop(self, name: str) -> None:
        self.execute(f'DROP TABLE IF EXISTS temp."{name}"')

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing."""
        with self._lock, _readable():
            self._run(statement)

    def query(self, statement: str, schema: Mapping[str, str] | None = None) -> pa.Table:  # noqa: ARG002
        """Run a SELECT and return all of its rows."""
        with self._lock, _readable():
            return self._run(statement).to_arrow_table()

    def columns(self, statement: str, schema: Mapping[str, str], head: str = "") -> Columns:
        """Run the SELECT of a look-up and return its columns as Python values.

        Parameters
        ----------
        head
            What the statement begins with to hold its keys, which are no part of its text.
        """
        with self._lock, _readable():
            text = with_head(head, self._lake.prepared(statement, self._known))
            found = self._cursor.execute(text)
            if has_plain_columns(found, schema):
                with suppress(ValueError, OverflowError):  # what Python cannot hold, Arrow can
                    return plain_columns(found, schema)
                found = self._cursor.execute(text)
            return columns_of(found.to_arrow_table(), schema)

    def stream(
        self, statement: str, schema: Mapping[str, str], rows: int  # noqa: ARG002
    ) -> Iterator[pa.Table]:  # fmt: skip
        """Run a SELECT and return its rows in pieces; at once where others use the cursor too."""
        import pyarrow as pa

        if not self._alone:
            yield self.query(statement)
            return
        with _readable():
            batches = self._run(statement).to_arrow_reader(rows)
            first = True
            for batch in batches:
                first = False
                yield pa.Table.from_batches([batch])
            if first:
                yield batches.schema.empty_table()

    def interrupt(self) -> None:
        """Stop the statement that runs, if it is surely this session's."""
        if self._alone:
            self._cursor.interrupt()

    def explain(self, statement: str) -> str:
        """Return DuckDB's plan of a SELECT, without running it."""
        with self._lock, _readable():
            return str(self._run(f"EXPLAIN {statement}").fetchall()[0][1])


_MOMENT = 5.0
"""Seconds that a sample may take."""
_FORK_SECONDS = 5.0
"""Seconds that a fork waits for a statement on the caller's connection."""
_TABLES = """
SELECT table_oid, schema_name, table_name, false, estimated_size, comment FROM duckdb_tables()
WHERE NOT internal AND database_name = current_database()
UNION ALL
SELECT view_oid, schema_name, view_name, true, NULL, comment FROM duckdb_views()
WHERE NOT internal AND database_name = current_database()
ORDER BY schema_name, table_name
"""
_TEMPORARY = """
SELECT table_name FROM duckdb_tables() WHERE temporary
UNION ALL SELECT view_name FROM duckdb_views() WHERE temporary
"""
_COLUMNS = """
SELECT table_oid, column_name, data_type, is_nullable, comment FROM duckdb_columns()
WHERE NOT internal AND database_name = current_database() ORDER BY table_oid, column_index
"""
_CONSTRAINTS = """
SELECT table_oid, lower(constraint_type[1]), constraint_column_names, schema_name,
       referenced_table, referenced_column_names
FROM duckdb_constraints() WHERE database_name = current_database() ORDER BY constraint_index
"""


class _Database:
    """An open database with what belongs to it."""

    def __init__(self, con: Any, connection: Any = None) -> None:
        self.con = con
        self.lake = Lake(con)
        self.judge = DuckDBJudge(con)
        self._ibis = connection
        self._attached: str | None = None

    @property
    def connection(self) -> Any:
        """The Ibis connection, made when first needed: look-ups need none."""
        if self._ibis is None:
            import ibis

            self._ibis = ibis.duckdb.from_connection(self.con)
        return self._ibis

    def attach(self, path: str, *, read_only: bool) -> None:
        """Make a database file the one that names are looked up in."""
        mode = " (READ_ONLY)" if read_only else ""
        self._attached = sql.quoted(Path(path).stem, "duckdb")
        self.con.execute(f"ATTACH {quoted_text(path)} AS {self._attached}{mode}")
        self.con.execute(f"USE {self._attached}")

    def cursor(self) -> Any:
        """Return a cursor of its own, which other threads do not use."""
        found = self.con.cursor()
        if self._attached is not None:
            found.execute(f"USE {self._attached}")
        return found

    def is_in_memory(self) -> bool:
        """Tell whether it lies in this process's memory alone."""
        rows = self.con.execute("SELECT path FROM duckdb_databases() WHERE NOT internal")
        return all(path is None for (path,) in rows.fetchall())

    def is_confined(self) -> bool:
        """Tell whether DuckDB opens no other files any more."""
        found = self.con.execute("SELECT current_setting('enable_external_access')")
        return bool(found.fetchone() == (False,))

    def confine(self, roots: Sequence[str]) -> None:
        """Let DuckDB open no files but its own and those below some folders and URLs, for good."""
        folders = []
        for root in roots:
            if "://" in root:
                self.lake.open_storage(root)  # a URL is known for one once its storage is
                folders.append(f"{root.rstrip('/')}/")
            else:
                folders += [f"{Path(root)}/", f"{Path(root).resolve()}/"]
        listed = ", ".join(quoted_text(folder) for folder in dict.fromkeys(folders))
        settings = [
            f"allowed_directories = [{listed}]",
            "allow_community_extensions = false",
            "autoload_known_extensions = false",
            "enable_external_access = false",
        ]
        con = self.con
        known = "SELECT 1 FROM duckdb_settings() WHERE name = 'allowed_configs'"
        if con.execute(known).fetchone() is not None:
            kept = "['TimeZone', 'python_enable_replacements']"  # which Ibis sets when it connects
            settings += [f"allowed_configs = {kept}", "lock_configuration = true"]
        for setting in settings:
            con.execute(f"SET GLOBAL {setting}")


class DuckDBWarehouse(Reopened[_Database], SessionLookups, ProbedKeys, SilentCatalog):
    """One open DuckDB database."""

    capabilities = CAPABILITIES

    def __init__(
        self, name: str, database: _Database, reopen: Callable[[], _Database] | None = None
    ) -> None:
        super().__init__(name, database, reopen)
        self._is_quiet = False
        call_around_fork(self._before_fork, self._after_fork, self._renew)

    def _before_fork(self) -> None:
        """Let no statement run on the caller's connection in the moment of a fork."""
        if self._reopen is None:
            self._is_quiet = self._lock.acquire(timeout=_FORK_SECONDS)

    def _after_fork(self) -> None:
        if self._is_quiet:
            self._is_quiet = False
            self._lock.release()

    def _renew(self) -> None:
        """Use no inherited database but the caller's in memory, of which a child has a copy."""
        is_copy = self._is_quiet and self._open is not None and self._open.is_in_memory()
        self._lock, self._is_quiet = threading.RLock(), False
        abandon(self._open)
        if not is_copy:
            self._open = None

    @property
    def connection(self) -> Any:
        """The Ibis connection."""
        return self._opened.connection

    @contextmanager
    def session(self, *, shared: bool = False) -> Iterator[DuckDBSession]:
        """Open a session on a cursor of its own, or on the caller's connection under a lock."""
        database = self._opened
        if self._reopen is not None and not shared:
            with _readable():
                cursor = database.cursor()
            try:
                yield DuckDBSession(cursor, None, database.lake)
            finally:
                cursor.close()
            return
        session = DuckDBSession(database.con, self._lock, database.lake)
        try:
            yield session
        finally:
            session.drop_all()

    def lookup(
        self, select: str, spine: KeySpine, schema: Mapping[str, str], seconds: float
    ) -> Columns:
        """Run the SELECT of a look-up, few keys written into it."""
        head = inline_spine(spine)
        if head is None:
            return super().lookup(select, spine, schema, seconds)
        text = bind_range(select, spine.instant, spine.instant)
        with self.session() as session, interrupted(session, seconds):
            return session.columns(text, schema, head)

    def statistics(self, view: ResolvedView) -> Statistics:
        """Return the planner's row count, and distinct keys from the table's own statistics."""
        rows = self.estimate_rows(view.rows_sql)
        keys = None
        if view.join_keys and self._reads_a_table(view.rows_sql):
            names = [sql.quoted(name, "duckdb") for name in view.join_keys]
            columns = ", ".join(f"stats({name})" for name in names)
            found = self._row(f"SELECT {columns} FROM ({view.rows_sql}) AS rows LIMIT 1")
            counts = [re.search(r"Approx Unique: (\d+)", text) for text in found or ()]
            if counts and all(counts):
                keys = math.prod(int(match.group(1)) for match in counts if match)
        if keys is not None and rows is not None:
            keys = min(keys, rows)
        return Statistics(rows=round_up(rows), keys=round_up(keys))

    def _reads_a_table(self, select: str) -> bool:
        """Tell whether a SELECT picks columns of one table, so that LIMIT 1 reads next to none."""
        tree = tree_of_query(select, "duckdb")
        tables = list(tree.find_all(exp.Table)) if tree else []
        is_table = len(tables) == 1 and isinstance(tables[0].this, exp.Identifier)
        if not is_table or not is_plain(select, "duckdb"):
            return False
        name = quoted_text(tables[0].name)
        return self._row(f"SELECT 1 FROM duckdb_tables() WHERE table_name ILIKE {name}") is not None

    def estimate_rows(self, select: str) -> int | None:
        """Return how many rows DuckDB's planner, or a Delta table's log, expects of a SELECT."""
        with suppress(WarehouseError, ModuleNotFoundError):
            if (known := self._opened.lake.rows(select)) is not None:
                return known
        found = self._row(f"EXPLAIN (FORMAT json) {select}")
        with suppress(ValueError, KeyError, IndexError, TypeError):
            node = json.loads(found[1])[0]
            while node["extra_info"].get("Estimated Cardinality", "0") == "0" and node["children"]:
                node = node["children"][0]
            return int(node["extra_info"]["Estimated Cardinality"])
        return None

    def _row(self, statement: str) -> Any:
        with suppress(WarehouseError), self._lock, _readable():
            return self._opened.con.execute(self._prepared(statement)).fetchone()
        return None

    def _prepared(self, statement: str) -> str:
        """Return a statement as it is run, with the files that it reads as they are now."""
        return self._opened.lake.prepared(statement)

    def rows(self, view: ResolvedView) -> ir.Table:
        """Return a view's rows as a table of the Ibis connection."""
        with self._lock, _readable():
            text = self._prepared(view.rows_sql)
            return query_table(self.connection, text, view.columns)

    def describe(self, select: str) -> Mapping[str, dt.DataType]:
        """Return the columns and types of a SELECT without running it."""
        with self._lock, _readable(self.table_names):
            database = self._opened
            rows = database.con.execute(
                f"DESCRIBE {database.lake.described(select)}"
            ).fetchall()
        found = ((name, _ibis_type(kind)) for name, kind, *_ in rows)
        return named_once(found, folds_case=True)

    def judge(self, text: str, use: SqlUse) -> None:
        """Refuse SQL that does anything but read, by DuckDB's own parser and catalog."""
        with self._lock, _readable():
            self._opened.judge.judge(text, use)

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables and views, for messages."""
        with self._lock:
            rows = self._opened.con.execute(
                "SELECT CASE WHEN table_schema IN ('main', 'temp') THEN table_name "
                "ELSE table_schema || '.' || table_name END FROM information_schema.tables"
            ).fetchall()
        return [name for (name,) in rows]

    def catalog(self) -> Sequence[CatalogTable]:
        """Return what DuckDB's catalog says of its tables and views."""
        con = self._opened.con
        with self._lock, _readable():
            database, schema = con.execute("SELECT current_database(), current_schema()").fetchone()
            found = con.execute(_TABLES).fetchall()
            hiding = {name.lower() for (name,) in con.execute(_TEMPORARY).fetchall()}
            column_rows = con.execute(_COLUMNS).fetchall()
            constraints = con.execute(_CONSTRAINTS).fetchall()
        return assembled(
            (
                (
                    number,
                    CatalogTable(
                        place,
                        name,
                        (),
                        is_view=is_view,
                        searched=place == schema and name.lower() not in hiding,
                        database=database if name.lower() in hiding else "",
                        rows=rows,
                        comment=comment or "",
                    ),
                )
                for number, place, name, is_view, rows, comment in found
            ),
            (
                (
                    number,
                    CatalogColumn(
                        name, type_name(_ibis_type(native)), native, nullable, comment or ""
                    ),
                )
                for number, name, native, nullable, comment in column_rows
            ),
            constraints,
        )

    def sample(self, table: CatalogTable, columns: Sequence[str], rows: int) -> pa.Table:
        """Return some rows, of a large table from all over it."""
        place = f"{sql.quoted(table.schema, 'duckdb')}.{sql.quoted(table.name, 'duckdb')}"
        names = ", ".join(sql.quoted(column, "duckdb") for column in columns)
        share = share_to_read(table, rows)
        some = "" if share is None else f" TABLESAMPLE system({share:.6f}%)"
        with self.session() as session:
            timer = threading.Timer(_MOMENT, session.interrupt)
            timer.start()
            try:
                return session.query(f"SELECT {names} FROM {place}{some} LIMIT {rows}")
            finally:
                timer.cancel()

    def ping(self) -> None:
        """Raise WarehouseError unless the database answers."""
        with self.session() as session:
            session.query("SELECT 1")

    def close(self) -> None:
        """Close the database if this object opened it."""
        if self._reopen is not None and self._open is not None:
            self._open.con.close()


class DuckDBProvider:
    """Opens ``duckdb://path?setting=value`` URLs; ``duckdb://`` alone is a database in memory."""

    def open(
        self, name: str, settings: config.Warehouse, url: str, folder: Path,
        roots: Sequence[str] = (),
    ) -> DuckDBWarehouse:  # fmt: skip
        """Open a database file (read-only unless the settings say otherwise) or one in memory.

        Besides the database, DuckDB opens files below `roots` alone, loads no extensions, and its
        configuration is locked.

        Raises
        ------
        WarehouseError
            The file does not exist, is no database, or is locked by another process; DuckDB does
            not know a setting.
        """
        path, _, query = url.removeprefix("duckdb://").partition("?")
        in_memory = path in ("", ":memory:")
        if not in_memory and settings.read_only and not Path(path).exists():
            raise WarehouseError(
                f"warehouse {name!r}: there is no DuckDB file {path}; check url in virtualfs.toml"
            )
        given = _engine_settings(name, query)
        read_only = settings.read_only and not in_memory
        with _readable():
            database = _Database(_connect(":memory:" if in_memory else path, given, read_only))

        def reopen() -> _Database:
            # DuckDB would hand out the inherited database again, by the path of its file.
            with _readable():
                opened = _Database(_connect(":memory:", given))
                if not in_memory:
                    opened.attach(path, read_only=read_only)
                _configure(opened, folder, roots)
            return opened

        _configure(database, folder, roots)
        return DuckDBWarehouse(name, database, reopen)

    def adopt(self, name: str, connection: Any) -> DuckDBWarehouse:
        """Use the caller's Ibis connection as it is."""
        return DuckDBWarehouse(name, _Database(connection.con, connection))


def _connect(place: str, settings: Mapping[str, Any], read_only: bool = False) -> Any:
    import duckdb

    with no_fork():
        con = duckdb.connect(place, read_only=read_only, config={**settings})
    con.execute("SET python_enable_replacements = false")  # variables are no tables
    return con


def _configure(database: _Database, folder: Path, roots: Sequence[str]) -> None:
    """Set what all sessions go by, and confine the database to some folders and URLs."""
    if database.is_confined():  # a file that this process has open already is one database
        return
    # GLOBAL, because every session is a cursor of its own. Small spines joined to large tables
    # must not become nested loops; relative paths are meant from the configuration's folder.
    for setting in (
        "asof_loop_join_threshold = 0",
        "TimeZone = 'UTC'",
        "autoinstall_known_extensions = false",
        f"file_search_path = {quoted_text(str(folder))}",
    ):
        database.con.execute(f"SET GLOBAL {setting}")
    database.confine(roots)


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
    except RuntimeError as error:
        if isinstance(error.__cause__, KeyboardInterrupt) or "interrupted" in str(error).lower():
            raise KeyboardInterrupt from None  # the query has been stopped
        raise
    except duckdb.Error as error:
        raise WarehouseError(f"DuckDB: {_first_lines(error)}") from error


def _first_lines(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    if "CSV Error on Line" in lines[0]:
        return without_secrets(_csv_cause(lines))
    return without_secrets(" ".join(lines[:2]))


def _csv_cause(lines: Sequence[str]) -> str:
    """Return which line of which file cannot be read, and why, without its content."""
    details = [line for line in lines[1:] if not line.startswith("Original Line:")]
    cause = re.sub(r'string "[^"]*(" to )', r"a value\1", details[0]).replace('" to ', " to ")
    file = next((line.strip().partition("file = ")[2] for line in details if "file = " in line), "")
    return f"{lines[0]} of {file}: {cause}" if file else f"{lines[0]}: {cause}"


PROVIDER = DuckDBProvider()
