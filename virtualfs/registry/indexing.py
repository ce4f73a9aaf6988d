"""What is derived from objects when they are written: lineage edges, and what search looks in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.lineage import (
    ANY_COLUMN,
    SelectLineage,
    select_lineage,
    table_name,
    tables_of,
)
from virtualfs.compiler.user_sql import columns_of_expression, tree_of_query
from virtualfs.definitions.project import KINDS, VIEW_KINDS
from virtualfs.errors import VirtualFSError
from virtualfs.provider import Warehouse
from virtualfs.registry.state import Key, StoredObject

__all__ = ["UNKNOWN_TABLE", "Document", "Edge", "Index", "Indexer"]

UNKNOWN_TABLE = "unknown"
"""Stands for the tables of a query that only its engine can read."""


@dataclass(frozen=True)
class Edge:
    """One thing that an object is made of.

    Parameters
    ----------
    feature
        The feature of the object; empty for the object as a whole.
    role
        ``value``, or of the object as a whole ``key``, ``time`` or ``filter`` (decides which rows
        there are).
    upstream_kind
        ``column``, ``feature`` or ``request``.
    warehouse
        Of a column.
    upstream
        The table or file of a column, the pinned view (``weather@2``) of a feature.
    upstream_name
        The column, the feature, or the request input; ``*`` for any column of the table.
    """

    key: Key
    feature: str
    role: str
    upstream_kind: str
    warehouse: str
    upstream: str
    upstream_name: str


@dataclass(frozen=True)
class Document:
    """The words of one object, or of one feature, that a search looks in."""

    key: Key
    feature: str
    description: str
    labels: str
    """Owner and tags."""
    words: str
    """Names of columns, keys, entities and tables."""

    @property
    def body(self) -> str:
        """All words and names in lower case."""
        parts = (self.key[1], self.feature, self.description, self.labels, self.words)
        return " ".join(parts).lower()


@dataclass(frozen=True)
class Index:
    """What is derived from some objects."""

    edges: tuple[Edge, ...] = ()
    documents: tuple[Document, ...] = ()


class Indexer:
    """Derives edges and documents of objects.

    Parameters
    ----------
    warehouse
        Returns the warehouse of a name, opening it when first needed.
    """

    def __init__(self, warehouse: Callable[[str], Warehouse]) -> None:
        self._warehouse = warehouse
        self._columns: dict[tuple[str, str], list[str]] = {}

    def index(self, items: Sequence[StoredObject], objects: Mapping[Key, StoredObject]) -> Index:
        """Return what is derived from objects.

        Parameters
        ----------
        objects
            All objects of the state that the items are, or will be, part of.
        """
        self._columns.clear()  # tables change
        return Index(tuple(self._edges(items, objects)), tuple(self._documents(items, objects)))

    def _edges(
        self, items: Iterable[StoredObject], objects: Mapping[Key, StoredObject]
    ) -> Iterator[Edge]:
        traced: dict[str, SelectLineage] = {}
        for item in items:
            if item.kind == "feature_view":
                source = objects["source", item.definition["source"]].definition
                if source["name"] not in traced and source["query"]:
                    traced[source["name"]] = self._trace(source)
                lineage = traced.get(source["name"])
                yield from _view_edges(item, source, lineage, self._capabilities(source))
            elif item.kind == "on_demand_feature_view":
                yield from _on_demand_edges(item)
            elif item.kind == "feature_service":
                yield from _service_edges(item, objects)

    def _documents(
        self, items: Iterable[StoredObject], objects: Mapping[Key, StoredObject]
    ) -> Iterator[Document]:
        for item in items:
            if item.kind not in KINDS:
                continue
            fields = item.definition
            yield Document(
                item.key,
                "",
                fields["description"],
                _labels(fields),
                " ".join(_words(item, objects)),
            )
            if item.kind not in VIEW_KINDS:
                continue
            for told, feature in zip(fields["features"], item.features, strict=True):
                words = [told.get("column") or "", str(feature["sql"])]
                words += [*fields.get("entities", ()), *(item.resolved or {}).get("join_keys", ())]
                yield Document(
                    item.key,
                    feature["name"],
                    feature.get("description") or "",
                    _labels(told),
                    " ".join(filter(None, words)),
                )

    def _capabilities(self, source: Mapping[str, Any]) -> Capabilities:
        return self._warehouse(source["warehouse"]).capabilities

    def _trace(self, source: Mapping[str, Any]) -> SelectLineage:
        dialect = self._capabilities(source).dialect
        tree = tree_of_query(source["query"], dialect)
        if tree is None:  # the engine can read it, the parser cannot
            unknown = {(UNKNOWN_TABLE, ANY_COLUMN)}
            return SelectLineage({ANY_COLUMN: unknown}, unknown)

        def columns_of(table: exp.Table) -> list[str]:
            key = source["warehouse"], table_name(table)
            if key not in self._columns:
                reference = sql.text(
                    exp.select("*").from_(exp.Table(**{
                        part: table.args.get(part) for part in ("this", "db", "catalog")
                    })),
                    dialect,
                    pretty=False,
                )  # fmt: skip
                try:
                    found = self._warehouse(source["warehouse"]).describe(reference)
                except VirtualFSError:
                    found = {}
                self._columns[key] = list(found)
            return self._columns[key]

        traced = select_lineage(tree, dialect, columns_of)
        if traced is None:
            every = {(table_name(table), ANY_COLUMN) for table in tables_of(tree)}
            traced = SelectLineage({ANY_COLUMN: every}, every)
        return traced


def _view_edges(
    item: StoredObject,
    source: Mapping[str, Any],
    lineage: SelectLineage | None,
    capabilities: Capabilities,
) -> Iterator[Edge]:
    resolved = item.resolved or {}
    warehouse = source["warehouse"]
    inside = {name: column for column, name in source["columns"].items()}
    folded = {name.lower(): column for name, column in inside.items()}
    outputs = {name.lower(): found for name, found in lineage.outputs.items()} if lineage else {}
    place = source["table"] or source["path"]

    def edges(names: Iterable[str], feature: str, role: str) -> Iterator[Edge]:
        found: dict[tuple[str, str], None] = {}
        for name in names:
            column = inside.get(name, name)
            if capabilities.folds_case:
                column = folded.get(name.lower(), column)
            if lineage is None:
                found[place, column] = None
                continue
            columns = outputs.get(column.lower(), outputs.get(ANY_COLUMN, set()))
            found |= dict.fromkeys(sorted(columns))
        for table, column in found:
            yield Edge(item.key, feature, role, "column", warehouse, table, column)

    renamed = source["columns"]
    known = [renamed.get(column, column) for column in resolved.get("source_columns", {})]
    for told, feature in zip(item.definition["features"], resolved["features"], strict=True):
        names = _read(told, feature, known, capabilities)
        yield from edges(names, feature["name"], "value")
    yield from edges(resolved["join_keys"], "", "key")
    times = (resolved.get(role) for role in ("event_timestamp", "created_timestamp", "valid_to"))
    yield from edges([name for name in times if name], "", "time")
    if lineage is not None:
        for table, column in sorted(lineage.rows):
            yield Edge(item.key, "", "filter", "column", warehouse, table, column)


def _read(
    told: Mapping[str, Any],
    feature: Mapping[str, Any],
    columns: Sequence[str],
    capabilities: Capabilities,
) -> list[str]:
    """Return the columns, by their names in the view, that a feature is computed from."""
    if "function" not in told:
        if told["expr"] is None:
            return [feature["name"]]
        text = feature["sql"]
        names: list[str] = []
    else:
        text = (feature["aggregate"] or {}).get("where")
        names = [] if told["column"] == "*" else [told["column"]]
    if text:
        read = columns_of_expression(text, columns, capabilities)
        names += [name for name in read if name not in names]
    return names


def _on_demand_edges(item: StoredObject) -> Iterator[Edge]:
    view = item.on_demand()
    for feature in view.feature_names:
        for name in view.reads([feature]):
            number, upstream = view.columns[name]
            if number is None:
                yield Edge(item.key, feature, "value", "request", "", "", upstream)
                continue
            read = view.inputs[number].view
            place = f"{read}@{item.pins[read]}"
            yield Edge(item.key, feature, "value", "feature", "", place, upstream)


def _service_edges(item: StoredObject, objects: Mapping[Key, StoredObject]) -> Iterator[Edge]:
    for part in item.definition["features"]:
        view = next(
            objects[kind, part["view"]] for kind in VIEW_KINDS if (kind, part["view"]) in objects
        )
        names = part["features"] or [feature["name"] for feature in view.features]
        for name in names:
            place = f"{part['view']}@{item.pins[part['view']]}"
            yield Edge(item.key, name, "value", "feature", "", place, name)


def _labels(fields: Mapping[str, Any]) -> str:
    tags = [f"{key} {value}" for key, value in (fields.get("tags") or {}).items()]
    return " ".join(filter(None, [fields.get("owner") or "", *tags]))


def _words(item: StoredObject, objects: Mapping[Key, StoredObject]) -> Iterator[str]:
    fields = item.definition
    yield from fields.get("join_keys") or ()
    if item.kind == "feature_view":
        yield from fields["entities"]
        yield fields["source"]
        source = objects.get(("source", fields["source"]))
        if source:
            yield from _place_words(source.definition)
        yield from (item.resolved or {}).get("source_columns") or ()
        yield from (item.resolved or {}).get("join_keys") or ()
    if item.kind == "source":
        yield from _place_words(fields)
    for part in (
        *fields.get("inputs", ()),
        *(fields["features"] if "service" in item.kind else ()),
    ):
        yield part["view"]
        yield from part["features"] or ()


def _place_words(source: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of where a source reads from: its table, its path, the names in its query."""
    yield source["table"] or source["path"] or ""
    yield from dict.fromkeys(re.findall(r"\w+", source["query"] or ""))
