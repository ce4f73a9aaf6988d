"""Files that DuckDB does not read by itself: object storage, and tables of Delta Lake.

Object storage is read through pyarrow's file systems, which take credentials from the environment
as each cloud's own tools do. A Delta table is read through delta-rs: its log says which files make
up a version, which of them hold what times, and DuckDB reads those. Neither needs an extension of
DuckDB, which would have to be fetched from elsewhere than the package index.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from virtualfs.capabilities import Files
from virtualfs.compiler import sql
from virtualfs.errors import WarehouseError, without_secrets
from virtualfs_providers.duckdb_sql import quoted_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Lake", "Snapshots", "delta_scan"]

_STORAGE = re.compile(
    r"\bread_(?:parquet|csv)\(\s*'(?P<scheme>s3|gs|gcs|abfss?|az)://", re.IGNORECASE
)
_BOUND = re.compile(
    r""""(?:__virtualfs_)?source"\."((?:[^"]|"")+)" (<=|>=) """
    r"""CAST\('([^']+)' AS (?:TIMESTAMP|TIMESTAMPTZ|DATE)\)"""
)
"""A condition that the compiler puts on the time of a view's rows."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_DELTA = re.compile(
    r"\bdelta_scan\(\s*'(?P<path>(?:[^']|'')*)'"
    r"(?:,\s*(?:version => (?P<version>\d+)|as_of => '(?P<as_of>[^']*)'))?\s*\)"
    r"(?P<after>\s*\) AS \"(?:__virtualfs_)?source\"\s+WHERE"
    r"(?:\s+(?:AND\s+)?\"(?:__virtualfs_)?source\"\.\"(?:[^\"]|\"\")+\" "
    r"[<>]= CAST\('[^']+' AS \w+\))+)?",
    re.IGNORECASE,
)


def delta_scan(files: Files) -> str:
    """Return the SELECT that reads a Delta table; :meth:`Lake.prepared` knows what it means."""
    path = quoted_text(files.path)
    if files.version is not None:
        return f"SELECT * FROM delta_scan({path}, version => {files.version})"
    if files.as_of is not None:
        return f"SELECT * FROM delta_scan({path}, as_of => '{files.as_of.isoformat()}')"
    return f"SELECT * FROM delta_scan({path})"


@dataclass(frozen=True)
class _Table:
    """A state of a Delta table, as statements name it."""

    path: str
    version: int | None
    as_of: str | None


@dataclass(frozen=True)
class _Snapshot:
    """The files that make up a state of a Delta table, as its log tells."""

    schema: pa.Schema
    partitions: tuple[str, ...]
    files: pa.Table
    """``uri``, and of columns with statistics ``min.NAME`` and ``max.NAME``."""

    def select(self, after: str) -> str:
        """Return the SELECT of the rows that a condition on a column's time can need.

        Parameters
        ----------
        after
            The text that follows the place of the table in the statement.
        """
        uris = self._needed(_BOUND.findall(after))
        if not uris:
            return self.empty()
        names = ", ".join(_name(field.name) for field in self.schema)
        listed = ", ".join(quoted_text(uri) for uri in uris)
        types = ", ".join(
            f"{_name(name)}: {_type(self.schema.field(name))}" for name in self.partitions
        )
        folders = "hive_partitioning = false"
        if types:
            folders = f"hive_partitioning = true, hive_types = {{{types}}}"
        read = f"SELECT * FROM read_parquet([{listed}], union_by_name = true, {folders})"
        # Columns that came later are missing in older files, perhaps in all that are needed.
        return f"(SELECT {names} FROM ({read} UNION ALL BY NAME {self._no_rows()}))"

    def empty(self) -> str:
        """Return a relation of the columns and no rows, for which no file is opened."""
        return f"({self._no_rows()})"

    def _no_rows(self) -> str:
        columns = ", ".join(
            f"CAST(NULL AS {_type(field)}) AS {_name(field.name)}" for field in self.schema
        )
        return f"SELECT {columns} WHERE false"

    def _needed(self, bounds: list[tuple[str, str, str]]) -> list[str]:
        import pyarrow as pa
        import pyarrow.compute as pc

        files = self.files
        for column, compare, text in bounds:
            known = f"{'min' if compare == '<=' else 'max'}.{column}"
            if known not in files.column_names or "infinity" in text:
                continue
            held = files.column(known).cast(pa.timestamp("us"))
            end = pa.scalar(datetime.fromisoformat(text), pa.timestamp("us"))
            inside = pc.less_equal(held, end) if compare == "<=" else pc.greater_equal(held, end)
            files = files.filter(pc.fill_null(inside, True))
        uris: list[str] = files.column("uri").to_pylist()
        return uris


Snapshots = dict[_Table, _Snapshot]
"""States of tables that were read before."""


class Lake:
    """What one DuckDB database was given of object storage, and the Delta tables that it reads.

    Delta tables are read as lists of Parquet files by DuckDB itself: tables that live in Python
    would need the interpreter's lock in the midst of a query, and two threads could wait for each
    other for ever.

    Parameters
    ----------
    connection
        DuckDB's own.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._schemes: set[str] = set()
        self._tables: dict[_Table, Any] = {}
        self._lock = threading.Lock()

    def prepared(self, statement: str, known: Snapshots | None = None) -> str:
        """Return a statement as DuckDB runs it, with what it reads made known.

        Parameters
        ----------
        known
            The states of tables that were read before: one is seen as long as they are kept.

        Raises
        ------
        ModuleNotFoundError
            A package is missing.
        WarehouseError
            There is no such table or version, or it cannot be read.
        """
        held = {} if known is None else known
        for match in _STORAGE.finditer(statement):
            self._open(match["scheme"].lower())

        def placed(match: re.Match[str]) -> str:
            table = _table(match)
            scheme, separator, _rest = table.path.partition("://")
            if separator:
                self._open(scheme.lower())
            if table not in held:
                held[table] = self._snapshot(table)
            return held[table].select(match["after"] or "") + (match["after"] or "")

        return _DELTA.sub(placed, statement)

    def described(self, statement: str) -> str:
        """Return a statement of the same columns as one that is run; no file of a table is read."""
        for match in _STORAGE.finditer(statement):
            self._open(match["scheme"].lower())

        def placed(match: re.Match[str]) -> str:
            return self._snapshot(_table(match)).empty() + (match["after"] or "")

        return _DELTA.sub(placed, statement)

    def open_storage(self, url: str) -> None:
        """Make a kind of object storage known to DuckDB, by one of its URLs."""
        self._open(url.partition("://")[0].lower())

    def rows(self, select: str) -> int | None:
        """Return how many rows a log says that the only table of a SELECT has; None for others."""
        import pyarrow.compute as pc

        found = list(_DELTA.finditer(select))
        if len(found) != 1:
            return None
        files = self._snapshot(_table(found[0])).files
        if "num_records" not in files.column_names or files.column("num_records").null_count:
            return None
        return int(pc.sum(files.column("num_records")).as_py() or 0)

    def _open(self, scheme: str) -> None:
        with self._lock:
            if scheme in self._schemes:
                return
            if not self._connection.filesystem_is_registered(scheme):
                self._connection.register_filesystem(_file_system(scheme))
            self._schemes.add(scheme)

    def _snapshot(self, table: _Table) -> _Snapshot:
        """Return a state of a table; the newest is looked for each time, an older one once."""
        try:
            from deltalake import DeltaTable
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"reading the Delta table {table.path} needs deltalake; "
                "pip install 'virtualfs[lake]'"
            ) from None
        _check_process()
        with self._lock, _readable(table):
            opened = self._tables.get(table)
            if opened is None:
                opened = DeltaTable(table.path)
                if table.version is not None:
                    if table.version > opened.version():
                        raise ValueError(f"it has versions 0 to {opened.version()}")
                    opened.load_as_version(table.version)
                if table.as_of is not None:
                    _go_back(opened, _instant(table.as_of))
                self._tables[table] = opened
            elif table.version is None and table.as_of is None:
                opened.update_incremental()
            return _snapshot_of(opened)


def _check_process() -> None:
    """Refuse to read Delta tables where a parent process has: delta-rs' threads are not here."""
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise WarehouseError(
            "Delta tables were read before this process was forked, and the Delta library works in "
            "one process. Start processes by spawn or forkserver, or fork before the first read"
        )


_process = 0
"""The process that reads Delta tables; 0 before the first."""


def _table(match: re.Match[str]) -> _Table:
    version = match["version"]
    path = match["path"].replace("''", "'")
    return _Table(path, int(version) if version else None, match["as_of"])


def _go_back(table: Any, instant: datetime) -> None:
    """Read a table as of an instant, which must not lie before it was made."""
    table.load_as_version(instant)
    first = datetime.fromtimestamp(min(e["timestamp"] for e in table.history()) / 1000, UTC)
    if first > instant:
        raise ValueError(f"its first version is of {first:%Y-%m-%d %H:%M:%S} UTC")


def _snapshot_of(table: Any) -> _Snapshot:
    import pyarrow as pa

    settings = table.metadata().configuration
    if settings.get("delta.columnMapping.mode", "none") != "none":
        raise ValueError("it maps columns to other names in its files, which is not read here")
    if pa.table(table.deletion_vectors()).num_rows:
        raise ValueError("it has deletion vectors, which are not read here; purge them (OPTIMIZE)")
    schema = pa.schema(table.schema().to_arrow())
    partitions = tuple(table.metadata().partition_columns)
    files = pa.table(table.get_add_actions(flatten=True))
    root = table.table_uri.rstrip("/")
    paths = files.column("path").to_pylist()
    uris = [path if "://" in path else f"{root}/{unquote(path)}" for path in paths]
    for name in partitions:
        for path, value in zip(paths, files.column(f"partition.{name}").to_pylist(), strict=True):
            told = dict(part.partition("=")[::2] for part in unquote(path).split("/")[:-1])
            if name not in told or (value is None) != (told[name] == _NO_VALUE):
                raise ValueError(
                    f"its files are not in folders named by {name!r}, as Hive has them"
                )
    return _Snapshot(schema, partitions, files.append_column("uri", pa.array(uris, pa.string())))


def _type(field: pa.Field) -> str:
    """Return a column's type as DuckDB writes it."""
    import ibis
    from ibis.backends.sql.datatypes import DuckDBType

    return str(DuckDBType.to_string(ibis.dtype(field.type)))


def _name(name: str) -> str:
    return sql.quoted(name, "duckdb")


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _file_system(scheme: str) -> Any:
    """Return the file system of a kind of object storage, as DuckDB takes it."""
    try:
        from fsspec.implementations.arrow import ArrowFSWrapper
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"reading {scheme}:// paths needs fsspec; pip install 'virtualfs[lake]'"
        ) from None
    from pyarrow import fs

    class Files(ArrowFSWrapper):  # type: ignore[misc]  # fsspec says no types
        """What DuckDB asks for files; an error of the storage is one, and not an empty folder."""

        protocol = scheme
        cachable = False

        def walk(self, path: str, *args: Any, **kwargs: Any) -> Any:
            return super().walk(path, *args, **{**kwargs, "on_error": _unless_missing})

    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        opened: Any = fs.S3FileSystem(endpoint_override=endpoint)
    elif scheme in ("gs", "gcs"):
        opened = fs.GcsFileSystem()
    else:
        opened = fs.AzureFileSystem(
            account_name=os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", ""),
            account_key=os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"),
        )
    return Files(opened)


def _unless_missing(error: Exception) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _readable(table: _Table) -> Iterator[None]:
    """Turn delta-rs' errors into ours."""
    from deltalake.exceptions import DeltaError, TableNotFoundError

    place = without_secrets(table.path)
    try:
        yield
    except TableNotFoundError:
        raise WarehouseError(
            f"there is no Delta table at {place}: it has no _delta_log; for a folder of Parquet "
            f"files write {place.rstrip('/')}/**/*.parquet"
        ) from None
    except (DeltaError, OSError, ValueError) as error:
        what = ""
        if table.version is not None:
            what = f" in version {table.version}"
        elif table.as_of is not None:
            what = f" as of {table.as_of}"
        raise WarehouseError(
            f"the Delta table at {place} cannot be read{what}: "
            f"{without_secrets(str(error).splitlines()[0])}"
        ) from None
