"""On-demand features of an online answer: computed in this process, from values just read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from virtualfs.compiler.evaluate import compiled
from virtualfs.compiler.plan import OnDemandPart
from virtualfs.functions import PythonFunctions
from virtualfs.lookups import array_of

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
_INHERITED = (FeatureStatus.STALE, FeatureStatus.NOT_FOUND, FeatureStatus.OUTSIDE_MAX_AGE)
"""Statuses that a computed value takes over from an input, the first that any input has."""


def computed_cells(
    part: OnDemandPart,
    columns: Mapping[str, Sequence[Cell]],
    entities: int,
    at: datetime,
    functions: PythonFunctions,
) -> dict[str, list[Cell]]:
    """Return the cells of a part's output columns.

    A value has the first status of STALE, NOT_FOUND and OUTSIDE_MAX_AGE that an input has, else
    its own, NULL_VALUE or PRESENT. Its event timestamp is the instant of the answer.

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
            (values[place], status or _own_status(values[place]), at)
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
    import pyarrow as pa

    arrays = {
        name: array_of([row[place] for row in rows], part.view.dtypes[name])
        for place, (name, _) in enumerate(part.inputs)
    }
    found = functions.compute(part.view, pa.table(arrays))
    wanted = [found.column(feature).to_pylist() for feature, _ in part.outputs]
    return list(zip(*wanted, strict=True)) or [()] * len(rows)


def _status(statuses: set[FeatureStatus]) -> FeatureStatus | None:
    return next((item for item in _INHERITED if item in statuses), None)


def _own_status(value: Any) -> FeatureStatus:
    return FeatureStatus.NULL_VALUE if value is None else FeatureStatus.PRESENT
