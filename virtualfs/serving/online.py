"""Online reads: the cache first, one warehouse query per view for all keys that it lacks.

Rule 12: the answer at T is the point-in-time answer over the data as known at some instant in
[T - freshness, T]. T is read once per call; the TTL is judged at T, whenever the row was chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from virtualfs.capabilities import UNKNOWN
from virtualfs.compiler.plan import (
    FeaturePlan,
    ResolvedView,
)
from virtualfs.compiler.program import compile_lookup, on_spine
from virtualfs.compiler.rows import EVENT, ROW, TIME
from virtualfs.definitions.aggregate import COUNTS
from virtualfs.definitions.duration import microseconds
from virtualfs.dtypes import uuids
from virtualfs.errors import SpineError, WarehouseError
from virtualfs.functions import PythonFunctions
from virtualfs.provider import OnlineStore, Warehouse, temporary_name
from virtualfs.serving.codec import Row, decode_row, encode_key, encode_row, from_micros, to_micros
from virtualfs.serving.on_demand import Cell, FeatureStatus, computed_cells
from virtualfs.serving.response import OnlineResponse

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Lookup", "OnlineReader", "answer", "keys_at", "lookups", "status_of"]


_log = logging.getLogger("virtualfs.online")
_PRESENT, _NULL = FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE
_BRIEFLY = timedelta(minutes=1)
"""For how long at most a key is believed to be unknown."""


@dataclass(frozen=True)
class Lookup:
    """The keys wanted of one view."""

    view: ResolvedView
    keys: tuple[tuple[Any, ...], ...]


class OnlineReader:
    """Reads rows for one project through its online store.

    Parameters
    ----------
    warehouse
        Returns the warehouse of a name, opening it when first needed.
    max_stale
        How long beyond its freshness a row may answer while the warehouse cannot.
    """

    def __init__(
        self,
        project: str,
        store: OnlineStore,
        warehouse: Callable[[str], Warehouse],
        max_stale: timedelta,
    ) -> None:
        self._max_stale = max_stale
        self._project = project
        self._store = store
        self._warehouse = warehouse

    def read(
        self, lookups: Sequence[Lookup], at: datetime, *, cached: bool = True
    ) -> list[list[Row]]:
        """Return a row for every key of every lookup, in order.

        One trip to the cache for all of them; then one query per view that lacks keys, and one
        write back for each time that rows are held.

        Parameters
        ----------
        at
            The instant T.
        cached
            False reads the warehouse alone, as instants other than now must.

        Raises
        ------
        WarehouseError
            The warehouse could not answer, and for some key nothing is cached.
        """
        instant = to_micros(at)
        keys = [encode_key(self._project, look.view, key) for look in lookups for key in look.keys]
        held = iter(self._store.get_many(keys) if cached and keys else [None] * len(keys))
        answers: list[dict[tuple[Any, ...], Row]] = []
        missing: dict[ResolvedView, dict[tuple[Any, ...], Row | None]] = {}
        for look in lookups:
            found: dict[tuple[Any, ...], Row] = {}
            for key, data in zip(look.keys, held, strict=False):
                row = _read_row(look.view, data, instant)
                if None in key:
                    found[key] = _no_row(look.view, instant)
                elif row is not None and _is_fresh(row, look.view, instant):
                    found[key] = row
                else:
                    missing.setdefault(look.view, {})[key] = self._if_not_too_old(
                        row, look.view, instant
                    )
            answers.append(found)
        for view, wanted in missing.items():
            try:
                rows = self._from_warehouse(view, list(wanted), instant)
            except WarehouseError as error:
                rows = _stale_rows(view, wanted, error)
            else:
                if cached:
                    self._write_back(view, rows)
            for look, found in zip(lookups, answers, strict=True):
                if look.view == view:
                    found.update({key: rows[key] for key in look.keys if key in rows})
        return [
            [found[key] for key in look.keys] for look, found in zip(lookups, answers, strict=True)
        ]

    def _if_not_too_old(self, row: Row | None, view: ResolvedView, instant: int) -> Row | None:
        if row is None:
            return None
        allowed = self._max_stale + (_held(row, view) or timedelta(0))
        return row if instant - row.chosen_at <= microseconds(allowed) else None

    def _from_warehouse(
        self, view: ResolvedView, keys: Sequence[tuple[Any, ...]], instant: int
    ) -> dict[tuple[Any, ...], Row]:
        import pyarrow as pa

        warehouse = self._warehouse(view.warehouse)
        can = warehouse.capabilities
        known = warehouse.statistics(view) if can.lateral_limit else UNKNOWN
        select = compile_lookup(view, can, known)
        schema = {ROW: "int64", EVENT: can.instant_type}
        schema |= {feature.name: feature.dtype for feature in view.features}
        name = temporary_name()
        with warehouse.session() as session:
            session.load(name, keys_at(view, keys, instant, can.instant_type))
            result = session.query(on_spine(select, name, can.dialect), schema)
        rows = {key: _no_row(view, instant) for key in keys}
        events = result.column(EVENT).cast(pa.int64()).to_pylist()
        values = [
            _plain(result.column(item.name).to_pylist(), item.dtype) for item in view.features
        ]
        for number, row in enumerate(result.column(ROW).to_pylist()):
            picked = tuple(column[number] for column in values)
            found = not view.is_aggregate or events[number] is not None
            rows[keys[row]] = Row(instant, events[number], found, picked)
        return rows

    def _write_back(self, view: ResolvedView, rows: Mapping[tuple[Any, ...], Row]) -> None:
        items: dict[float | None, dict[bytes, bytes]] = {}
        for key, row in rows.items():
            held = _held(row, view)
            if held != timedelta(0):
                seconds = None if held is None else (held + self._max_stale).total_seconds()
                place = encode_key(self._project, view, key)
                items.setdefault(seconds, {})[place] = encode_row(row)
        for seconds, some in items.items():
            self._store.set_many(some, seconds)


def keys_at(
    view: ResolvedView, keys: Sequence[tuple[Any, ...]], instant: int, instant_type: str
) -> pa.Table:
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


def _no_row(view: ResolvedView, instant: int) -> Row:
    """Return the answer where there is no visible row: NULLs, but counts are 0."""
    values = [
        0 if item.aggregate is not None and item.aggregate.function in COUNTS else None
        for item in view.features
    ]
    return Row(instant, None, False, tuple(values))


def _stale_rows(
    view: ResolvedView, wanted: Mapping[tuple[Any, ...], Row | None], error: WarehouseError
) -> dict[tuple[Any, ...], Row]:
    """Return what was cached of the keys wanted, marked as stale.

    Raises
    ------
    WarehouseError
        Nothing is cached of some key: the one that was given.
    """
    rows = {key: replace(row, stale=True) for key, row in wanted.items() if row is not None}
    if len(rows) < len(wanted):
        raise error
    _log.warning("%s: %d stale rows answer, as the warehouse cannot: %s",
                 view.label, len(rows), error)  # fmt: skip
    return rows


def _read_row(view: ResolvedView, data: bytes | None, instant: int) -> Row | None:
    """Return the row that bytes hold; None where it is not one that an instant may know."""
    row = decode_row(view, data) if data is not None else None
    if row is None or row.chosen_at > instant or len(row.values) != len(view.features):
        return None
    return row


def _held(row: Row, view: ResolvedView) -> timedelta | None:
    """Return for how long a row answers; None is until it is replaced. No row does so briefly."""
    if row.found:
        return view.freshness
    return _BRIEFLY if view.freshness is None else min(view.freshness, _BRIEFLY)


def _is_fresh(row: Row, view: ResolvedView, instant: int) -> bool:
    held = _held(row, view)
    return held is None or instant - row.chosen_at <= microseconds(held)


def _plain(values: list[Any], dtype: str) -> list[Any]:
    """Return values as the codec returns them: zoned times in UTC, UUIDs as such."""
    if dtype.startswith("timestamp("):
        return [
            value.astimezone(UTC) if value is not None and value.tzinfo else value
            for value in values
        ]
    if dtype == "uuid":
        return [UUID(value) if isinstance(value, str) else value for value in values]
    return values


def lookups(plan: FeaturePlan, keys: Sequence[Mapping[str, Any]]) -> list[Lookup]:
    """Return what to read for a plan, one lookup per part."""
    return [
        Lookup(part.view, tuple(tuple(item[name] for name in part.key_columns) for item in keys))
        for part in plan.parts
    ]


def status_of(row: Row, view: ResolvedView, instant: int) -> FeatureStatus:
    """Return a row's own status at an instant: NOT_FOUND, OUTSIDE_MAX_AGE, STALE or PRESENT."""
    if not row.found:
        return FeatureStatus.NOT_FOUND
    if (
        view.ttl is not None
        and row.event is not None
        and timedelta(microseconds=instant - row.event) > view.ttl
    ):
        return FeatureStatus.OUTSIDE_MAX_AGE
    return FeatureStatus.STALE if row.stale else FeatureStatus.PRESENT


def answer(
    plan: FeaturePlan,
    keys: Sequence[dict[str, Any]],
    rows: Sequence[Sequence[Row]],
    at: datetime,
    request: Sequence[Mapping[str, Any]],
    functions: PythonFunctions,
) -> OnlineResponse:
    """Put the rows of each part together as values, statuses and event timestamps.

    Parameters
    ----------
    request
        Request inputs of each entity (see :func:`request_rows`).
    """
    instant = to_micros(at)
    columns: dict[str, list[Cell]] = {}
    for part, found in zip(plan.parts, rows, strict=True):
        place = {name: number for number, name in enumerate(part.view.feature_names)}
        judged = [(row, status_of(row, part.view, instant)) for row in found]
        for feature, output in part.outputs:
            cells = []
            for row, status in judged:
                # What a row that does not count holds is not shown; of none there are counts of 0.
                value = (
                    None if status is FeatureStatus.OUTSIDE_MAX_AGE else row.values[place[feature]]
                )
                if status is FeatureStatus.PRESENT and value is None:
                    status = FeatureStatus.NULL_VALUE
                event = None if row.event is None else from_micros(row.event)
                cells.append((value, status, event))
            columns[output] = cells
    for name in plan.request:
        columns[name] = [
            (item[name], _NULL if item[name] is None else _PRESENT, None) for item in request
        ]
    for computed in plan.on_demand:
        columns |= computed_cells(computed, columns, len(keys), at, functions)
    cells_by_row = [[columns[name][n] for name in plan.columns] for n in range(len(keys))]
    return OnlineResponse(
        names=plan.columns,
        keys=tuple(keys),
        values=tuple(tuple(cell[0] for cell in row) for row in cells_by_row),
        _statuses=tuple(tuple(cell[1] for cell in row) for row in cells_by_row),
        _events=tuple(tuple(cell[2] for cell in row) for row in cells_by_row),
        dtypes={**plan.key_columns, **plan.dtypes()},
    )
