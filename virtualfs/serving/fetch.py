"""One query for the missed keys of one view: what goes to the warehouse, and the rows that come."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from virtualfs.compiler.plan import ResolvedView
from virtualfs.compiler.rows import CREATED, EVENT, ROW
from virtualfs.definitions.aggregate import COUNTS
from virtualfs.lookups import Columns, KeySpine, PartlyUnreadable, Unreadable
from virtualfs.provider import Warehouse
from virtualfs.serving.codec import Row
from virtualfs.serving.flights import Key, Rows

__all__ = ["fetch_rows", "no_row", "row_schema", "rows_of", "unreadable_value"]


def fetch_rows(
    warehouse: Warehouse,
    view: ResolvedView,
    keys: Sequence[Key],
    select: str,
    instant: int,
    seconds: float,
) -> Rows:
    """Ask a warehouse for the rows of keys as of an instant, or that a key has none.

    Parameters
    ----------
    select
        The view's look-up statement for this warehouse.
    instant
        Microseconds since 1970 in UTC.
    seconds
        How long the warehouse may take.

    Raises
    ------
    WarehouseError
        The warehouse refuses, or does not answer in time.
    """
    schema = {ROW: "int64", **row_schema(view, warehouse.capabilities.instant_type)}
    spine = KeySpine(view.join_keys, keys, instant)
    columns = warehouse.lookup(select, spine, schema, seconds)
    found = dict.fromkeys(keys, no_row(view, instant))
    for number, row in zip(columns[ROW], rows_of(view, columns, instant), strict=True):
        found[keys[number]] = row
    return found


def row_schema(view: ResolvedView, instant_type: str) -> dict[str, str]:
    """Return the columns that a view's row is made of, with their data types."""
    schema = {EVENT: instant_type}
    if view.created_timestamp is not None and not view.is_aggregate:
        schema[CREATED] = instant_type
    return schema | {feature.name: feature.dtype for feature in view.features}


def rows_of(view: ResolvedView, columns: Columns, instant: int) -> list[Row]:
    """Return the rows that a warehouse gave."""
    events = columns[EVENT]
    created = columns.get(CREATED, [None] * len(events))
    values = list(zip(*[columns[name] for name in view.feature_names], strict=True))
    if view.is_aggregate:
        rows = [
            Row(instant, event, event is not None, picked)
            for event, picked in zip(events, values, strict=True)
        ]
    else:
        rows = [
            Row(instant, event, True, picked, later)
            for event, picked, later in zip(events, values, created, strict=True)
        ]
    return [_checked(row) for row in rows] if isinstance(columns, PartlyUnreadable) else rows


def _checked(row: Row) -> Row:
    unreadable = any(isinstance(value, Unreadable) for value in row.values)
    return msgspec.structs.replace(row, unreadable=True) if unreadable else row


def unreadable_value(view: ResolvedView, feature: str, key: Key, value: Unreadable) -> str:
    """Return what is wrong with a value that Python cannot hold, which concerns its key alone."""
    named = ", ".join(f"{name}={item}" for name, item in zip(view.join_keys, key, strict=True))
    return (
        f"{view.label}, column {feature!r} of {named}: the value cannot be read ({value.reason}); "
        "correct it in the warehouse, or convert the column in the feature's expr="
    )


def no_row(view: ResolvedView, instant: int) -> Row:
    """Return the answer where there is no visible row: NULLs, but counts are 0."""
    values = [
        0 if item.aggregate is not None and item.aggregate.function in COUNTS else None
        for item in view.features
    ]
    return Row(instant, None, False, tuple(values))
