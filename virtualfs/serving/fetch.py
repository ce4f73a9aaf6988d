"""One query for the missed keys of one view: what goes to the warehouse, and the rows that come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any
from uuid import UUID

from virtualfs.capabilities import UNKNOWN
from virtualfs.compiler.plan import ResolvedView
from virtualfs.compiler.program import compile_lookup
from virtualfs.compiler.rows import CREATED, EVENT, ROW, TIME
from virtualfs.definitions.aggregate import COUNTS
from virtualfs.dtypes import uuids
from virtualfs.errors import SpineError
from virtualfs.provider import Warehouse
from virtualfs.serving.codec import Row
from virtualfs.serving.flights import Key, Rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["fetch_rows", "keys_at", "no_row", "plain_values", "rows_of"]


def fetch_rows(
    warehouse: Warehouse, view: ResolvedView, keys: Sequence[Key], instant: int, seconds: float
) -> Rows:
    """Ask a warehouse for the rows of keys as of an instant, or that a key has none.

    Parameters
    ----------
    instant
        Microseconds since 1970 in UTC.
    seconds
        How long the warehouse may take.

    Raises
    ------
    WarehouseError
        The warehouse refuses, or does not answer in time.
    """
    can = warehouse.capabilities.for_lookups()
    known = warehouse.statistics(view) if can.lateral_limit else UNKNOWN
    select = compile_lookup(view, can, known)
    schema = {ROW: "int64", EVENT: can.instant_type}
    if view.created_timestamp is not None and not view.is_aggregate:
        schema[CREATED] = can.instant_type
    schema |= {feature.name: feature.dtype for feature in view.features}
    spine = keys_at(view, keys, instant, can.instant_type)
    result = warehouse.lookup(select, spine, schema, seconds)
    found = {key: no_row(view, instant) for key in keys}
    numbers = result.column(ROW).to_pylist()
    for number, row in zip(numbers, rows_of(view, result, instant), strict=True):
        found[keys[number]] = row
    return found


def rows_of(view: ResolvedView, table: pa.Table, instant: int) -> list[Row]:
    """Return rows that a warehouse gave: ``__event``, perhaps ``__created``, and all features."""
    events = _micros(table, EVENT)
    created = _micros(table, CREATED) if CREATED in table.column_names else [None] * len(events)
    columns = [plain_values(table.column(item.name), item.dtype) for item in view.features]
    values = list(zip(*columns, strict=True)) if columns else [()] * len(events)
    if view.is_aggregate:
        return [
            Row(instant, event, event is not None, picked)
            for event, picked in zip(events, values, strict=True)
        ]
    return [
        Row(instant, event, True, picked, later)
        for event, picked, later in zip(events, values, created, strict=True)
    ]


def _micros(table: pa.Table, column: str) -> list[int | None]:
    import pyarrow as pa

    return plain_values(table.column(column).cast(pa.int64()), "int64")


def keys_at(view: ResolvedView, keys: Sequence[Key], instant: int, instant_type: str) -> pa.Table:
    """Return keys at one instant as a spine, numbered in order.

    Raises
    ------
    SpineError
        A key does not fit its type.
    """
    import ibis
    import pyarrow as pa

    at = pa.array([instant] * len(keys), pa.int64())
    columns: dict[str, Any] = {
        ROW: pa.array(range(len(keys)), pa.int64()),
        TIME: at if instant_type == "int64" else at.cast(pa.timestamp("us")),
    }
    for number, (name, dtype) in enumerate(view.join_keys.items()):
        kind = ibis.dtype(dtype).to_pyarrow()
        values = [key[number] for key in keys]
        try:
            columns[name] = uuids(values) if dtype == "uuid" else pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SpineError(f"join key {name!r} does not fit {dtype}: {error}") from None
    return pa.table(columns)


def no_row(view: ResolvedView, instant: int) -> Row:
    """Return the answer where there is no visible row: NULLs, but counts are 0."""
    values = [
        0 if item.aggregate is not None and item.aggregate.function in COUNTS else None
        for item in view.features
    ]
    return Row(instant, None, False, tuple(values))


def plain_values(column: pa.ChunkedArray, dtype: str) -> list[Any]:
    """Return a column's values as the codec reads them: zoned times in UTC, UUIDs as such."""
    if dtype in ("int64", "float64") and column.null_count == 0:
        numbers: list[Any] = column.to_numpy().tolist()  # in a fifth of the time
        return numbers
    values: list[Any] = column.to_pylist()
    if dtype.startswith("timestamp("):
        return [
            value.astimezone(UTC) if value is not None and value.tzinfo else value
            for value in values
        ]
    if dtype == "uuid":
        return [UUID(value) if isinstance(value, str) else value for value in values]
    return values
