"""Reading and writing the registry: states, versions, revisions, environments; each in one go."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from virtualfs.config import ENVIRONMENT
from virtualfs.definitions.project import KINDS
from virtualfs.errors import (
    ConfigError,
    NotFoundError,
    PlanConflictError,
    RegistryError,
    did_you_mean,
)
from virtualfs.registry.database import Database
from virtualfs.registry.index_tables import IndexTables
from virtualfs.registry.indexing import Index
from virtualfs.registry.records import Environment, Record, RevisionRow, Versions
from virtualfs.registry.state import Key, Objects, State, StoredObject, Write
from virtualfs.registry.tables import (
    changes,
    environments,
    objects,
    placements,
    revisions,
)
from virtualfs.registry.tables import identity as identities
from virtualfs.registry.training_sets import TrainingSets

__all__ = ["DEFAULT", "Registry", "checked_name"]

DEFAULT = "default"
"""The environment of those who name none."""
_TRIES = 5
_MOST = 2**31
"""Numbers of revisions and versions are below it."""
_TOGETHER = 300
"""Beyond so many objects all of a kind are read, and not each by its name."""


class Registry:
    """The registry of one project, seen from one environment.

    Parameters
    ----------
    database
        Where it lies.
    project
        Projects share a registry without seeing each other.
    environment
        The environment whose newest revision is read, and which an apply moves.
    identity
        Who is recorded as the author of revisions.
    """

    def __init__(
        self,
        database: Database,
        project: str,
        environment: str = DEFAULT,
        identity: str = "unknown",
    ) -> None:
        self.database = database
        self.project = project
        self.environment = checked_name(environment)
        self.identity = identity
        self._own_identity: str | None = None
        self.index = IndexTables(database, project)
        self.training_sets = TrainingSets(database, project)

    def __repr__(self) -> str:
        return f"Registry({self.database.location!r}, {self.project!r}, {self.environment!r})"

    # -- reading

    def state(self, revision: int | None = None, environment: str | None = None) -> State:
        """Return the objects at a revision, that of the environment when None.

        A missing registry is empty, and so is the default environment before the first apply.

        Raises
        ------
        NotFoundError
            There is no such environment.
        RegistryError
            There is no such revision.
        """
        name = environment or self.environment
        with self.database.reading() as connection:
            if connection is None:
                if revision is None:
                    self._must_exist(name, {})
                return State(0, environment=name)
            if revision is None:
                revision = self._pointer(connection, name)
            placed = self._placed_at(connection, revision)

        def find(keys: Sequence[Key] | None = None, kind: str | None = None) -> dict[Key, int]:
            query = sa.select(placements.c.kind, placements.c.name, placements.c.written)
            query = query.where(*placed)
            if keys is not None and len(keys) <= _TOGETHER:
                query = query.where(*_named(placements, keys))
            if kind is not None:
                query = query.where(placements.c.kind == kind)
            with self.database.reading() as connection:
                rows = connection.execute(query).all() if connection is not None else ()
            found = {(row.kind, row.name): row.written for row in rows}
            return found if keys is None else {key: found[key] for key in keys if key in found}

        return State(revision, Objects(find, self._read), name)

    def state_to_change(self) -> State:
        """Return the state that a plan is made against; a new environment begins as the default."""
        known = {item.name for item in self.environments()}
        name = self.environment if self.environment in known else DEFAULT
        return replace(self.state(environment=name), environment=self.environment)

    def newest_revision(self) -> int:
        """Return the revision of the environment, without reading its objects; 0 if none."""
        with self.database.reading() as connection:
            if connection is None:
                self._must_exist(self.environment, {})
                return 0
            return self._pointer(connection, self.environment)

    def deployment(self) -> str:
        """Return what tells this registry and project from others; known once it has tables."""
        if self._own_identity is None:
            with self.database.reading() as connection:
                if connection is None:
                    return f"{self.database.location} {self.project}"
                self._own_identity = connection.execute(sa.select(identities)).scalar_one()
        return f"{self._own_identity} {self.project}"

    def environments(self) -> list[Environment]:
        """Return the environments by name."""
        with self.database.reading() as connection:
            if connection is None:
                return []
            rows = connection.execute(_newest_of(self.project)).all()
        return [
            Environment(r.name, r.revision, _utc(r.moved_at), r.moved_by, r.reason) for r in rows
        ]

    def version(self, kind: str, name: str, version: int) -> StoredObject | None:
        """Return an object as it was in one of its versions, or None.

        Where it was described in other words since, those of this environment come first.
        """
        if not 0 < version < _MOST:
            return None
        of_name = (objects.c.kind == kind, objects.c.name == name)
        rows = self._objects(*of_name, objects.c.version == version)
        if len(rows) > 1:
            here = self._written_here(kind, name)
            rows = [row for row in rows if row.written in here] or rows
        return rows[-1] if rows else None

    def _written_here(self, kind: str, name: str) -> set[int]:
        """Return the revisions that wrote what stood at a name in this environment's line."""
        with self.database.reading() as connection:
            revision = self._pointer(connection, self.environment) if connection is not None else 0
            if connection is None or not revision:
                return set()
            query = sa.select(placements.c.written).where(
                placements.c.project == self.project,
                placements.c.line == self._line_of(connection, revision),
                placements.c.kind == kind,
                placements.c.name == name,
                placements.c.since <= revision,
            )
            return set(connection.execute(query).scalars())

    def versions(self, revision: int) -> dict[Key, Versions]:
        """Return the versions of every object that ever was.

        Parameters
        ----------
        revision
            The state that is to be followed.
        """
        found: dict[Key, Versions] = {}
        with self.database.reading() as connection:
            if connection is None:
                return found
            ever = sa.select(
                objects.c.kind, objects.c.name, objects.c.version, objects.c.fingerprint
            ).where(objects.c.project == self.project)
            for row in connection.execute(ever.distinct().order_by(objects.c.version)):
                known = found.setdefault((row.kind, row.name), Versions({}))
                known.fingerprints[row.version] = row.fingerprint
            if revision:
                here = (
                    sa.select(
                        objects.c.kind, objects.c.name, sa.func.max(objects.c.version).label("last")
                    )
                    .join(
                        placements,
                        sa.and_(
                            *(placements.c[c] == objects.c[c] for c in ("project", "kind", "name")),
                            placements.c.written == objects.c.written,
                        ),
                    )
                    .where(
                        objects.c.project == self.project,
                        placements.c.line == self._line_of(connection, revision),
                        placements.c.since <= revision,
                    )
                    .group_by(objects.c.kind, objects.c.name)
                )
                for kind, name, last in connection.execute(here):
                    found[kind, name].last = last
        return found

    def revisions(self, name: str | None = None) -> list[tuple[RevisionRow, list[Record]]]:
        """Return the revisions with what they changed, newest first.

        Parameters
        ----------
        name
            Only revisions that changed an object of this name, with those changes.
        """
        with self.database.reading() as connection:
            if connection is None:
                return []
            query = sa.select(revisions).where(revisions.c.project == self.project)
            recorded = sa.select(changes).where(changes.c.project == self.project)
            if name is not None:
                recorded = recorded.where(changes.c.name == name)
            by_revision: dict[int, list[Record]] = defaultdict(list)
            for row in connection.execute(recorded.order_by(changes.c.kind, changes.c.name)):
                by_revision[row.revision].append(
                    Record(row.action, row.kind, row.name, row.version, row.old_version, row.impact,
                           tuple(row.details))
                )  # fmt: skip
            rows = connection.execute(query.order_by(revisions.c.number.desc())).all()
        return [
            (
                RevisionRow(r.number, r.parent, r.environment, r.action, _utc(r.created_at),
                            r.created_by, r.summary),
                by_revision.get(r.number, []),
            )
            for r in rows
            if name is None or r.number in by_revision
        ]  # fmt: skip

    # -- writing

    def write(
        self,
        writes: Sequence[Write],
        base: int,
        summary: str,
        records: Sequence[Record],
        index: Index,
        action: str = "apply",
    ) -> int:
        """Write a revision on top of `base` and move the environment to it; all or nothing.

        Raises
        ------
        PlanConflictError
            The environment has moved since `base`.
        RegistryError
            The registry cannot be written.
        """
        return self._written(
            self.environment,
            base,
            lambda connection: self._insert(
                connection, writes, base, summary, records, index, action
            ),
            f"{action}: {summary}",
        )

    def point(self, environment: str, base: int | None, revision: int, reason: str) -> None:
        """Move an environment from revision `base` (None: it is new) to another.

        Its name has been checked by :func:`checked_name`.

        Raises
        ------
        PlanConflictError
            It has moved meanwhile.
        """
        self._written(environment, base, lambda _: revision, reason)

    def _written(
        self, environment: str, base: int | None, write: Callable[[sa.Connection], int], reason: str
    ) -> int:
        """Run `write`, which gives a revision, and let an environment point at it."""
        if self.database.current_schema() is None:
            self.database.upgrade()
        for _ in range(_TRIES):
            try:
                with self.database.connect(write=True) as connection:
                    self.database.checked(connection)
                    rows = connection.execute(_newest_of(self.project, environment)).all()
                    # A new environment begins where the default one stands, or with nothing.
                    found = rows[0].revision if rows else None
                    if found != base and not (found is None and self._begins_at(connection, base)):
                        raise PlanConflictError(
                            f"the plan was made against revision {base}, but environment "
                            f"{environment} is at revision {found or 0}; plan again"
                        )
                    number = write(connection)
                    connection.execute(
                        environments.insert().values(
                            project=self.project,
                            name=environment,
                            sequence=rows[0].sequence + 1 if rows else 1,
                            revision=number,
                            moved_at=datetime.now(UTC),
                            moved_by=self.identity,
                            reason=reason,
                        )
                    )
                    return number
            except sa.exc.IntegrityError:
                continue  # somebody else wrote that number, perhaps for another environment
        raise PlanConflictError("others write to the registry all the time; plan again")

    def _begins_at(self, connection: sa.Connection, base: int | None) -> bool:
        rows = connection.execute(_newest_of(self.project, DEFAULT)).all()
        return base == (rows[0].revision if rows else 0)

    def _insert(
        self,
        connection: sa.Connection,
        writes: Sequence[Write],
        base: int,
        summary: str,
        records: Sequence[Record],
        index: Index,
        action: str,
    ) -> int:
        project = self.project
        of_project = revisions.c.project == project
        newest = connection.execute(sa.select(sa.func.max(revisions.c.number)).where(of_project))
        number = (newest.scalar() or 0) + 1
        line = 1
        if base:
            line = self._line_of(connection, base)
            tip = sa.select(sa.func.max(revisions.c.number)).where(
                of_project, revisions.c.line == line
            )
            if connection.execute(tip).scalar_one() != base:
                line = number
        elif number > 1:
            line = number
        connection.execute(
            revisions.insert().values(
                project=project,
                number=number,
                created_at=datetime.now(UTC),
                created_by=self.identity,
                summary=summary,
                parent=base or None,
                line=line,
                environment=self.environment,
                action=action,
            )
        )
        self._check_versions(connection, writes)
        if line == number and base:
            self._begin_line(connection, base, number, {write.key for write in writes})
        else:
            ended = [{"k": kind, "n": name, "u": number} for kind, name in (w.key for w in writes)]
            if ended:
                connection.execute(
                    placements.update()
                    .where(
                        placements.c.project == project,
                        placements.c.line == line,
                        placements.c.kind == sa.bindparam("k"),
                        placements.c.name == sa.bindparam("n"),
                        placements.c.until.is_(None),
                    )
                    .values(until=sa.bindparam("u")),
                    ended,
                )
        new = [write.item for write in writes if write.item and not write.item.written]
        if new:
            connection.execute(
                objects.insert(),
                [
                    {
                        "project": project,
                        "kind": item.kind,
                        "name": item.name,
                        "written": number,
                        "version": item.version,
                        "fingerprint": item.fingerprint,
                        "origin": item.origin,
                        "definition": dict(item.definition),
                        "resolved": dict(item.resolved) if item.resolved else None,
                    }
                    for item in new
                ],
            )
        placed = [
            {
                "project": project,
                "line": line,
                "kind": write.key[0],
                "name": write.key[1],
                "since": number,
                "written": write.item.written or number,
            }
            for write in writes
            if write.item
        ]
        if placed:
            connection.execute(placements.insert(), placed)
        if records:
            connection.execute(
                changes.insert(),
                [
                    {
                        "project": project,
                        "revision": number,
                        **{name: getattr(r, name) for name in _RECORDED},
                        "details": list(r.details),
                    }
                    for r in records
                ],
            )
        self.index.insert(connection, index, {item.key: number for item in new})
        return number

    def _check_versions(self, connection: sa.Connection, writes: Sequence[Write]) -> None:
        """Refuse a version that another environment has meanwhile given to another meaning."""
        new = {
            write.key: write.item
            for write in writes
            if write.item and not write.item.written and write.item.kind in KINDS
        }
        keys = list(new)
        for start in range(0, len(keys), _TOGETHER):
            found = connection.execute(
                sa.select(objects.c.kind, objects.c.name, objects.c.version, objects.c.fingerprint)
                .where(objects.c.project == self.project)
                .where(*_named(objects, keys[start : start + _TOGETHER]))
            )
            for row in found:
                item = new.get((row.kind, row.name))
                if item and item.version == row.version and item.fingerprint != row.fingerprint:
                    raise PlanConflictError(
                        f"another environment has given version {row.version} of {row.name} to "
                        "another meaning since the plan was made; plan again"
                    )

    def _begin_line(self, connection: sa.Connection, base: int, number: int, but: set[Key]) -> None:
        """Copy the placements at a revision to a new line, all but some."""
        rows = connection.execute(
            sa.select(placements.c.kind, placements.c.name, placements.c.written).where(
                *self._placed_at(connection, base)
            )
        ).all()
        copied = [
            {
                "project": self.project,
                "line": number,
                "kind": row.kind,
                "name": row.name,
                "since": number,
                "written": row.written,
            }
            for row in rows
            if (row.kind, row.name) not in but
        ]
        if copied:
            connection.execute(placements.insert(), copied)

    # -- inside

    def _pointer(self, connection: sa.Connection, name: str) -> int:
        rows = connection.execute(_newest_of(self.project, name)).all()
        if rows:
            return int(rows[0].revision)
        known = connection.execute(_newest_of(self.project)).all()
        self._must_exist(name, {row.name: row.revision for row in known})
        return 0

    def _must_exist(self, name: str, known: Mapping[str, int]) -> None:
        if name != DEFAULT and name not in known:
            raise NotFoundError(
                f"project {self.project!r} has no environment {name!r}; `virtualfs apply --env "
                f"{name}` makes it. {did_you_mean(name, {DEFAULT, *known})}"
            )

    def _placed_at(self, connection: sa.Connection, revision: int) -> list[Any]:
        """Return the conditions that placements at a revision fulfil."""
        if revision == 0:
            return [sa.false()]
        return [
            placements.c.project == self.project,
            placements.c.line == self._line_of(connection, revision),
            placements.c.since <= revision,
            sa.or_(placements.c.until.is_(None), placements.c.until > revision),
        ]

    def _line_of(self, connection: sa.Connection, revision: int) -> int:
        of_project = revisions.c.project == self.project
        line = None
        if 0 < revision < _MOST:
            line = connection.execute(
                sa.select(revisions.c.line).where(of_project, revisions.c.number == revision)
            ).scalar()
        if line is None:
            newest = connection.execute(
                sa.select(sa.func.max(revisions.c.number)).where(of_project)
            ).scalar()
            raise RegistryError(
                f"there is no revision {revision}; project {self.project!r} has 0 to {newest or 0}"
            )
        return int(line)

    def _read(self, wanted: Mapping[Key, int]) -> Iterable[StoredObject]:
        conditions: list[Any] = []
        if len(wanted) <= _TOGETHER:
            conditions = _named(objects, wanted)
        return [item for item in self._objects(*conditions) if wanted.get(item.key) == item.written]

    def _objects(self, *conditions: Any) -> list[StoredObject]:
        with self.database.reading() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                sa.select(objects)
                .where(objects.c.project == self.project, *conditions)
                .order_by(objects.c.written)
            )
            return [
                StoredObject(
                    kind=row.kind,
                    name=row.name,
                    version=row.version,
                    fingerprint=row.fingerprint,
                    origin=row.origin,
                    definition=row.definition,
                    resolved=row.resolved,
                    written=row.written,
                )
                for row in rows
            ]


_RECORDED = ("action", "kind", "name", "version", "old_version", "impact")


def checked_name(environment: str) -> str:
    """Return the name of an environment, or raise ConfigError."""
    if not re.match(ENVIRONMENT, environment) or environment.endswith("\n"):
        raise ConfigError(
            f"{environment!r} cannot be an environment's name; use letters, digits, '_', '-', '.'"
        )
    return environment


def _named(table: sa.Table, keys: Iterable[Key]) -> list[Any]:
    """Return conditions, such as the primary key can answer, that rows of some keys fulfil.

    Other rows, of a kind and a name that stand in two keys, may fulfil them too.
    """
    kinds, names = ({*parts} for parts in zip(*keys, strict=True))
    return [table.c.kind.in_(sorted(kinds)), table.c.name.in_(sorted(names))]


def _newest_of(project: str, name: str | None = None) -> sa.Select[Any]:
    """Return the query of where environments stand: the last move of each, or of one."""
    of_project = environments.c.project == project
    newest = sa.select(
        environments.c.name, sa.func.max(environments.c.sequence).label("sequence")
    ).where(of_project)
    if name is not None:
        newest = newest.where(environments.c.name == name)
    last = newest.group_by(environments.c.name).subquery()
    return (
        sa.select(environments)
        .join(
            last,
            sa.and_(environments.c.name == last.c.name, environments.c.sequence == last.c.sequence),
        )
        .where(of_project)
        .order_by(environments.c.name)
    )


def _utc(at: datetime) -> datetime:
    # SQLite gives back naive times; they were written in UTC.
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
