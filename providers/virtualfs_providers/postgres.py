"""PostgreSQL 14 and later.

Every session is one transaction (REPEATABLE READ) that keeps no state on the server behind it, so a
pooler in transaction mode may stand between. A role that may make temporary tables gets its spine
by COPY; a role that may only read, or a replica, gets it as arrays bound to each statement.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from virtualfs import config
from virtualfs.capabilities import UNKNOWN, Capabilities, Statistics
from virtualfs.catalog import CatalogTable
from virtualfs.compiler import sql
from virtualfs.compiler.allow_list import SqlUse
from virtualfs.compiler.plan import ResolvedView
from virtualfs.errors import (
    ConfigError,
    WarehouseError,
    WarehouseUnavailableError,
    did_you_mean,
    without_secrets,
)
from virtualfs.forks import abandon, renew_in_child
from virtualfs.lookups import Columns, KeySpine
from virtualfs.provider import ProbedKeys, TemporaryTables, inherited_connection, named_once
from virtualfs_providers.postgres_arrow import (
    copy_in,
    copy_out,
    is_plain,
    read_as_text,
    rows_to_arrow,
    rows_to_columns,
    sql_type,
    types_in,
)
from virtualfs_providers.postgres_catalog import (
    ibis_type,
    missing_grants,
    read_catalog,
    sample_select,
)
from virtualfs_providers.postgres_lookups import PostgresLookups
from virtualfs_providers.postgres_sql import LEXIS, PostgresJudge
from virtualfs_providers.postgres_statistics import read_statistics, table_of

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir
    import pyarrow as pa

__all__ = ["CAPABILITIES", "PROVIDER"]

_CONNECTING = 10
"""Seconds that connecting may take."""
_QUICK, _BUSY = 2.0, 28.0
"""Seconds that a session waits for a connection before it is asked whether the server is there, and
afterwards."""
_AWAY = 2.0
"""Seconds for which a server that was away is believed to be."""
_REMEMBERED = 60.0
"""Seconds for which what the catalog said is believed."""


_NAIVE, _ZONED = "timestamp(6)", "timestamp('UTC', 6)"


def instant(value: ir.Value, timezone: str, rounding: Literal["up", "down"]) -> ir.Value:  # noqa: ARG001
    """Write a time column as a naive UTC timestamp; PostgreSQL has nothing below microseconds.

    A wall time that occurs twice is read as the later one, a skipped one likewise.
    """
    kind = value.type()
    if kind.is_timestamp() and kind.timezone is not None:
        return sql.builtin("timezone", ("string", sql.type_text(value)), _NAIVE)("UTC", value)
    if kind.is_date():
        value = value.cast(_NAIVE)
    if timezone == "UTC":
        return value
    zoned = sql.builtin("timezone", ("string", _NAIVE), _ZONED)(timezone, value)
    return sql.builtin("timezone", ("string", _ZONED), _NAIVE)("UTC", zoned)


def seek(value: ir.Value, timezone: str, bound: ir.Value) -> ir.Value | None:
    """Write ``value <= bound`` with the column left bare, for the sake of an index on it."""
    kind = value.type()
    if kind.is_timestamp() and kind.timezone is not None:
        return value <= sql.builtin("timezone", ("string", _NAIVE), _ZONED)("UTC", bound)
    if timezone != "UTC":
        return None
    return value <= (bound.cast("date") if kind.is_date() else bound)


def exact(whole: ir.Value) -> ir.Value:
    """Write a whole float64 below 2^99 as a number; a cast would keep 15 digits alone."""
    floor = sql.builtin("floor", ("float64",), "float64")
    high = floor(whole / 2.0**49)
    low = whole - high * 2.0**49
    number = high.cast("int64").cast("decimal(38, 0)") * 2**49
    return (number + low.cast("int64")).cast("decimal(38, 0)")


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Hash columns with PostgreSQL's own hash of a record."""
    hashable = [value.cast("string") if _has_no_hash(value.type()) else value for value in values]
    types = tuple(sql.type_text(value) for value in hashable)
    record = sql.builtin("row", types, "string")(*hashable)
    return sql.builtin("hash_record_extended", ("string", "int8"), "int64")(record, 0)


def _has_no_hash(kind: dt.DataType) -> bool:
    return bool(kind.is_json() or kind.is_geospatial())


def inline_spine(columns: Mapping[str, dt.DataType]) -> str:
    """Return the SELECT that turns bound arrays into the spine."""
    names = ", ".join(sql.quoted(name, "postgres") for name in columns)
    arrays = ", ".join(
        f"${number}::{sql_type(dtype)}[]" for number, dtype in enumerate(columns.values(), 1)
    )
    return f"SELECT * FROM unnest({arrays}) AS spine({names})"


CAPABILITIES = Capabilities(
    engine="PostgreSQL",
    dialect="postgres",
    lexis=LEXIS,
    instant=instant,
    row_hash=row_hash,
    prefix_sums=True,
    exact=exact,
    lateral_limit=True,
    seek=seek,
    inline_spine=inline_spine,
    materialized=True,
    max_identifier=63,
    folds_case=False,
)


class PostgresSession(TemporaryTables):
    """Statements in one transaction; of an adopted connection, each statement by itself."""

    def __init__(self, warehouse: PostgresWarehouse, connection: Any, *, adopted: bool) -> None:
        self._warehouse = warehouse
        self._connection = connection
        self._adopted = adopted
        self._arrays: list[list[Any]] = []
        self._may_write = True
        # Of a role that may make no tables, all transactions are read-only from the first.
        self._switches = warehouse.capabilities.temporary_tables and not adopted
        super().__init__()

    def interrupt(self) -> None:
        """Cancel the statement that runs, from another thread."""
        self._connection.cancel_safe(timeout=5.0)

    @contextmanager
    def _turn(self, *, writes: bool = False) -> Iterator[Any]:
        """Give a cursor whose statement sees the settings that results are read by.

        Parameters
        ----------
        writes
            Whether the statement makes or drops tables. What does not may change nothing.
        """
        import psycopg

        connection = self._connection
        with _readable(), self._warehouse.lock if self._adopted else _free():
            if not self._adopted:
                cursor = psycopg.RawCursor(connection)
                if self._may_write != writes and self._switches:
                    # A subtransaction gives back, when it ends, what its beginning took away.
                    cursor.execute(_END_READING if writes else _BEGIN_READING)
                    self._may_write = writes
                yield cursor
                return
            before = {
                name: connection.info.parameter_status(name)
                for name in ("TimeZone", "DateStyle", "standard_conforming_strings")
            }
            with connection.transaction():
                cursor = psycopg.RawCursor(connection)
                cursor.execute(_SETTINGS if writes else f"{_SETTINGS}; {_READ_ONLY}")
                yield cursor
                for name, value in before.items():  # in a transaction of the caller they would stay
                    cursor.execute("SELECT set_config($1, $2, true)", [name, value])

    def load(self, name: str, table: pa.Table) -> None:
        """Copy Arrow rows into a temporary table, or keep them to be bound as arrays."""
        if not self._warehouse.capabilities.temporary_tables:
            self.bind(table)
            return
        columns = ", ".join(
            f"{sql.quoted(column, 'postgres')} {sql_type(dtype)}"
            for column, dtype in types_in(table)
        )
        quoted = sql.quoted(name, "postgres")
        self._tables.add(name)
        with self._turn(writes=True) as cursor:
            cursor.execute(f"CREATE TEMPORARY TABLE {quoted} ({columns})")
            copy_in(cursor, quoted, table)
            if self._switches:  # in one round trip, as statements that read follow
                cursor.execute(f"ANALYZE {quoted}; {_BEGIN_READING}")
                self._may_write = False
            else:
                cursor.execute(f"ANALYZE {quoted}")

    def bind(self, table: pa.Table) -> None:
        """Bind rows as arrays to the statements that follow."""
        self._arrays = [column.to_pylist() for column in table.columns]

    def bind_lists(self, columns: list[list[Any]]) -> None:
        """Bind columns as arrays to the statements that follow."""
        self._arrays = columns

    def columns(self, statement: str, schema: Mapping[str, str]) -> Columns:
        """Run a SELECT and return its columns as Python values; a bad one alone is bad."""
        with self._turn() as cursor:
            types = self._warehouse.types_of(cursor, statement)
            read_as_text(cursor)
            cursor.execute(statement, self._arrays or None)
            return rows_to_columns(cursor.fetchall(), types, schema)

    def keep(self, name: str, select: str) -> None:
        """Evaluate a SELECT once, into a temporary table, and count it for the planner."""
        quoted = sql.quoted(name, "postgres")
        self._tables.add(name)
        with self._turn(writes=True) as cursor:  # which runs nothing of the SELECT
            cursor.execute(f"CREATE TEMPORARY TABLE {quoted} AS {select} WITH NO DATA")
        with self._turn() as cursor:
            cursor.execute(f"INSERT INTO pg_temp.{quoted} {select}")
            cursor.execute(f"ANALYZE {quoted}")

    def _drop(self, name: str) -> None:
        statement = f"DROP TABLE IF EXISTS pg_temp.{sql.quoted(name, 'postgres')}"
        if self._switches and not self._may_write:
            statement = f"{_END_READING}; {statement}"
            self._may_write = True
        self.execute(statement)

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing."""
        with self._turn(writes=True) as cursor:
            cursor.execute(statement)

    def query(self, statement: str, schema: Mapping[str, str]) -> pa.Table:  # noqa: ARG002
        """Run a SELECT and return all of its rows: as CSV where that says all, else row by row."""
        with self._turn() as cursor:
            types = self._warehouse.types_of(cursor, statement)
            if not self._arrays and all(is_plain(dtype) for _, dtype in types):
                return copy_out(cursor, statement, types)
            read_as_text(cursor)
            cursor.execute(statement, self._arrays or None)
            return rows_to_arrow(cursor.fetchall(), types)

    def stream(
        self, statement: str, schema: Mapping[str, str], rows: int  # noqa: ARG002
    ) -> Iterator[pa.Table]:  # fmt: skip
        """Run a SELECT and return its rows in pieces, through a cursor on the server."""
        for found, types in self._stream(statement, rows):
            yield rows_to_arrow(found, types)

    def stream_columns(
        self, statement: str, schema: Mapping[str, str], rows: int
    ) -> Iterator[Columns]:
        """Run a SELECT and return its rows in pieces, as Python values; a bad one alone is bad."""
        for found, types in self._stream(statement, rows):
            yield rows_to_columns(found, types, schema)

    def _stream(
        self, statement: str, rows: int
    ) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[str, dt.DataType]]]]:
        import psycopg

        with self._turn() as probe:
            types = self._warehouse.types_of(probe, statement)
            with psycopg.RawServerCursor(self._connection, "virtualfs_stream") as cursor:
                read_as_text(cursor)
                cursor.execute(statement, self._arrays or None)
                first = True
                while (found := cursor.fetchmany(rows)) or first:
                    first = False
                    yield found, types

    def explain(self, statement: str) -> str:
        """Return PostgreSQL's plan of a SELECT, without running it."""
        with self._turn() as cursor:
            cursor.execute(f"EXPLAIN {statement}", self._arrays or None)
            return "\n".join(line for (line,) in cursor.fetchall())


_SETTINGS = (
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; "
    "SET LOCAL standard_conforming_strings = on"  # as SQL was judged
)
_READ_ONLY = "SET LOCAL transaction_read_only = on"
_BEGIN_READING = f"SAVEPOINT virtualfs_reading; {_READ_ONLY}"
_END_READING = "RELEASE SAVEPOINT virtualfs_reading"


@contextmanager
def _free() -> Iterator[None]:
    yield


class PostgresWarehouse(ProbedKeys):
    """One PostgreSQL database, through a pool of connections or through the caller's own."""

    def __init__(
        self, name: str, capabilities: Capabilities, *, connection: Any = None,
        make_pool: Callable[[], Any] | None = None,
        connect: Callable[[], Any] = lambda: None,
        url: str = "", settings: str = _SETTINGS, lookups: PostgresLookups | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.capabilities = capabilities
        self.lock = threading.RLock()
        self._make_pool = make_pool
        self._connect = connect
        self._own_pool: Any = None
        self._away = (0.0, "")
        """Until when it is not asked whether the server is back, and what it last said."""
        self._ibis = connection
        self._url = url
        self._settings = settings
        self._lookups = lookups
        self._types: dict[tuple[int, int], dt.DataType] = {}
        self._known: dict[str, tuple[float, Statistics]] = {}
        self._judge = PostgresJudge()
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Leave sockets and threads to the parent process."""
        abandon(self._own_pool, self._ibis)
        self._own_pool = self._ibis = None
        self.lock = threading.RLock()

    @property
    def _is_own(self) -> bool:
        """Whether connections are this object's, and not the caller's."""
        return self._make_pool is not None

    @property
    def _pool(self) -> Any:
        """The pool of connections, opened when first needed."""
        with self.lock:
            if self._own_pool is None and self._make_pool is not None:
                self._own_pool = self._make_pool()
            return self._own_pool

    @property
    def connection(self) -> Any:
        """The Ibis connection, opened when first needed, and again when the server closed it."""
        with self.lock:
            lost = self._is_own and self._ibis is not None and self._ibis.con.closed
            if self._ibis is None and not self._is_own:
                raise inherited_connection(self.name)
            if self._ibis is None or lost:
                import ibis

                with _readable():
                    self._ibis = ibis.connect(self._url)
            return self._ibis

    @contextmanager
    def session(self, *, shared: bool = False) -> Iterator[PostgresSession]:
        """Open a session: a transaction on a connection of the pool, or the caller's connection."""
        if not self._is_own or shared:
            session = PostgresSession(self, self.connection.con, adopted=True)
            try:
                yield session
            finally:
                session.drop_all()
            return
        with _readable(), self._pooled() as connection:
            session = PostgresSession(self, connection, adopted=False)
            session.execute(self._settings)
            yield session
            # With what was made in it, but for tables that were asked for.
            session.drop_all()

    @contextmanager
    def _pooled(self) -> Iterator[Any]:
        """Take a connection of the pool, which would try for long to connect to what is away.

        Raises
        ------
        WarehouseUnavailableError
            The server is away, as a connection that was tried for this alone shows.
        """
        import psycopg
        import psycopg_pool

        with ExitStack() as stack:
            until, reason = self._away
            if time.monotonic() < until:
                raise WarehouseUnavailableError(reason)
            try:
                connection = stack.enter_context(self._pool.connection(timeout=_QUICK))
            except psycopg_pool.PoolTimeout:
                try:
                    self._connect().close()
                except psycopg.OperationalError as error:
                    reason = f"warehouse {self.name!r} is away: PostgreSQL: {_first_line(error)}"
                    self._away = time.monotonic() + _AWAY, reason
                    raise WarehouseUnavailableError(reason) from None
                connection = stack.enter_context(self._pool.connection(timeout=_BUSY))
            yield connection

    def lookup(
        self, select: str, spine: KeySpine, schema: Mapping[str, str], seconds: float
    ) -> Columns:
        """Run the SELECT of a look-up, its keys bound as arrays."""
        if self._lookups is None:
            with self.session() as session:
                session.bind_lists(spine.without_nul())
                return session.columns(select, schema)
        with _readable(seconds):
            rows, columns = self._lookups.run(select, spine.without_nul(), seconds)
        if any((oid, mod) not in self._types for _, oid, mod in columns):
            with self._reading() as cursor:
                self._learn_types(cursor, {(oid, mod) for _, oid, mod in columns})
        types = [(name, self._types[oid, mod]) for name, oid, mod in columns]
        return rows_to_columns(rows, types, schema)

    def describe(self, select: str) -> Mapping[str, dt.DataType]:
        """Return the columns and types of a SELECT, which is parsed and neither planned nor run."""
        with self._reading(briefly=True) as cursor:
            try:
                return named_once(self.types_of(cursor, select), folds_case=False)
            except WarehouseError as error:
                raise self._with_near_names(error) from None

    def judge(self, text: str, use: SqlUse) -> None:
        """Refuse SQL that does anything but read, by its tokens and the server's catalog."""
        with self._reading(briefly=True) as cursor:
            self._judge.judge(text, use, cursor)

    def types_of(self, cursor: Any, statement: str) -> list[tuple[str, dt.DataType]]:
        """Return names and types of a statement's columns, from the server's parser."""
        from psycopg import generators

        connection = cursor.connection
        pq = connection.pgconn
        encoding = connection.info.encoding
        # As psycopg's own calls do it; those of libpq would hold the interpreter while they wait.
        sends: tuple[Callable[[], None], ...] = (
            lambda: pq.send_prepare(b"", statement.encode(encoding)),
            lambda: pq.send_describe_prepared(b""),
        )
        for send in sends:
            send()
            (result,) = connection.wait(generators.execute(pq))
            if result.error_field(_PRIMARY) is not None:
                raise WarehouseError(f"PostgreSQL: {_server_message(result, encoding)}")
        found = [
            (result.fname(n).decode(encoding), (result.ftype(n), result.fmod(n)))
            for n in range(result.nfields)
        ]
        self._learn_types(cursor, {key for _, key in found})
        return [(name, self._types[key]) for name, key in found]

    def _learn_types(self, cursor: Any, keys: set[tuple[int, int]]) -> None:
        """Ask what types are, by their numbers and modifiers, that are not known yet."""
        unknown = sorted(keys - self._types.keys())
        if unknown:
            oids, mods = zip(*unknown, strict=True)
            cursor.execute(
                "SELECT format_type(o, m) FROM unnest($1::oid[], $2::int4[]) "
                "WITH ORDINALITY AS t(o, m, n) ORDER BY n",
                [list(oids), list(mods)],
            )
            for key, (text,) in zip(unknown, cursor.fetchall(), strict=True):
                self._types[key] = ibis_type(text)

    @contextmanager
    def _reading(self, *, briefly: bool = False) -> Iterator[Any]:
        """Give a cursor for a look at the catalog, perhaps one that takes a moment at most."""
        with self.session() as session, session._turn() as cursor:
            if briefly and self._is_own:
                cursor.execute(f"SET LOCAL statement_timeout = '{_MOMENT}'")
            yield cursor

    def statistics(self, view: ResolvedView) -> Statistics:
        """Return what planner and catalog know: rows, distinct keys, indexes, constraints."""
        kept = self._known.get(view.fingerprint)
        if kept is not None:
            if time.monotonic() - kept[0] < _REMEMBERED:
                return kept[1]
            # Others go by what was known while one asks anew, and all do if there is no answer.
            self._known[view.fingerprint] = (time.monotonic(), kept[1])
        found = UNKNOWN if kept is None else kept[1]
        with suppress(WarehouseError):
            found = self._look_up(view)
        self._known[view.fingerprint] = (time.monotonic(), found)
        return found

    def _look_up(self, view: ResolvedView) -> Statistics:
        rows = self._planned_rows(view.rows_sql, briefly=True)
        with self._reading(briefly=True) as cursor:
            return read_statistics(cursor, view, rows)

    def advice(self, view: ResolvedView) -> list[str]:
        """Return the statement that makes the index which look-ups of this view would use."""
        place = table_of(view)
        if place is None or view.event_timestamp is None or self.statistics(view).indexed:
            return []
        table, columns = place
        wanted = [*view.join_keys, view.event_timestamp, *filter(None, [view.created_timestamp])]
        if not all(name in columns for name in wanted):
            return []
        names = ", ".join(sql.quoted(columns[name], "postgres") for name in wanted)
        return [f"CREATE INDEX CONCURRENTLY ON {table} ({names});"]

    def estimate_rows(self, select: str) -> int | None:
        """Return how many rows PostgreSQL's planner expects of a SELECT."""
        return self._planned_rows(select)

    def _planned_rows(self, select: str, *, briefly: bool = False) -> int | None:
        reading = self._reading(briefly=briefly)
        with suppress(WarehouseError, KeyError, IndexError), reading as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {select}")
            found = cursor.fetchone()[0]
            plan = json.loads(found) if isinstance(found, str) else found
            return int(plan[0]["Plan"]["Plan Rows"])
        return None

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables and views, for messages."""
        with self._reading() as cursor:
            cursor.execute(_TABLES)
            return [name for (name,) in cursor.fetchall()]

    def catalog(self) -> Sequence[CatalogTable]:
        """Return what PostgreSQL's catalog says of tables and views, readable or not."""
        with self._reading() as cursor:
            return read_catalog(cursor)

    def sample(self, table: CatalogTable, columns: Sequence[str], rows: int) -> pa.Table:
        """Return some rows, of a large table from pages all over it."""
        # A transaction of its own, so that the timeout goes with it on a caller's connection too.
        with self.session() as session, session._connection.transaction():
            session.execute(f"SET LOCAL statement_timeout = '{_MOMENT}'")
            return session.query(sample_select(table, columns, rows), {})

    def missing_grants(self, tables: Sequence[str]) -> list[str]:
        """Return the GRANTs that this role lacks to read these tables."""
        with self._reading() as cursor:
            return missing_grants(cursor, tables)

    def _with_near_names(self, error: WarehouseError) -> WarehouseError:
        text = str(error)
        if "relation" not in text or "does not exist" not in text:
            return error
        wanted = text.split('"')[1]
        hint = did_you_mean(wanted, self.table_names())
        return WarehouseError(f"PostgreSQL: there is no table {wanted!r}. {hint}")

    def ping(self) -> None:
        """Raise WarehouseError unless the database answers."""
        with self._reading() as cursor:
            cursor.execute("SELECT 1")

    def close(self) -> None:
        """Close what this object opened."""
        if self._lookups is not None:
            self._lookups.close()
        if self._own_pool is not None:
            self._own_pool.close()
        if self._is_own and self._ibis is not None:
            self._ibis.disconnect()


_PRIMARY = ord("M")
_MOMENT = "5s"
"""How long a sample may take."""
_TABLES = """
SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname
            ELSE n.nspname || '.' || c.relname END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%'
"""


class PostgresProvider:
    """Opens ``postgresql://user:password@host/database`` URLs."""

    def open(
        self, name: str, settings: config.Warehouse, url: str, folder: Path,  # noqa: ARG002
        roots: Sequence[str] = (),  # noqa: ARG002
    ) -> PostgresWarehouse:  # fmt: skip
        """Connect, and find out what the role may do.

        Raises
        ------
        ConfigError
            The driver is not installed.
        WarehouseError
            The server refuses or cannot be reached.
        """
        psycopg, pool = _drivers()
        options = {
            "application_name": settings.application_name,
            # A server that has vanished is noticed.
            "tcp_user_timeout": 15_000,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        try:
            given = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise ConfigError(
                f"warehouses.{name}.url: {_first_line(error)}; see PostgreSQL's connection options"
            ) from None
        options = {key: value for key, value in options.items() if key not in given}
        statements = [_SETTINGS]
        if settings.statement_timeout is not None:
            statements.append(f"SET LOCAL statement_timeout = '{settings.statement_timeout}'")
        def connect_once() -> Any:
            return psycopg.connect(url, **options, connect_timeout=_CONNECTING)

        with _readable(), connect_once() as connection:
            may_write = _may_make_tables(connection)

        def configure(connection: Any) -> None:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.prepare_threshold = None  # a pooler may answer from another server process
            connection.read_only = None if may_write else True

        def connect() -> Any:
            # A connection that takes long to make is of no use to a look-up.
            return psycopg.connect(url, autocommit=True, **options, connect_timeout=2)

        for_lookups = settings.max_connections // 2

        def make_pool() -> Any:
            return pool.ConnectionPool(
                url, kwargs={**options, "connect_timeout": _CONNECTING}, min_size=0,
                max_size=settings.max_connections - for_lookups,
                configure=configure, check=pool.ConnectionPool.check_connection, open=True,
                name=f"virtualfs {name}",
            )  # fmt: skip

        return PostgresWarehouse(
            name,
            replace(CAPABILITIES, temporary_tables=may_write),
            make_pool=make_pool,
            connect=connect_once,
            url=url,
            settings="; ".join(statements),
            lookups=PostgresLookups(name, connect),
        )

    def adopt(self, name: str, connection: Any) -> PostgresWarehouse:
        """Use the caller's Ibis connection as it is."""
        with _readable():
            may_write = _may_make_tables(connection.con)
        capabilities = replace(CAPABILITIES, temporary_tables=may_write)
        return PostgresWarehouse(name, capabilities, connection=connection)


def _may_make_tables(connection: Any) -> bool:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT has_database_privilege(current_database(), 'TEMP') "
            "AND NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'"
        )
        return bool(cursor.fetchone()[0])


def _drivers() -> tuple[Any, Any]:
    try:
        import psycopg
        import psycopg_pool
    except ModuleNotFoundError:
        raise ConfigError("PostgreSQL needs psycopg; pip install 'virtualfs[postgres]'") from None
    return psycopg, psycopg_pool


@contextmanager
def _readable(seconds: float | None = None) -> Iterator[None]:
    """Turn psycopg's errors into ours, with what to do next.

    Parameters
    ----------
    seconds
        How long a look-up may take; None where it is something else.
    """
    import psycopg
    import psycopg_pool

    try:
        yield
    except (TimeoutError, psycopg.errors.QueryCanceled) as error:
        if seconds is not None:
            raise WarehouseUnavailableError(
                f"PostgreSQL: no answer within {seconds:g} s (lookup_timeout in the warehouse's "
                f"section); {_first_line(error)}"
            ) from None
        raise WarehouseError(
            f"PostgreSQL: {_first_line(error)}. A longer statement_timeout in the warehouse's "
            "section, or a smaller spine, lets it finish"
        ) from None
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise WarehouseError(
            f"PostgreSQL: {_first_line(error)}; this role, session or replica may only read"
        ) from None
    except psycopg_pool.PoolTimeout as error:
        raise WarehouseUnavailableError(
            f"PostgreSQL: no connection came free in time, or none could be made: {error}"
        ) from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise WarehouseUnavailableError(f"PostgreSQL: {_first_line(error)}") from error
    except psycopg.Error as error:
        raise WarehouseError(f"PostgreSQL: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return without_secrets(lines[0] if lines else type(error).__name__)


def _server_message(result: Any, encoding: str) -> str:
    parts = [result.error_field(ord(code)) for code in "MDH"]
    return without_secrets(". ".join(part.decode(encoding) for part in parts if part))


PROVIDER = PostgresProvider()
