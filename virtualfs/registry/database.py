"""The database that a registry lies in: opening it, transactions, its schema, errors in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from virtualfs.config import check_url
from virtualfs.errors import RegistryError, did_you_mean, without_secrets
from virtualfs.forks import no_fork, renew_in_child
from virtualfs.registry.tables import schema_version

__all__ = ["Database", "Migrations", "migrations"]


class Migrations(Protocol):
    """What the entry point of the group ``virtualfs.migrations`` must be."""

    versions: tuple[str, ...]
    """Schema versions, oldest first."""

    @property
    def head(self) -> str:
        """The newest schema version."""

    def upgrade(self, engine: sa.Engine, schema: str | None = None) -> None:
        """Bring the registry's tables to the newest form."""

    def downgrade(self, engine: sa.Engine, version: str, schema: str | None = None) -> None:
        """Take the registry's tables back to an older form."""

    def sql(self, dialect: str, version: str | None, schema: str | None = None) -> str:
        """Return the statements that bring tables of a version to the newest form."""


_SQLITE_OPTIONS = frozenset(
    ("cache", "cached_statements", "check_same_thread", "detect_types", "immutable",
     "isolation_level", "mode", "nolock", "timeout", "uri", "vfs")
)  # fmt: skip
"""What may follow ``?`` in the URL of a SQLite file."""


@cache
def migrations() -> Migrations:
    """Return the installed migrations.

    Raises
    ------
    RegistryError
        The package was installed without them.
    """
    for entry in entry_points(group="virtualfs.migrations"):
        found: Migrations = entry.load()
        return found
    raise RegistryError("virtualfs is not installed whole: it has no migrations; reinstall it")


class Database:
    """One database by its SQLAlchemy URL.

    Parameters
    ----------
    url
        A SQLite file, and its folder, are created at the first write.
    schema
        The schema that the tables lie in, of databases that have schemas; the connection's own when
        None.
    """

    def __init__(self, url: str, schema: str | None = None) -> None:
        check_url(url, "registry", "sqlite:///.virtualfs/registry.db")
        try:
            self._url = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise RegistryError(
                f"registry {without_secrets(url)!r} is not a SQLAlchemy URL; write for example "
                "sqlite:///.virtualfs/registry.db or postgresql+psycopg://user@host/db"
            ) from None
        if self._url.drivername in ("postgresql", "postgres"):
            self._url = self._url.set(drivername="postgresql+psycopg")
        unknown = [name for name in self._url.query if name not in _SQLITE_OPTIONS]
        if self._is_sqlite and unknown:
            raise RegistryError(
                f"registry: SQLite knows no option {unknown[0]!r}. "
                f"{did_you_mean(unknown[0], _SQLITE_OPTIONS)}"
            )
        if schema and self._is_sqlite:
            raise RegistryError("registry_schema= is for PostgreSQL; SQLite has no schemas")
        self._schema = schema
        self._engine: sa.Engine | None = None
        self._has_tables = False
        renew_in_child(self._renew)

    def _renew(self) -> None:
        """Open connections of its own in a forked child, as SQLAlchemy documents it."""
        if self._engine is not None and not isinstance(self._engine.pool, sa.StaticPool):
            self._engine.dispose(close=False)

    def __repr__(self) -> str:
        return f"Database({self.location!r})"

    @property
    def location(self) -> str:
        """The URL with its password masked, and the schema."""
        hidden = {
            name: "***" if re.search("(?i)pass|secret|token|key", name) else value
            for name, value in self._url.query.items()
        }
        shown = self._url.set(query=hidden).render_as_string(hide_password=True)
        return f"{shown}, schema {self._schema}" if self._schema else shown

    @property
    def exists(self) -> bool:
        """Whether there can be anything: not where the file is still to be made."""
        return not self._is_file or Path(str(self._url.database)).exists()

    @contextmanager
    def connect(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """Open a connection in a transaction of its own, committed at the end.

        Raises
        ------
        RegistryError
            The database refuses, or cannot be reached.
        """
        # SQLite's library has locks of its own, which a forked child would find taken.
        with self._translated(), no_fork() if self._is_sqlite else nullcontext():
            engine = self.open().execution_options(virtualfs_write=write)
            with engine.begin() as connection:
                yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection | None]:
        """Open a connection to read with; None where there is nothing to read.

        Raises
        ------
        RegistryError
            The tables are of another version than this package's, or the database refuses.
        """
        if not self.exists:
            yield None
            return
        with self.connect() as connection:
            yield connection if self.checked(connection) else None

    def schema_version(self, connection: sa.Connection) -> str | None:
        """Return the version of the tables; None when there are none."""
        if not self._has_tables:  # once there, they are looked for no more
            made = sa.inspect(connection).has_table(schema_version.name, schema=self._schema)
            if not made:
                return None
            self._has_tables = True
        row = connection.execute(sa.select(schema_version)).first()
        return str(row[0]) if row else None

    def checked(self, connection: sa.Connection) -> bool:
        """Tell whether there are tables.

        Raises
        ------
        RegistryError
            They are of an older or a newer version than this package's.
        """
        found, expected = self.schema_version(connection), migrations().head
        if found is not None and found < expected:
            raise RegistryError(
                f"the registry has schema {found}, older than this VirtualFS ({expected}); "
                "back it up, then run `virtualfs registry upgrade`"
            )
        if found is not None and found > expected:
            raise RegistryError(
                f"the registry has schema {found}, newer than this VirtualFS knows ({expected}); "
                "upgrade the virtualfs package: `pip install --upgrade virtualfs`"
            )
        return found is not None

    def current_schema(self) -> str | None:
        """Return the schema version the tables have; None when there are none."""
        if not self.exists:
            return None
        with self.connect() as connection:
            return self.schema_version(connection)

    def upgrade(self) -> None:
        """Create the tables or bring them to the newest form."""
        if self._is_file:
            folder = Path(str(self._url.database)).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RegistryError(
                    f"cannot make the registry's folder {folder}: {error.strerror}"
                ) from None
        with self._translated():
            migrations().upgrade(self.open(), self._schema)

    def downgrade(self, version: str) -> None:
        """Take the tables back to an older form.

        Raises
        ------
        RegistryError
            The older form cannot hold what is there; nothing was changed.
        """
        known = migrations().versions
        current = self.current_schema()
        if version not in known or current is None or version > current:
            raise RegistryError(
                f"the registry has schema {current or 'none'}, which cannot be taken back to "
                f"{version!r}; known are {', '.join(known)}"
            )
        with self._translated():
            try:
                migrations().downgrade(self.open(), version, self._schema)
            except RuntimeError as error:
                raise RegistryError(str(error)) from None

    def upgrade_sql(self) -> str:
        """Return the statements that :meth:`upgrade` would run."""
        found = self.current_schema()
        if found == migrations().head:
            return ""
        return migrations().sql(self._url.get_backend_name(), found, self._schema)

    def close(self) -> None:
        """Close pooled connections."""
        if self._engine is not None:
            self._engine.dispose()

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def _is_file(self) -> bool:
        return self._is_sqlite and self._url.database not in (None, "", ":memory:")

    def open(self) -> sa.Engine:
        """Return the engine, made when first needed."""
        if self._engine is None:
            pool: dict[str, Any] = {"pool_pre_ping": True}
            if self._is_file:  # opening a file is cheap, and nothing is left open
                pool = {"poolclass": sa.NullPool}
            elif self._is_sqlite:
                pool = {"poolclass": sa.StaticPool}
            try:
                engine = sa.create_engine(self._url, **pool)
            except sa.exc.NoSuchModuleError:
                raise RegistryError(
                    f"registry {self.location}: {self._url.drivername} is not a database that "
                    "SQLAlchemy knows; use sqlite:/// or postgresql://"
                ) from None
            except ModuleNotFoundError as error:
                extra = {"psycopg": "postgres"}.get(error.name or "")
                install = f"pip install 'virtualfs[{extra}]'" if extra else f"install {error.name}"
                raise RegistryError(
                    f"the registry's driver {error.name} is missing; {install}"
                ) from None
            if self._is_sqlite:
                sa.event.listen(engine, "connect", _manual_transactions)
                sa.event.listen(engine, "begin", _begin)
            if self._schema:
                engine = engine.execution_options(schema_translate_map={None: self._schema})
            self._engine = engine
        return self._engine

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InternalError, sa.exc.ProgrammingError) as error:
            reason = without_secrets((str(error.orig).splitlines() or ["it refused"])[0])
            raise RegistryError(
                f"registry {self.location}: {reason}. Check registry= in the "
                "configuration, and that its place exists and may be written"
            ) from None
        except sa.exc.DatabaseError as error:
            if isinstance(error, sa.exc.IntegrityError):
                raise
            reason = without_secrets((str(error.orig).splitlines() or ["it refused"])[0])
            raise RegistryError(f"registry {self.location}: {reason}") from None


def _manual_transactions(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: writers take the lock at BEGIN (below), so
    # that two applies cannot both read the old revision.
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("virtualfs_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
