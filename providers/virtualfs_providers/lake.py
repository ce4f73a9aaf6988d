"""Files that DuckDB does not read by itself: object storage, and tables of Delta Lake.

Object storage is read through pyarrow's file systems, which take credentials from the environment
as each cloud's own tools do. A Delta table is read through delta-rs: its log says which files make
up a version, which of them hold what times, and DuckDB reads those. Neither needs an extension of
DuckDB, which would have to be fetched from elsewhere than the package index.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from virtualfs.capabilities import Files
from virtualfs.errors import WarehouseError, without_secrets

__all__ = ["Lake", "delta_scan"]

_STORAGE = re.compile(
    r"\bread_(?:parquet|csv)\(\s*'(?P<scheme>s3|gs|gcs|abfss?|az)://", re.IGNORECASE
)
_DELTA = re.compile(
    r"\bdelta_scan\(\s*'(?P<path>(?:[^']|'')*)'"
    r"(?:,\s*(?:version => (?P<version>\d+)|as_of => '(?P<as_of>[^']*)'))?\s*\)",
    re.IGNORECASE,
)


def delta_scan(files: Files) -> str:
    """Return the SELECT that reads a Delta table; :meth:`Lake.prepared` knows what it means."""
    path = files.path.replace("'", "''")
    if files.version is not None:
        return f"SELECT * FROM delta_scan('{path}', version => {files.version})"
    if files.as_of is not None:
        return f"SELECT * FROM delta_scan('{path}', as_of => '{files.as_of.isoformat()}')"
    return f"SELECT * FROM delta_scan('{path}')"


@dataclass(frozen=True)
class _Table:
    """A state of a Delta table, as statements name it."""

    path: str
    version: int | None
    as_of: str | None

    @property
    def name(self) -> str:
        told = f"{self.path}|{self.version}|{self.as_of}"
        return f"__virtualfs_delta_{hashlib.sha256(told.encode()).hexdigest()[:16]}"


class Lake:
    """What one DuckDB database was given of object storage, and the Delta tables that it reads.

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

    def prepared(self, cursor: Any, statement: str, known: set[str]) -> str:
        """Make what a statement reads known to a cursor; return the statement as it is run.

        Parameters
        ----------
        known
            Names of what the cursor has been given; it sees one state of a table as long as they
            are kept.

        Raises
        ------
        ModuleNotFoundError
            A package is missing.
        WarehouseError
            There is no such table or version, or it cannot be read.
        """
        for match in _STORAGE.finditer(statement):
            self._open(match["scheme"].lower())

        def placed(match: re.Match[str]) -> str:
            version = match["version"]
            table = _Table(
                match["path"].replace("''", "'"), int(version) if version else None, match["as_of"]
            )
            if table.name not in known:
                cursor.register(table.name, self._dataset(table))
                known.add(table.name)
            return f'"{table.name}"'

        return _DELTA.sub(placed, statement)

    def _open(self, scheme: str) -> None:
        with self._lock:
            if scheme in self._schemes:
                return
            self._connection.register_filesystem(_file_system(scheme))
            self._schemes.add(scheme)

    def _dataset(self, table: _Table) -> Any:
        """Return a state of a table; the newest is looked for each time, an older one once."""
        try:
            from deltalake import DeltaTable
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"reading the Delta table {table.path} needs deltalake; "
                "pip install 'virtualfs[lake]'"
            ) from None
        with self._lock, _readable(table):
            opened = self._tables.get(table)
            if opened is None:
                opened = DeltaTable(table.path, version=table.version)
                if table.as_of is not None:
                    opened.load_as_version(_instant(table.as_of))
                self._tables[table] = opened
            elif table.version is None and table.as_of is None:
                opened.update_incremental()
            return opened.to_pyarrow_dataset()


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
