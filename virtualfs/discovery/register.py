"""One existing table as a feature view: as its caller says, or as it is found by looking at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlglot import exp

from virtualfs.compiler import sql
from virtualfs.definitions.entity import Entity
from virtualfs.definitions.feature_view import Feature, FeatureView
from virtualfs.definitions.source import Source
from virtualfs.discovery import names
from virtualfs.discovery.findings import one_line
from virtualfs.discovery.reader import find_table, table_of
from virtualfs.errors import (
    DefinitionError,
    NotFoundError,
    UnsupportedByWarehouseError,
    did_you_mean,
)
from virtualfs.provider import Warehouse

__all__ = ["table_view"]


def table_view(
    warehouse: Warehouse,
    table: str,
    known: Mapping[str, Entity],
    source_name: Callable[[str], str],
    *,
    entity: str | None,
    join_keys: Sequence[str] | None,
    times: Mapping[str, str | None],
    features: Sequence[str] | None,
    name: str | None,
    ttl: str | None,
    timezone: str,
) -> tuple[FeatureView, tuple[str, ...]]:
    """Return the feature view of a table, and what is doubtful of what was found out.

    Parameters
    ----------
    known
        The registry's entities.
    source_name
        Returns the name of the source, given the view's.
    entity, join_keys
        What the rows describe; both None to find it out.
    times
        The source's time columns by role, such as ``event_timestamp``.

    Raises
    ------
    DefinitionError
        A column does not exist, or the table's keys cannot be found.
    """
    given = {role: column for role, column in times.items() if column is not None}
    columns: Mapping[str, str] = {}
    doubts: tuple[str, ...] = ()
    for_people: dict[str, Any] = {}
    if entity is None and join_keys is None:
        found, finding = find_table(warehouse, table)
        source = found.source_of(finding)
        draft = found.view_of(finding)
        entities = [
            known.get(item.name, item) for item in draft.entities if isinstance(item, Entity)
        ]
        offered: Sequence[Any] = draft.features
        given = given or {role: getattr(source, role) for role in times if getattr(source, role)}
        columns, view_name = source.columns, name or finding.name
        doubts = finding.doubts
        for_people = {"description": draft.description, "owner": draft.owner, "tags": draft.tags}
    else:
        schema = _describe(warehouse, table)
        entities = [_entity(table, schema, known, entity, join_keys)]
        fixed = {*entities[0].join_keys, *given.values()}
        comments = _comments(warehouse, table)
        offered = [
            Feature(column, description=comments.get(column, ""))
            for column in schema
            if column not in fixed
        ]
        place = sql.table_reference(table, warehouse.capabilities.dialect)
        view_name = name or names.slug(place.name)
        for_people = {"description": comments.get(None, "")}
    view = FeatureView(
        view_name,
        source=Source(
            source_name(view_name),
            table=table,
            warehouse=warehouse.name,
            columns=columns,
            timezone=timezone,
            event_timestamp=given.get("event_timestamp"),
            created_timestamp=given.get("created_timestamp"),
            valid_from=given.get("valid_from"),
            valid_to=given.get("valid_to"),
        ),
        entities=[item.name if item.name in known else item for item in entities],
        features=offered if features is None else features,
        ttl=ttl,
        **for_people,
    )
    return view, doubts


def _comments(warehouse: Warehouse, table: str) -> dict[str | None, str]:
    """Return the comments of a table's columns, and its own under None; none without a catalog."""
    try:
        found = table_of(warehouse.catalog(), table, warehouse)
    except (UnsupportedByWarehouseError, NotFoundError):
        return {}
    comments: dict[str | None, str] = {c.name: one_line(c.comment) for c in found.columns}
    return {None: one_line(found.comment), **comments}


def _describe(warehouse: Warehouse, table: str) -> Mapping[str, Any]:
    dialect = warehouse.capabilities.dialect
    everything = exp.select("*").from_(sql.table_reference(table, dialect))
    return warehouse.describe(sql.text(everything, dialect))


def _entity(
    table: str,
    schema: Mapping[str, Any],
    known: Mapping[str, Entity],
    name: str | None,
    join_keys: Sequence[str] | None,
) -> Entity:
    """Return the entity of a name, made of the table's columns where there is none yet."""
    if name is None:
        raise DefinitionError("join_keys= are an entity's; say by entity= which one's")
    existing = known.get(name)
    if join_keys is None:
        if existing is None:
            raise DefinitionError(
                f"there is no entity {name!r} yet; give join_keys= to make it. "
                f"{did_you_mean(name, known)}"
            )
        join_keys = list(existing.join_keys)
    for column in join_keys:
        if column not in schema:
            raise DefinitionError(
                f"table {table!r} has no column {column!r}. {did_you_mean(column, schema)}"
            )
    if existing is not None and tuple(existing.join_keys) != tuple(join_keys):
        raise DefinitionError(
            f"entity {name!r} has the join keys {', '.join(existing.join_keys)}; "
            "name those, or choose another entity"
        )
    keys = {column: str(schema[column]).lstrip("!") for column in join_keys}
    return existing if existing is not None else Entity(name, keys)
