"""What is derived from objects, as the registry keeps it: lineage edges and words to search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from virtualfs.definitions.project import KINDS
from virtualfs.registry.database import Database
from virtualfs.registry.indexing import Document, Edge, Index
from virtualfs.registry.state import Key, State, StoredObject
from virtualfs.registry.tables import documents, edges

__all__ = ["IndexTables"]

_EDGE = ("feature", "role", "upstream_kind", "warehouse", "upstream", "upstream_name")
_DOCUMENT = ("feature", "description", "labels", "words")  # and body, which is made of them


class IndexTables:
    """Edges and documents of one project's objects."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def missing(self, state: State) -> list[StoredObject]:
        """Return the objects of a state that were written before there was an index."""
        here = {key: state.objects.written(key) for key in state.objects if key[0] in KINDS}
        with self._database.reading() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                sa.select(documents.c.kind, documents.c.name, documents.c.written).where(
                    documents.c.project == self._project, documents.c.feature == ""
                )
            )
            known = {((row.kind, row.name), row.written) for row in rows}
        missing = [key for key, written in here.items() if (key, written) not in known]
        state.objects.load(missing)
        return [state.objects[key] for key in missing]

    def add(self, index: Index, items: Iterable[StoredObject]) -> None:
        """Write what is derived from objects that were written before."""
        with (
            suppress(sa.exc.IntegrityError),  # somebody else has just done the same
            self._database.connect(write=True) as connection,
        ):
            self.insert(connection, index, {item.key: item.written for item in items})

    def edges(self, state: State, *conditions: Any) -> list[Edge]:
        """Return the edges of a state's objects that meet conditions on the table of edges."""
        return [
            Edge((row.kind, row.name), *(getattr(row, name) for name in _EDGE))
            for row in self._derived(edges, state, conditions, (edges.c.kind, edges.c.name,
                                                                edges.c.number))
        ]  # fmt: skip

    def documents(self, state: State, *conditions: Any) -> list[Document]:
        """Return the documents of a state's objects that meet conditions on their table."""
        return [
            Document((row.kind, row.name), *(getattr(row, name) for name in _DOCUMENT))
            for row in self._derived(documents, state, conditions, ())
        ]

    def _derived(
        self, table: sa.Table, state: State, conditions: Sequence[Any], order: Sequence[Any]
    ) -> list[Any]:
        with self._database.reading() as connection:
            if connection is None:
                return []
            query = sa.select(table).where(table.c.project == self._project, *conditions)
            rows = connection.execute(query.order_by(*order)).all()
        return [row for row in rows if state.objects.written((row.kind, row.name)) == row.written]

    def insert(self, connection: sa.Connection, index: Index, written: Mapping[Key, int]) -> None:
        """Write what is derived from objects, within a transaction.

        Parameters
        ----------
        written
            The revision that wrote each object.
        """

        def placed(key: Key) -> dict[str, Any]:
            kind, name = key
            return {"project": self._project, "kind": kind, "name": name, "written": written[key]}

        found = [
            {**placed(edge.key), "number": number, **{name: getattr(edge, name) for name in _EDGE}}
            for number, edge in enumerate(index.edges)
        ]
        if found:
            connection.execute(edges.insert(), found)
        words = [
            {
                **placed(document.key),
                **{name: getattr(document, name) for name in (*_DOCUMENT, "body")},
            }
            for document in index.documents
        ]
        if words:
            connection.execute(documents.insert(), words)
