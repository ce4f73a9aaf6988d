"""Reading and writing the registry: states, versions and revisions, in single transactions."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from virtualfs.compiler.plan import ResolvedOnDemand, ResolvedView
from virtualfs.definitions.project import Project, definition_from_fields
from virtualfs.errors import PlanConflictError, RegistryError, without_secrets
from virtualfs.registry.tables import objects, revisions

__all__ = ["Migrations", "Registry", "State", "StoredObject", "Write"]

Key = tuple[str, str]
"""Kind and name of an object."""


class Migrations(Protocol):
    """What the entry point of the group ``virtualfs.migrations`` must be."""

    head: str

    def upgrade(self, engine: sa.Engine) -> None:
        """Bring the registry's tables to the newest form."""


@dataclass(frozen=True)
class StoredObject:
    """One object as the registry holds it."""

    kind: str
    name: str
    version: int
    fingerprint: str
    origin: str
    definition: Mapping[str, Any]
    resolved: Mapping[str, Any] | None = None

    def view(self) -> ResolvedView:
        """Return a feature view ready to compile."""
        return ResolvedView(**{**(self.resolved or {}), "version": self.version})

    def on_demand(self) -> ResolvedOnDemand:
        """Return an on-demand feature view ready to compute."""
        fields = {name: item for name, item in (self.resolved or {}).items() if name != "pins"}
        return ResolvedOnDemand(**{**fields, "version": self.version})

    @property
    def pins(self) -> Mapping[str, int]:
        """The versions of views that a service, or an on-demand view, stands on."""
        pins: Mapping[str, int] = (self.resolved or {}).get("pins") or {}
        return pins


@dataclass(frozen=True)
class State:
    """All objects of a project at one revision."""

    revision: int
    objects: Mapping[Key, StoredObject]

    def project(self) -> Project:
        """Return the definitions of this state."""
        return Project.of(
            definition_from_fields(item.kind, item.definition) for item in self.objects.values()
        )

    def of_kind(self, kind: str) -> dict[str, StoredObject]:
        """Return the objects of one kind by name, sorted."""
        return {name: self.objects[k, name] for k, name in sorted(self.objects) if k == kind}


@dataclass(frozen=True)
class Write:
    """One object to be put in a revision, or removed by it when `item` is None."""

    key: Key
    item: StoredObject | None


class Registry:
    """The registry of one project.

    Parameters
    ----------
    url
        SQLAlchemy URL. A SQLite file, and its folder, are created at the first write.
    project
        Projects share a registry without seeing each other.
    """

    def __init__(self, url: str, project: str) -> None:
        self.project = project
        try:
            self._url = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise RegistryError(
                f"registry {without_secrets(url)!r} is not a SQLAlchemy URL; write for example "
                "sqlite:///.virtualfs/registry.db or postgresql+psycopg://user@host/db"
            ) from None
        if self._url.drivername in ("postgresql", "postgres"):
            self._url = self._url.set(drivername="postgresql+psycopg")
        self._engine: sa.Engine | None = None

    def __repr__(self) -> str:
        return f"Registry({self._url.render_as_string(hide_password=True)!r}, {self.project!r})"

    @property
    def location(self) -> str:
        """The registry's URL with its password masked."""
        return self._url.render_as_string(hide_password=True)

    def state(self, revision: int | None = None) -> State:
        """Return the objects at a revision, the newest when None. A missing registry is empty."""
        if not self._exists():
            return State(0, {})
        with self._connect() as connection:
            if self._schema_version(connection) is None:
                return State(0, {})
            self._check_schema(connection)
            newest = self._newest(connection)
            at = newest if revision is None else revision
            if not 0 <= at <= newest:
                raise RegistryError(
                    f"there is no revision {at}; project {self.project!r} has 0 to {newest}"
                )
            rows = connection.execute(
                sa.select(objects).where(
                    objects.c.project == self.project,
                    objects.c.since <= at,
                    sa.or_(objects.c.until.is_(None), objects.c.until > at),
                )
            )
            found = [_stored(row) for row in rows]
        return State(at, {(item.kind, item.name): item for item in found})

    def newest_revision(self) -> int:
        """Return the number of the newest revision, without reading its objects; 0 if none."""
        if not self._exists():
            return 0
        with self._connect() as connection:
            if self._schema_version(connection) is None:
                return 0
            self._check_schema(connection)
            return self._newest(connection)

    def version(self, kind: str, name: str, version: int) -> StoredObject | None:
        """Return an object as it was in one of its versions, or None."""
        rows = self._versions(kind, name, objects.c.version == version)
        return rows[-1] if rows else None

    def newest_version(self, kind: str, name: str) -> int:
        """Return the highest version an object ever had, removed ones included; 0 if none."""
        return max((row.version for row in self._versions(kind, name)), default=0)

    def _versions(self, kind: str, name: str, *conditions: Any) -> list[StoredObject]:
        if not self._exists():
            return []
        with self._connect() as connection:
            if self._schema_version(connection) is None:
                return []
            rows = connection.execute(
                sa.select(objects)
                .where(
                    objects.c.project == self.project,
                    objects.c.kind == kind,
                    objects.c.name == name,
                    *conditions,
                )
                .order_by(objects.c.since)
            )
            return [_stored(row) for row in rows]

    def write(self, writes: Sequence[Write], base: int, summary: str) -> int:
        """Write a revision on top of revision `base`, whole or not at all; return its number.

        Raises
        ------
        PlanConflictError
            Another revision was written since `base`.
        RegistryError
            The registry cannot be written.
        """
        self._create()
        number = base + 1
        try:
            with self._connect(write=True) as connection:
                self._check_schema(connection)
                newest = self._newest(connection)
                if newest != base:
                    raise PlanConflictError(
                        f"the plan was made against revision {base}, but the registry is at "
                        f"revision {newest}; plan again"
                    )
                connection.execute(
                    revisions.insert().values(
                        project=self.project,
                        number=number,
                        created_at=datetime.now(UTC),
                        created_by=_identity(),
                        summary=summary,
                    )
                )
                for change in writes:
                    kind, name = change.key
                    connection.execute(
                        objects.update()
                        .where(
                            objects.c.project == self.project,
                            objects.c.kind == kind,
                            objects.c.name == name,
                            objects.c.until.is_(None),
                        )
                        .values(until=number)
                    )
                    if change.item is not None:
                        item = change.item
                        connection.execute(
                            objects.insert().values(
                                project=self.project,
                                kind=kind,
                                name=name,
                                since=number,
                                version=item.version,
                                fingerprint=item.fingerprint,
                                origin=item.origin,
                                definition=dict(item.definition),
                                resolved=dict(item.resolved) if item.resolved else None,
                            )
                        )
        except sa.exc.IntegrityError:
            raise PlanConflictError(
                f"another apply wrote revision {number} first; plan again"
            ) from None
        return number

    def current_schema(self) -> str | None:
        """Return the schema version the registry's tables have; None when there are none."""
        if not self._exists():
            return None
        with self._connect() as connection:
            return self._schema_version(connection)

    def upgrade(self) -> None:
        """Create the registry's tables or bring them to the newest form."""
        if self._is_file:
            folder = Path(str(self._url.database)).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RegistryError(
                    f"cannot make the registry's folder {folder}: {error.strerror}"
                ) from None
        with self._translated():
            migrations().upgrade(self._open())

    def close(self) -> None:
        """Close pooled connections."""
        if self._engine is not None:
            self._engine.dispose()

    @property
    def _is_file(self) -> bool:
        database = self._url.database
        return self._url.get_backend_name() == "sqlite" and database not in (None, "", ":memory:")

    def _exists(self) -> bool:
        return not self._is_file or Path(str(self._url.database)).exists()

    def _create(self) -> None:
        if self.current_schema() is None:
            self.upgrade()

    def _open(self) -> sa.Engine:
        if self._engine is None:
            in_memory = self._url.get_backend_name() == "sqlite" and not self._is_file
            pool: dict[str, Any] = {"pool_pre_ping": True}
            if in_memory:
                pool = {"poolclass": sa.StaticPool}
            elif self._is_file:  # opening a file is cheap, and nothing is left open
                pool = {"poolclass": sa.NullPool}
            try:
                self._engine = sa.create_engine(self._url, **pool)
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
            if self._url.get_backend_name() == "sqlite":
                sa.event.listen(self._engine, "connect", _manual_transactions)
                sa.event.listen(self._engine, "begin", _begin)
        return self._engine

    @contextmanager
    def _connect(self, *, write: bool = False) -> Iterator[sa.Connection]:
        with self._translated():
            engine = self._open().execution_options(virtualfs_write=write)
            with engine.begin() as connection:
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InternalError, sa.exc.ProgrammingError) as error:
            reason = without_secrets(str(error.orig).splitlines()[0])
            raise RegistryError(
                f"registry {self.location}: {reason}. Check registry= in the "
                "configuration, and that its place exists and may be written"
            ) from None
        except sa.exc.DatabaseError as error:
            if isinstance(error, sa.exc.IntegrityError):
                raise
            reason = without_secrets(str(error.orig).splitlines()[0])
            raise RegistryError(f"registry {self.location}: {reason}") from None

    def _newest(self, connection: sa.Connection) -> int:
        query = sa.select(sa.func.max(revisions.c.number)).where(
            revisions.c.project == self.project
        )
        return connection.execute(query).scalar() or 0

    def _schema_version(self, connection: sa.Connection) -> str | None:
        if not sa.inspect(connection).has_table("virtualfs_schema"):
            return None
        row = connection.execute(sa.text("SELECT version_num FROM virtualfs_schema")).first()
        return str(row[0]) if row else None

    def _check_schema(self, connection: sa.Connection) -> None:
        found, expected = self._schema_version(connection), migrations().head
        if found is not None and found < expected:
            raise RegistryError(
                f"the registry has schema {found}, older than this VirtualFS ({expected}); "
                "back it up, then run `virtualfs registry upgrade`"
            )
        if found is not None and found > expected:
            raise RegistryError(
                f"the registry has schema {found}, newer than this VirtualFS knows ({expected}); "
                "upgrade the virtualfs package"
            )


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


def _stored(row: Any) -> StoredObject:
    return StoredObject(
        kind=row.kind,
        name=row.name,
        version=row.version,
        fingerprint=row.fingerprint,
        origin=row.origin,
        definition=row.definition,
        resolved=row.resolved,
    )


def _identity() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _manual_transactions(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: writers take the lock at BEGIN (below), so
    # that two applies cannot both read the old revision.
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("virtualfs_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
