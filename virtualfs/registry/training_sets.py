"""What the registry remembers of saved training sets: every version, for good."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from virtualfs.compiler.training_set import PREFIX, SavedTrainingSet
from virtualfs.errors import NotFoundError, PlanConflictError, did_you_mean
from virtualfs.registry.database import Database
from virtualfs.registry.tables import training_set_features, training_sets

__all__ = ["TrainingSets"]

_TRIES = 5
_REFERENCE = re.compile(rf"{PREFIX}(?P<name>[^:@]+)@(?P<version>\d{{1,9}})")


class TrainingSets:
    """The saved training sets of one project; its environments share them."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def add(self, record: SavedTrainingSet) -> SavedTrainingSet:
        """Remember a training set as the next version of its name.

        Raises
        ------
        PlanConflictError
            Others save under the name all the time.
        RegistryError
            The registry cannot be written.
        """
        if self._database.current_schema() is None:
            self._database.upgrade()
        for _ in range(_TRIES):
            try:
                with self._database.connect(write=True) as connection:
                    self._database.checked(connection)
                    newest = sa.select(sa.func.max(training_sets.c.version)).where(
                        *self._named(record.name)
                    )
                    version = (connection.execute(newest).scalar() or 0) + 1
                    kept = record.model_copy(update={"version": version})
                    of = {"project": self._project, "name": kept.name, "version": version}
                    connection.execute(
                        training_sets.insert().values(
                            **of,
                            created_at=kept.created_at,
                            created_by=kept.created_by,
                            content_hash=kept.content_hash,
                            record=kept.model_dump(mode="json"),
                        )
                    )
                    features = [
                        {**of, "view": view, "feature": feature}
                        for view, feature in kept.features()
                    ]
                    connection.execute(training_set_features.insert(), features)
                    return kept
            except sa.exc.IntegrityError:
                continue  # somebody else took that version
        raise PlanConflictError(f"others save {record.name!r} all the time; save it again")

    def get(self, name: str, version: int | None = None) -> SavedTrainingSet:
        """Return a training set, its newest version unless one is named.

        Raises
        ------
        NotFoundError
            There is none of that name, or not in that version.
        """
        wanted = [*self._named(name)]
        if version is not None:
            wanted.append(training_sets.c.version == version)
        query = sa.select(training_sets.c.record).where(*wanted)
        rows = self._rows(query.order_by(training_sets.c.version.desc()).limit(1))
        if rows:
            return SavedTrainingSet(**rows[0].record)
        known = self._rows(
            sa.select(training_sets.c.name)
            .where(training_sets.c.project == self._project)
            .distinct()
        )
        names = [row[0] for row in known]
        if name in names:
            newest = self.get(name).version
            raise NotFoundError(
                f"training set {name!r} has no version {version}; it has 1 to {newest}"
            )
        raise NotFoundError(f"there is no training set {name!r}. {did_you_mean(name, names)}")

    @staticmethod
    def split(text: str) -> tuple[str, int]:
        """Return the name and the version of ``delays@2``.

        Raises
        ------
        NotFoundError
            It has none.
        """
        name, _, number = text.partition("@")
        if not number.isdigit() or len(number) > 9:
            raise NotFoundError(f"{text!r} names no version; write for example {name}@1")
        return name, int(number)

    def referred(self, reference: str) -> SavedTrainingSet:
        """Return what ``training_set:delays@1`` refers to.

        Raises
        ------
        NotFoundError
            It refers to nothing.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise NotFoundError(
                f"{reference!r} names no version of a training set; write it as in "
                f"{PREFIX}{reference.removeprefix(PREFIX).partition('@')[0]}@1"
            )
        return self.get(match["name"], int(match["version"]))

    def all(self, name: str | None = None, limit: int | None = None) -> list[SavedTrainingSet]:
        """Return the training sets, or the versions of one, the newest first, `limit` at most."""
        where = [training_sets.c.project == self._project]
        if name is not None:
            where = self._named(name)
        columns = training_sets.c
        query = sa.select(columns.record).where(*where)
        ordered = query.order_by(columns.created_at.desc(), columns.name, columns.version.desc())
        return [SavedTrainingSet(**row.record) for row in self._rows(ordered.limit(limit))]

    def made_of(self, view: str, features: Iterable[str]) -> list[tuple[str, int, str]]:
        """Return names, versions and features of the training sets that hold features of a view.

        Parameters
        ----------
        view
            With its version, as ``weather@2``.
        """
        columns = training_set_features.c
        query = sa.select(columns.name, columns.version, columns.feature).where(
            columns.project == self._project,
            columns.view == view,
            columns.feature.in_([*features]),
        )
        rows = self._rows(query.order_by(columns.name, columns.version))
        return [(row.name, row.version, row.feature) for row in rows]

    def _named(self, name: str) -> list[Any]:
        return [training_sets.c.project == self._project, training_sets.c.name == name]

    def _rows(self, query: Any) -> Sequence[Any]:
        with self._database.reading() as connection:
            return [] if connection is None else connection.execute(query).all()
