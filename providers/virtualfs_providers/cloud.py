"""What warehouses have in common that are reached through Ibis's own connection and cursor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtualfs import config
from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.ibis_query import query_table
from virtualfs.errors import ConfigError, VirtualFSError, WarehouseError, without_secrets
from virtualfs.provider import OneConnection, SessionLookups, SilentCatalog, TemporaryTables

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import pyarrow as pa

__all__ = ["CloudProvider", "CloudSession", "CloudWarehouse"]


class CloudSession(TemporaryTables):
    """Statements through an Ibis connection, one at a time."""

    def __init__(self, connection: Any, dialect: str, kind: str, lock: threading.RLock) -> None:
        self._connection = connection
        self._dialect = dialect
        self._kind = kind
        self._lock = lock
        super().__init__()

    def load(self, name: str, table: pa.Table) -> None:
        """Upload Arrow rows into a table of this session, as Ibis does it fastest."""
        self._tables.add(name)
        with self._lock, _readable():
            self._connection.create_table(name, obj=table, temp="TEMP" in self._kind)

    def keep(self, name: str, select: str) -> None:
        """Evaluate a SELECT once, into a table of this session."""
        self._tables.add(name)
        self.execute(f"CREATE {self._kind} {sql.quoted(name, self._dialect)} AS {select}")

    def _drop(self, name: str) -> None:
        self.execute(f"DROP TABLE IF EXISTS {sql.quoted(name, self._dialect)}")

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing."""
        with self._lock, _readable():
            cursor = self._connection.raw_sql(statement)
            if hasattr(cursor, "close"):
                cursor.close()

    def query(self, statement: str, schema: Mapping[str, str]) -> pa.Table:
        """Run a SELECT and return all of its rows."""
        with self._lock, _readable():
            return query_table(self._connection, statement, schema).to_pyarrow()

    def stream(
        self, statement: str, schema: Mapping[str, str], rows: int  # noqa: ARG002
    ) -> Iterator[pa.Table]:  # fmt: skip
        """Run a SELECT and return its rows at once: there are always tables to cut the work by."""
        yield self.query(statement, schema)

    def explain(self, statement: str) -> str:
        """Return the engine's plan of a SELECT, without running it."""
        with self._lock, _readable():
            cursor = self._connection.raw_sql(f"EXPLAIN {statement}")
            return "\n".join(" ".join(str(cell) for cell in row) for row in cursor.fetchall())


class CloudWarehouse(OneConnection, SessionLookups, SilentCatalog):
    """One warehouse behind an Ibis connection."""

    def __init__(
        self,
        name: str,
        connection: Any,
        capabilities: Capabilities,
        kind: str,
        reopen: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(name, connection, reopen)
        self.capabilities = capabilities
        self._kind = kind

    @contextmanager
    def session(self, *, shared: bool = False) -> Iterator[CloudSession]:  # noqa: ARG002
        """Open a session; all share the connection, and their tables have names of their own."""
        dialect = self.capabilities.dialect
        session = CloudSession(self.connection, dialect, self._kind, self._lock)
        try:
            yield session
        finally:
            session.drop_all()

    def describe(self, select: str) -> Mapping[str, dt.DataType]:
        """Return the columns and types of a SELECT, as Ibis finds them out."""
        with self._lock, _readable():
            schema = self.connection.sql(select).schema()
        return {name: dtype.copy(nullable=True) for name, dtype in schema.items()}

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables and views, for messages."""
        with self._lock, _readable():
            return list(self.connection.list_tables())

    def ping(self) -> None:
        """Raise WarehouseError unless the warehouse answers."""
        with self.session() as session:
            session.query("SELECT 1 AS one", {"one": "int64"})


class CloudProvider:
    """Opens warehouses of one kind by their Ibis URLs.

    Parameters
    ----------
    backend
        Name of Ibis's backend.
    extra
        The extra that installs its driver.
    capabilities
        What the engine can do, for its role.
    kind
        What a spine is kept in: ``TEMPORARY TABLE``, or ``TABLE`` where there are none; such a
        table lies in the connection's own schema until the session ends.
    read_through
        Whether online reads ask the warehouse for what the cache lacks, unless its section says so;
        not where that is billed query by query.
    prepare
        Returns the statements that make a new connection what the warehouse's section says.
    """

    def __init__(
        self, backend: str, extra: str, capabilities: Capabilities,
        kind: str = "TEMPORARY TABLE", connect: Callable[[str], Any] | None = None,
        *, read_through: bool = True,
        prepare: Callable[[config.Warehouse], Sequence[str]] = lambda _: (),
    ) -> None:  # fmt: skip
        self.read_through = read_through
        self._prepare = prepare
        self._backend = backend
        self._extra = extra
        self._capabilities = capabilities
        self._kind = kind
        self._connect = connect

    def open(
        self, name: str, settings: config.Warehouse, url: str, folder: Path,  # noqa: ARG002
        roots: Sequence[str] = (),  # noqa: ARG002
    ) -> CloudWarehouse:  # fmt: skip
        """Connect through Ibis.

        Raises
        ------
        ConfigError
            The driver is not installed; the message names the extra.
        WarehouseError
            The warehouse refuses or cannot be reached.
        """
        import ibis

        engine = self._capabilities.engine
        try:
            getattr(ibis, self._backend)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{engine} needs its driver; pip install 'virtualfs[{self._extra}]' ({error})"
            ) from None

        def connect() -> Any:
            with _readable():
                connection = (self._connect or ibis.connect)(url)
                for statement in self._prepare(settings):
                    connection.raw_sql(statement)
            return connection

        return CloudWarehouse(name, connect(), self._capabilities, self._kind, connect)

    def adopt(self, name: str, connection: Any) -> CloudWarehouse:
        """Use the caller's Ibis connection as it is."""
        return CloudWarehouse(name, connection, self._capabilities, self._kind)


@contextmanager
def _readable() -> Iterator[None]:
    """Turn a driver's errors, of whatever kind, into ours."""
    try:
        yield
    except VirtualFSError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        text = without_secrets(lines[0] if lines else type(error).__name__)
        raise WarehouseError(f"{type(error).__name__}: {text}") from error
