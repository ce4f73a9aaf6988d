"""On-demand features of an online answer: computed in this process, from values just read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from virtualfs.compiler.evaluate import compiled
from virtualfs.compiler.plan import OnDemandPart
from virtualfs.functions import PythonFunctions

__all__ = ["Cell", "FeatureStatus", "computed_cells"]


class FeatureStatus(StrEnum):
    """How an online value came to be what it is."""

    PRESENT = "PRESENT"
    NULL_VALUE = "NULL_VALUE"
    NOT_FOUND = "NOT_FOUND"
    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"
    STALE = "STALE"


Cell = tuple[Any, FeatureStatus, datetime | None]
"""A value, its status, and its event timestamp."""
_WORST_FIRST = (
    FeatureStatus.NOT_FOUND,
    FeatureStatus.OUTSIDE_MAX_AGE,
    FeatureStatus.STALE,
    FeatureStatus.NULL_VALUE,
)


def computed_cells(
    part: OnDemandPart,
    columns: Mapping[str, Sequence[Cell]],
    entities: int,
    at: datetime,
    functions: PythonFunctions,
) -> dict[str, list[Cell]]:
    """Return the cells of a part's output columns.

    A value that is NULL has the worst status of what it was computed from; one that is not is
    PRESENT, or STALE where an input is. Its event timestamp is the instant of the answer.

    Parameters
    ----------
    columns
        Cells by column, of what the part reads.
    entities
        How many there are.
    """
    read = [columns[column] for _, column in part.inputs]
    rows = [tuple(cells[number][0] for cells in read) for number in range(entities)]
    found = _values(part, rows, functions)
    statuses = [_status({cells[number][1] for cells in read}) for number in range(entities)]
    return {
        output: [
            (values[place], status if values[place] is None else _lifted(status), at)
            for values, status in zip(found, statuses, strict=True)
        ]
        for place, (_, output) in enumerate(part.outputs)
    }


def _values(
    part: OnDemandPart, rows: Sequence[tuple[Any, ...]], functions: PythonFunctions
) -> Sequence[tuple[Any, ...]]:
    if part.view.function is None:
        names = tuple(name for name, _ in part.inputs)
        decimals = tuple(name for name in names if part.view.dtypes[name].startswith("decimal"))
        return compiled(names, decimals, part.trees)(rows)
    import ibis
    import pyarrow as pa

    arrays = {
        name: pa.array(
            [row[place] for row in rows], ibis.dtype(part.view.dtypes[name]).to_pyarrow()
        )
        for place, (name, _) in enumerate(part.inputs)
    }
    found = functions.compute(part.view, pa.table(arrays))
    wanted = [found.column(feature).to_pylist() for feature, _ in part.outputs]
    return list(zip(*wanted, strict=True)) or [()] * len(rows)


def _status(statuses: set[FeatureStatus]) -> FeatureStatus:
    return next((item for item in _WORST_FIRST if item in statuses), FeatureStatus.NULL_VALUE)


def _lifted(status: FeatureStatus) -> FeatureStatus:
    """Return the status of a value that is not NULL."""
    return status if status is FeatureStatus.STALE else FeatureStatus.PRESENT
