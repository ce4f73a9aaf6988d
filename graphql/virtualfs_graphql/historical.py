"""Point-in-time rows for a spine that comes as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from virtualfs.compiler.plan import LateData, plan_features
from virtualfs.errors import SpineError
from virtualfs.serving.request import checked_value
from virtualfs_graphql.inputs import checked_keys
from virtualfs_graphql.request import Snapshot
from virtualfs_graphql.scalars import from_json, parse_instant, to_json

__all__ = ["historical_rows"]


def historical_rows(
    snapshot: Snapshot,
    asked: str | tuple[str, ...],
    spine: Sequence[Any],
    timestamp: str,
    late_data: LateData | None = "include",
) -> list[dict[str, Any]]:
    """Return the spine's rows, their cells untouched, with the features as of each row's instant.

    Only keys and instants go to the warehouse.

    Raises
    ------
    SpineError
        A row is no object, or lacks a key, or its instant cannot be read.
    """
    import ibis
    import pyarrow as pa

    rows = [row for row in spine if isinstance(row, Mapping)]
    if len(rows) != len(spine):
        raise SpineError("every row of the spine must be an object of column names and values")
    selections = snapshot.selections(asked)
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    if not rows:
        return []
    plan = plan_features(selections, names)
    keys = checked_keys(plan, rows)
    columns: dict[str, Any] = {}
    for name in names:
        # What the features do not need stays here: only its name counts, for naming the output.
        columns[name] = pa.nulls(len(rows))
        if name in plan.request_columns:
            dtype, where = plan.request[name], f"column {name!r}"
            values = [
                checked_value(from_json(row.get(name), dtype, at), dtype, at)
                for row, at in ((row, f"spine row {n}, {where}") for n, row in enumerate(rows))
            ]
            columns[name] = pa.array(values, ibis.dtype(dtype).to_pyarrow())
        elif name in plan.key_columns:
            kind = ibis.dtype(plan.key_columns[name]).to_pyarrow()
            columns[name] = pa.array([row[name] for row in keys], kind)
        elif name == timestamp and plan.needs_time:
            columns[name] = pa.array(
                [_instant(row.get(name), number, name) for number, row in enumerate(rows)],
                pa.timestamp("us", "UTC"),
            )
    features = asked if isinstance(asked, str) else list(asked)
    dataset = snapshot.store.get_historical_features(
        pa.table(columns), features, late_data, timestamp
    )
    outputs = dataset.plan.columns
    found = dataset.to_pyarrow().select(list(outputs)).to_pylist()
    empty = dict.fromkeys(names)
    return [{**empty, **row, **to_json(values)} for row, values in zip(rows, found, strict=True)]


def _instant(value: Any, row: int, name: str) -> datetime | None:
    try:
        return None if value is None else parse_instant(value)
    except ValueError as error:
        raise SpineError(f"spine row {row}, column {name!r}: {error}") from None
