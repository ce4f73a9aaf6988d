"""From rows to an answer: values, statuses and event timestamps by entity and feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

from virtualfs.compiler.plan import FeaturePlan, Part, ResolvedView
from virtualfs.errors import Problem, WarehouseError
from virtualfs.functions import PythonFunctions
from virtualfs.lookups import Unreadable
from virtualfs.serving.codec import Row, from_micros, to_micros
from virtualfs.serving.fetch import unreadable_value
from virtualfs.serving.on_demand import Cell, FeatureStatus, computed_cells
from virtualfs.serving.online import Reading
from virtualfs.serving.part import outlived, ttl_of
from virtualfs.serving.response import Judged, OnlineResponse, own_statuses

__all__ = ["answer", "status_of"]

_PRESENT, _NULL = FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE


def status_of(row: Row, view: ResolvedView, instant: int) -> FeatureStatus:
    """Return a row's own status at an instant: STALE, NOT_FOUND, OUTSIDE_MAX_AGE or PRESENT."""
    if row.stale:
        return FeatureStatus.STALE
    if not row.found:
        return FeatureStatus.NOT_FOUND
    return FeatureStatus.OUTSIDE_MAX_AGE if outlived(row, ttl_of(view), instant) else _PRESENT


def answer(
    plan: FeaturePlan,
    keys: Sequence[dict[str, Any]],
    reading: Reading,
    request: Sequence[Mapping[str, Any]],
    functions: PythonFunctions,
) -> OnlineResponse:
    """Put the rows of each part together.

    Parameters
    ----------
    request
        Request inputs of each entity (see :func:`virtualfs.serving.request.request_rows`).
    """
    dtypes = plan.shown_dtypes
    _refuse_unreadable(plan, keys, reading)
    if plan.request or plan.on_demand:
        columns = _with_on_demand(plan, len(keys), reading, request, functions)
        rows = list(zip(*(columns[name] for name in plan.columns), strict=True))
        shown = [tuple([cell[0] for cell in row]) for row in rows] or [()] * len(keys)
        judged = {
            name: ([cell[1] for cell in columns[name]], [cell[2] for cell in columns[name]])
            for name in plan.columns
        }
        return OnlineResponse(plan.columns, tuple(keys), tuple(shown), dtypes, lambda: judged)
    # Values are wanted at once; statuses and event timestamps only if they are looked at.
    values = [
        _values(part, rows, to_micros(reading.at))
        for part, rows in zip(plan.parts, reading.rows, strict=True)
    ]
    whole = values[0] if len(values) == 1 else _beside(values) or [()] * len(keys)
    if plan.places is not None:
        whole = list(map(_picker(plan.places), whole))
    return OnlineResponse(
        plan.columns, tuple(keys), tuple(whole), dtypes, partial(_judged, plan, reading)
    )


def _refuse_unreadable(
    plan: FeaturePlan, keys: Sequence[Mapping[str, Any]], reading: Reading
) -> None:
    """Raise WarehouseError if a value that was asked for cannot be read."""
    if not reading.has_unreadable:
        return
    problems: list[Problem] = []
    for part, rows in zip(plan.parts, reading.rows, strict=True):
        for number, row in enumerate(rows):
            for feature, _ in part.outputs if row.unreadable else ():
                value = row.values[part.view.feature_names.index(feature)]
                if isinstance(value, Unreadable):
                    key = tuple(keys[number][name] for name in part.key_columns)
                    problems.append(((number,), unreadable_value(part.view, feature, key, value)))
    if problems:
        first, more = problems[0][1], len(problems) - 1
        raise WarehouseError(f"{first}; and {more:,} more" if more else first, problems=problems)


def _beside(values: Sequence[Sequence[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """Return the values of several parts put together, entity by entity."""
    return [tuple(chain.from_iterable(some)) for some in zip(*values, strict=True)]


def _values(part: Part, rows: Sequence[Row], instant: int) -> list[tuple[Any, ...]]:
    """Return the values of a part's outputs; what is over its TTL is not shown."""
    found = [row.values for row in rows]
    ttl = ttl_of(part.view)
    if ttl is not None:
        nothing = (None,) * len(part.view.features)
        found = [nothing if outlived(row, ttl, instant) else row.values for row in rows]
    return found if part.places is None else list(map(_picker(part.places), found))


def _picker(places: Sequence[int]) -> Any:
    """Return what picks some values of a tuple into a tuple."""
    if len(places) == 1:
        (place,) = places
        return lambda values: (values[place],)
    return itemgetter(*places) if places else lambda _: ()


def _judged(plan: FeaturePlan, reading: Reading) -> dict[str, Judged]:
    """Return statuses and event timestamps of the rows behind each output."""
    instant = to_micros(reading.at)
    found: dict[str, Judged] = {}
    for part, rows in zip(plan.parts, reading.rows, strict=True):
        judged = (
            [status_of(row, part.view, instant) for row in rows],
            [None if row.event is None else from_micros(row.event) for row in rows],
        )
        found |= dict.fromkeys([output for _, output in part.outputs], judged)
    return found


def _with_on_demand(
    plan: FeaturePlan,
    entities: int,
    reading: Reading,
    request: Sequence[Mapping[str, Any]],
    functions: PythonFunctions,
) -> dict[str, list[Cell]]:
    judged = _judged(plan, reading)
    columns: dict[str, list[Cell]] = {}
    for part, rows in zip(plan.parts, reading.rows, strict=True):
        values = _values(part, rows, to_micros(reading.at))
        for place, (_, output) in enumerate(part.outputs):
            shown = [row[place] for row in values]
            statuses, events = judged[output]
            columns[output] = list(zip(shown, own_statuses(shown, statuses), events, strict=True))
    for name in plan.request:
        columns[name] = [
            (item[name], _NULL if item[name] is None else _PRESENT, None) for item in request
        ]
    for computed in plan.on_demand:
        columns |= computed_cells(computed, columns, entities, reading.at, functions)
    return columns
