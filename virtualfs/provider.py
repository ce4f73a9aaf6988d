"""What a warehouse or an online store must be, and how one is found by the scheme of its URL.

Providers register under the entry-point group ``virtualfs.providers``, named by URL scheme; each
entry is a :class:`WarehouseProvider` or an :class:`OnlineStoreProvider`.
"""

from __future__ import annotations

import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

from virtualfs import config
from virtualfs.capabilities import UNKNOWN, Capabilities, Statistics
from virtualfs.catalog import CatalogTable
from virtualfs.compiler.allow_list import FunctionCatalog, SqlUse
from virtualfs.compiler.ibis_query import query_table
from virtualfs.compiler.judge import check_relations, check_tokens, known_functions
from virtualfs.compiler.key_forms import forms_of, key_form_probe
from virtualfs.compiler.plan import ResolvedView
from virtualfs.compiler.program import on_spine
from virtualfs.compiler.time_range import bind_range
from virtualfs.errors import (
    ConfigError,
    UnsupportedByWarehouseError,
    WarehouseError,
    WarehouseUnavailableError,
    did_you_mean,
)
from virtualfs.forks import abandon, renew_in_child
from virtualfs.lookups import Columns, KeySpine, columns_of

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir
    import pyarrow as pa

__all__ = [
    "MEETING_PLACE",
    "DuplicateColumnsError",
    "OneConnection",
    "OnlineStore",
    "OnlineStoreProvider",
    "ProbedKeys",
    "Reopened",
    "Server",
    "Session",
    "SessionLookups",
    "SilentCatalog",
    "TemporaryTables",
    "Warehouse",
    "WarehouseProvider",
    "bounded",
    "connection_identity",
    "inherited_connection",
    "instant_bytes",
    "interrupted",
    "load_server",
    "load_store_provider",
    "load_warehouse_provider",
    "named_once",
    "rows_of",
    "statement_deadline",
    "temporary_name",
]

T = TypeVar("T")

MEETING_PLACE = "duckdb://"
"""URL of the engine where answers of several warehouses meet: in memory, in this process."""
_DEADLINE: ContextVar[float | None] = ContextVar("virtualfs_deadline", default=None)


class Session(Protocol):
    """One conversation with a warehouse, holding temporary tables that go when it ends."""

    def load(self, name: str, table: pa.Table) -> None:
        """Make a temporary table of the client's rows, or bind them to the next statements."""

    def keep(self, name: str, select: str) -> None:
        """Evaluate a SELECT once, into a temporary table."""

    def drop(self, name: str) -> None:
        """Drop a temporary table, if it stands."""

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing."""

    def query(self, statement: str, schema: Mapping[str, str]) -> pa.Table:
        """Run a SELECT and return all of its rows.

        `schema` names the columns and types that the compiler expects, in order, for engines whose
        answers carry none; an engine that says types itself goes by its own.
        """

    def explain(self, statement: str) -> str:
        """Return the engine's own plan of a SELECT, without running it."""

    def stream(self, statement: str, schema: Mapping[str, str], rows: int) -> Iterator[pa.Table]:
        """Run a SELECT and return its rows in pieces, the first even if it is empty.

        Called only where there are no temporary tables to cut the work by.
        """


class TemporaryTables(ABC):
    """The part of a session that knows which tables it made, for providers to inherit."""

    def __init__(self) -> None:
        self._tables: set[str] = set()

    @abstractmethod
    def _drop(self, name: str) -> None:
        """Drop a temporary table that stands, or may stand."""

    def drop(self, name: str) -> None:
        """Drop a temporary table, if it stands."""
        if name in self._tables:
            self._drop(name)
            self._tables.discard(name)

    def drop_all(self) -> None:
        """Drop what this session made. In a transaction that failed there is nothing left."""
        with suppress(WarehouseError):
            for name in tuple(self._tables):
                self.drop(name)


class Warehouse(Protocol):
    """One open warehouse. All failures of the engine are raised as ``WarehouseError``."""

    name: str

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do, for this role on this server."""

    @property
    def connection(self) -> Any:
        """The Ibis connection."""

    def session(self, *, shared: bool = False) -> AbstractContextManager[Session]:
        """Open a session; a shared one sees what the Ibis connection itself has registered.

        What a session makes is gone when it ends, however it ends; an interrupt also cancels the
        statement that runs.
        """

    def lookup(
        self, select: str, spine: KeySpine, schema: Mapping[str, str], seconds: float
    ) -> Columns:
        """Run the SELECT of a look-up on the keys in `spine`, in `seconds` at most.

        `select` was compiled for ``capabilities.for_lookups``. Called from many threads at once,
        as many as ``max_connections`` of the warehouse's settings allow.

        Raises
        ------
        WarehouseUnavailableError
            There is no connection, or it took too long. What refuses is another `WarehouseError`.
        """

    def describe(self, select: str) -> Mapping[str, dt.DataType]:
        """Return the columns and types of a SELECT without running it.

        The session may do nothing meanwhile but read, and for a few seconds at most.
        """

    def judge(self, text: str, use: SqlUse) -> None:
        """Refuse SQL of a definition that does anything but read this warehouse.

        It may call functions that the engine says are pure, or in a query steady within one
        statement, and read tables and views of this warehouse. What it may do is listed, not what
        it may not.

        Raises
        ------
        DefinitionError
            It is not one SELECT, or not one row-wise expression; or it would do more.
        """

    def statistics(self, view: ResolvedView) -> Statistics:
        """Return what the catalog knows of a view's rows. Never scans a table, never raises."""

    def estimate_rows(self, select: str) -> int | None:
        """Return how many rows the engine's planner expects of a SELECT; None if it says nothing.

        Never runs the query.
        """

    def advice(self, view: ResolvedView) -> Sequence[str]:
        """Return statements that would make the warehouse answer this view faster."""

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables and views, for messages."""

    def catalog(self) -> Sequence[CatalogTable]:
        """Return what the engine's catalog says of its tables and views, by schema and name.

        Raises
        ------
        UnsupportedByWarehouseError
            The provider does not read its engine's catalog.
        """

    def sample(self, table: CatalogTable, columns: Sequence[str], rows: int) -> pa.Table:
        """Return some of a table's rows: read-only, at most `rows`, and for a moment at most.

        Raises
        ------
        WarehouseError
            It took too long, or the table may not be read.
        """

    def missing_grants(self, tables: Sequence[str]) -> Sequence[str]:
        """Return the statements that would let this role read these tables, with why as comment."""

    def ping(self) -> None:
        """Raise ``WarehouseError`` unless the warehouse answers."""

    def close(self) -> None:
        """Close what this object opened itself."""


class Reopened(Generic[T]):
    """The part of a warehouse that opens one thing, and in a forked child opens it anew.

    Parameters
    ----------
    opened
        The open connection or database.
    reopen
        Opens another, for a forked child; None where the caller made the connection.
    """

    def __init__(self, name: str, opened: T, reopen: Callable[[], T] | None = None) -> None:
        self.name = name
        self._reopen = reopen
        self._open: T | None = opened
        self._lock = threading.RLock()

    @property
    def _opened(self) -> T:
        """What is open; a forked child opens it when it first needs it.

        Raises
        ------
        WarehouseError
            It belongs to a parent process that made it itself.
        """
        with self._lock:
            if self._open is None:
                if self._reopen is None:
                    raise inherited_connection(self.name)
                self._open = self._reopen()
            return self._open


class OneConnection(Reopened[Any]):
    """The part of a warehouse that holds one Ibis connection."""

    def __init__(
        self, name: str, connection: Any, reopen: Callable[[], Any] | None = None
    ) -> None:
        super().__init__(name, connection, reopen)
        renew_in_child(self._renew)

    def _renew(self) -> None:
        abandon(self._open)
        self._open = None
        self._lock = threading.RLock()

    @property
    def connection(self) -> Any:
        """The Ibis connection."""
        return self._opened

    def close(self) -> None:
        """Close the connection if this object opened it."""
        if self._reopen is not None and self._open is not None:
            self._open.disconnect()


class SessionLookups:
    """The part of a warehouse whose look-ups are a session like any other."""

    capabilities: Capabilities

    @abstractmethod
    def session(self, *, shared: bool = False) -> AbstractContextManager[Session]:
        """Open a session."""

    def lookup(
        self, select: str, spine: KeySpine, schema: Mapping[str, str], seconds: float
    ) -> Columns:
        """Run the SELECT of a look-up; one that can be interrupted is, when it takes too long."""
        name = temporary_name()
        with self.session() as session, interrupted(session, seconds):
            session.load(name, spine.table(self.capabilities.instant_type))
            text = on_spine(select, name, self.capabilities.dialect)
            text = bind_range(text, spine.instant, spine.instant)
            columns = getattr(session, "columns", None)
            if columns is not None:
                found: Columns = columns(text, schema)
                return found
            return columns_of(session.query(text, schema), schema)


@contextmanager
def statement_deadline(seconds: float) -> Iterator[None]:
    """Let what is asked of warehouses meanwhile be cancelled after some seconds.

    Threads that are begun by ``asyncio.to_thread`` are bound by it too.
    """
    token = _DEADLINE.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


@contextmanager
def bounded(session: Session) -> Iterator[None]:
    """Cancel what a session runs when the deadline of its caller is over, if there is one.

    Raises
    ------
    WarehouseUnavailableError
        It was.
    """
    until = _DEADLINE.get()
    if until is None:
        yield
        return
    with interrupted(session, max(0.001, until - time.monotonic())):
        yield


@contextmanager
def interrupted(session: Session, seconds: float) -> Iterator[None]:
    """Interrupt what a session runs after some seconds, if it can be.

    Raises
    ------
    WarehouseUnavailableError
        It was.
    """
    interrupt = getattr(session, "interrupt", None)
    if interrupt is None:
        yield
        return
    late = threading.Event()

    def stop() -> None:
        late.set()
        interrupt()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (WarehouseError, KeyboardInterrupt):
        if late.is_set():
            raise WarehouseUnavailableError(f"no answer within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()


class ProbedKeys:
    """The part of a warehouse that says how its strings compare, by comparing some."""

    capabilities: Capabilities

    @abstractmethod
    def session(self, *, shared: bool = False) -> AbstractContextManager[Session]:
        """Open a session."""

    def key_forms(self, select: str, columns: Sequence[str]) -> Mapping[str, str]:
        """Return in which form equal strings of a SELECT's columns are the same text.

        Columns that call only identical strings equal are absent.
        """
        probe = key_form_probe(select, columns, self.capabilities.dialect)
        with self.session() as session, suppress(WarehouseError):
            (row,) = session.query(probe, {}).to_pylist()
            return forms_of(columns, list(row.values()))
        return {}


class SilentCatalog:
    """The part of a warehouse whose engine says nothing of its tables and functions."""

    capabilities: Capabilities

    @property
    def functions(self) -> FunctionCatalog:
        """The functions that definitions may call: those that sqlglot knows of the dialect."""
        return known_functions(self.capabilities.dialect)

    def judge(self, text: str, use: SqlUse) -> None:
        """Refuse SQL that does anything but read, by its tokens and its tree."""
        aliases = check_relations(text, use, self.capabilities)
        check_tokens(text, use, self.capabilities.lexis, self.functions, aliases)

    def statistics(self, view: ResolvedView) -> Statistics:  # noqa: ARG002
        """Return that nothing is known."""
        return UNKNOWN

    def estimate_rows(self, select: str) -> int | None:  # noqa: ARG002
        """Return None: the planner says no numbers."""
        return None

    def advice(self, view: ResolvedView) -> Sequence[str]:  # noqa: ARG002
        """Return nothing: no index would help."""
        return ()

    def catalog(self) -> Sequence[CatalogTable]:
        """Refuse: this provider reads no catalog."""
        raise UnsupportedByWarehouseError(
            "scanning reads the catalog of DuckDB and PostgreSQL, not of "
            f"{self.capabilities.engine}; register its tables one by one, by register_table or in "
            "a definition file"
        )

    def sample(self, table: CatalogTable, columns: Sequence[str], rows: int) -> pa.Table:  # noqa: ARG002
        """Refuse, as :meth:`catalog` does."""
        self.catalog()

    def missing_grants(self, tables: Sequence[str]) -> Sequence[str]:  # noqa: ARG002
        """Return nothing: this provider cannot tell."""
        return ()


@runtime_checkable
class WarehouseProvider(Protocol):
    """How warehouses of one kind are opened."""

    def open(
        self,
        name: str,
        settings: config.Warehouse,
        url: str,
        folder: Path,
        roots: Sequence[str] = (),
    ) -> Warehouse:
        """Connect as the configuration in `folder` says.

        Parameters
        ----------
        roots
            Absolute folders and URLs below which an engine that reads files may read them.
        """

    def adopt(self, name: str, connection: Any) -> Warehouse:
        """Use an Ibis connection that the caller made and keeps."""


def instant_bytes(micros: int) -> bytes:
    """Return an instant as values of the online store hold it: later ones are greater."""
    return (micros + 2**63).to_bytes(8, "big")


class OnlineStore(Protocol):
    """Where hot rows are kept as bytes. A cache: it may forget anything at any time.

    Every call answers or raises ``OnlineStoreError`` in bounded time. Values of rows have the form
    that :mod:`virtualfs.serving.codec` describes.
    """

    is_remote: bool
    """Whether a call is a round trip, and other processes see the same rows."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys` in order, None for those not held, in one round trip.

        A store may have ``get_many_async`` too, which does the same without holding up its loop;
        of others it is asked in a thread.
        """

    def merge_many(
        self, items: Sequence[tuple[bytes, bytes, float | None]], now: int | None = None
    ) -> list[bool]:
        """Keep each value under its key, for its seconds or until replaced.

        Not where what is held is newer (:func:`virtualfs.serving.codec.merged_bytes`), which is
        judged atomically, key by key. Returns which of the values stay.

        Parameters
        ----------
        now
            Microseconds since 1970, after which nothing can have been written; the store's own
            time when None.
        """

    def now(self) -> int | None:
        """Return the store's time in microseconds since 1970; None if it does not tell."""

    def put(self, key: bytes, value: bytes, seconds: float | None) -> None:
        """Keep a value of another kind than rows, whatever is held."""

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Forget `keys`; return how many were held."""

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys that begin with `prefix`, in pages; some may come twice."""

    def sizes(self, keys: Sequence[bytes]) -> list[int]:
        """Return the bytes that each of `keys` takes; 0 for those not held."""

    def used_memory(self) -> int:
        """Return the bytes that the store uses, for whomever."""

    def add_counts(self, name: bytes, amounts: Mapping[bytes, int], seconds: float) -> None:
        """Add to the counters kept under a name, for `seconds` from now."""

    def top_counts(self, name: bytes, limit: int) -> dict[bytes, int]:
        """Return the greatest counters under a name."""

    def ping(self) -> None:
        """Raise unless the store answers."""

    def close(self) -> None:
        """Close connections."""


@runtime_checkable
class OnlineStoreProvider(Protocol):
    """How online stores of one kind are opened."""

    def open_store(self, url: str) -> OnlineStore:
        """Connect to the online store at `url`."""


class DuplicateColumnsError(WarehouseError):
    """A SELECT gives two columns that the engine does not tell apart."""


def connection_identity(connection: Any) -> str:
    """Return what tells the warehouse of an Ibis connection from others, in every process.

    A database in memory, or one whose place is not known, is its connection's alone.
    """
    info: Any = getattr(getattr(connection, "con", None), "info", None)
    if hasattr(info, "dbname"):  # of PostgreSQL
        return f"{info.host}:{info.port}/{info.dbname} as {info.user}"
    named = getattr(connection, "_con_kwargs", {}).get("database")
    for path in (*getattr(connection, "_con_args", ())[:1], named):
        if isinstance(path, str | Path) and Path(path).is_file():
            return f"{connection.name}://{Path(path).resolve()}"
    own: str = connection.__dict__.setdefault("_virtualfs_identity", uuid.uuid4().hex)
    return own


def inherited_connection(name: str) -> WarehouseError:
    """Return the error for a connection of the caller that a forked child cannot use."""
    return WarehouseError(
        f"warehouse {name!r}: its connection was passed by connections= and belongs to the process "
        "that this one was forked from. Open a connection in this process, and a store with it"
    )


def named_once(
    columns: Iterable[tuple[str, dt.DataType]], *, folds_case: bool
) -> dict[str, dt.DataType]:
    """Return the columns of a SELECT by name.

    Raises
    ------
    DuplicateColumnsError
        Two of them have one name.
    """
    found: dict[str, dt.DataType] = {}
    seen: set[str] = set()
    for name, dtype in columns:
        folded = name.casefold() if folds_case else name
        if folded in seen:
            raise DuplicateColumnsError(
                f"the SELECT gives two columns called {name!r}; name each of them once, by AS"
            )
        seen.add(folded)
        found[name] = dtype
    return found


def rows_of(warehouse: Warehouse, view: ResolvedView) -> ir.Table:
    """Return a view's rows as a table of the warehouse's Ibis connection."""
    own = getattr(warehouse, "rows", None)  # where more than SQL is needed
    if own:
        found: ir.Table = own(view)
        return found
    return query_table(warehouse.connection, view.rows_sql, view.columns)


def temporary_name() -> str:
    """Return a name for a temporary table that no other run has."""
    return f"virtualfs_spine_{uuid.uuid4().hex[:16]}"


class Server(Protocol):
    """What the entry point of the group ``virtualfs.server`` must be.

    A store is a :class:`virtualfs.FeatureStore`, which stands above this module.
    """

    def serve(
        self,
        store: Any,
        host: str,
        port: int,
        log_level: str = "warning",
        on_ready: Callable[[str], object] | None = None,
        workers: int = 1,
    ) -> None:
        """Serve a store until stopped; `on_ready` is called with the URL."""

    def sdl(self, store: Any) -> str:
        """Return the live schema of a store as SDL."""

    def broken_documents(self, store: Any, plan: Any) -> list[str]:
        """Return what a plan would break of the trusted documents, in words."""


def load_server() -> Server:
    """Return the server that is installed.

    Raises
    ------
    ConfigError
        There is none.
    """
    for entry in entry_points(group="virtualfs.server"):
        found: Server = entry.load()
        return found
    raise ConfigError("virtualfs is not installed whole: it has no server; reinstall it")


def load_warehouse_provider(scheme: str, setting: str) -> WarehouseProvider:
    """Return the provider of warehouses that is registered for a URL scheme.

    Raises
    ------
    ConfigError
        No installed package provides the scheme, or what it names is no warehouse.
    """
    found = _load_provider(scheme, setting)
    if not isinstance(found, WarehouseProvider):
        raise ConfigError(f"{setting}: {scheme}:// is no warehouse; write it to cache.url")
    return found


def load_store_provider(scheme: str, setting: str) -> OnlineStoreProvider:
    """Return the provider of online stores that is registered for a URL scheme.

    Raises
    ------
    ConfigError
        No installed package provides the scheme, or what it names is no online store.
    """
    found = _load_provider(scheme, setting)
    if not isinstance(found, OnlineStoreProvider):
        raise ConfigError(
            f"{setting}: {scheme}:// is no online store; write redis://host:6379/0 or memory://"
        )
    return found


def _load_provider(scheme: str, setting: str) -> Any:
    found = {entry.name: entry for entry in entry_points(group="virtualfs.providers")}
    if scheme not in found:
        raise ConfigError(
            f"{setting}: no provider is installed for {scheme}:// URLs. "
            f"{did_you_mean(scheme, found)}"
        )
    return found[scheme].load()
