"""Aggregates over windows: what counts when, and the portable strategy, one join on key and range.

The rules, with ``t`` the spine row's instant, ``o`` an aggregate's offset and ``w`` its window:

* rule 2: a row is visible if ``event <= t - lag`` (see :attr:`ResolvedView.lag`);
* rule 6: it lies in the window if ``t - lag - o - w < event <= t - lag - o``. Times are whole
  microseconds, so that is ``[t - o - w, t - o)`` for an exclusive boundary and
  ``(t - o - w, t - o]`` for an inclusive one, the delay added to the event;
* rule 7: with ``late_data="exclude"`` it must also have ``created <= t``, whatever the offset;
* rule 8: NULL keys and NULL times match nothing, which is an empty window.

What an aggregate is over is NULL in rows that do not meet its condition, and NULLs never count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.plan import Part, ResolvedAggregate, ResolvedView
from virtualfs.compiler.rows import (
    CREATED,
    EVENT,
    ROW,
    TIME,
    key_names,
    newest_first,
    same_keys,
    spine_keys,
    whole_rows,
)
from virtualfs.compiler.sql import is_there
from virtualfs.definitions.aggregate import COUNTS
from virtualfs.definitions.duration import microseconds

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = [
    "BOUND",
    "PLACE",
    "Window",
    "aggregates_of",
    "as_number",
    "counted_rows",
    "finished",
    "joined_over_range",
    "moments_of",
    "of_moments",
    "ranked",
    "seen",
    "squared",
    "steps_of",
    "told",
    "values_of",
    "widest_of",
    "window_of",
    "windows_of",
    "with_bounds",
    "within",
]

PLACE = "__place"
"""Position of a row among those of its keys, the newest first."""
BOUND = "__bound_"
"""Begins the names of columns with an instant's bounds, each so many microseconds before it."""
_AGE = "__age"
_SQUARED = "__squared_"
_HUGE = 1e150
"""Beyond it a square is no longer a number that a float can be."""


@dataclass(frozen=True)
class Window:
    """The microseconds before an instant between which a row's event lies: ``end <= age < start``.

    ``start`` is None for a window over everything so far.
    """

    end: int
    start: int | None


def window_of(aggregate: ResolvedAggregate, view: ResolvedView) -> Window:
    """Return the window of an aggregate."""
    end = view.lag + microseconds(aggregate.offset)
    return Window(end, None if aggregate.window is None else end + microseconds(aggregate.window))


def steps_of(windows: Iterable[Window]) -> list[int]:
    """Return how many microseconds before an instant some window begins or ends."""
    steps = {step for window in windows for step in (window.end, window.start)}
    return sorted(step for step in steps if step is not None)


def windows_of(part: Part) -> list[Window]:
    """Return the windows of a part's aggregates, in their order."""
    return [window_of(aggregate, part.view) for aggregate in aggregates_of(part).values()]


def with_bounds(
    spine: ir.Table, windows: Collection[Window], capabilities: Capabilities
) -> ir.Table:
    """Return a spine with the instants at which windows begin and end, as ``__bound_{step}``."""
    steps = steps_of(windows)
    moved = {f"{BOUND}{step}": capabilities.shift(spine[TIME], -step) for step in steps}
    return spine.mutate(**moved)


def widest_of(windows: Collection[Window]) -> Window:
    """Return the window that holds all of some."""
    starts = [window.start for window in windows if window.start is not None]
    ends = [window.end for window in windows]
    return Window(min(ends), max(starts) if len(starts) == len(windows) else None)


def within(window: Window, known: Window | None, until: Callable[[int], ir.Value]) -> ir.Value:
    """Return whether an event lies in a window, as a condition that may be empty.

    Parameters
    ----------
    known
        The window in which it lies in any case.
    until
        Tells whether it lies so many microseconds, or more, before the instant.
    """
    import ibis

    found = []
    if known is None or window.end != known.end:
        found.append(until(window.end))
    if window.start is not None and (known is None or window.start != known.start):
        found.append(~until(window.start))
    return ibis.and_(*found)


def aggregates_of(part: Part) -> dict[str, ResolvedAggregate]:
    """Return the aggregates that a part asks for, by feature."""
    by_name = {feature.name: feature.aggregate for feature in part.view.features}
    return {name: found for name in part.features if (found := by_name[name]) is not None}


def joined_over_range(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities
) -> ir.Table:
    """Return ``__row`` and the features' values of spine rows that have something in a window.

    1. Every spine row meets the rows of its keys in the widest window, once.
    2. Each aggregate counts those in its own window.

    Exact for every function, on every engine. The cost is that of the pairs.
    """
    whole = counted_rows(rows, part, capabilities)
    left = spine.select(ROW, TIME, **spine_keys(spine, part))
    pairs = _Pairs(left, whole, windows_of(part), part, capabilities)
    values = values_of(pairs.table, part, pairs.within, capabilities)
    return pairs.table.group_by(ROW).aggregate(**values)


def counted_rows(rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return a view's rows with what its aggregates need beside them (see :func:`values_of`)."""
    asked = aggregates_of(part)
    whole = _with_squares(whole_rows(rows, part, capabilities), asked)
    return ranked(whole, asked, part.view, capabilities)


def values_of(
    counted: ir.Table,
    part: Part,
    held: Callable[[Window], ir.Value],
    capabilities: Capabilities,
) -> dict[str, ir.Value]:
    """Return the features' values over rows of :func:`counted_rows`, those held in each window."""
    return {
        name: _value(counted, aggregate, held(window_of(aggregate, part.view)), capabilities)
        for name, aggregate in aggregates_of(part).items()
    }


def seen(spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return ``__row`` of the spine rows whose keys have any visible row."""
    whole = whole_rows(rows, part, capabilities)
    left = spine.select(ROW, TIME, **spine_keys(spine, part))
    pairs = _Pairs(left, whole, [Window(part.view.lag, None)], part, capabilities)
    return pairs.table.select(ROW).distinct()


def moments_of(spine: ir.Table, part: Part) -> ir.Table:
    """Return the spine's instants per key, each once, as a spine numbered by one of its rows.

    Where many spine rows share keys and instant, as those of a day's batch do, what a window holds
    is found once for all of them. NULL keys and instants are left out: they have empty windows.
    """
    columns = [TIME, *dict.fromkeys(part.key_columns)]
    known = spine.filter([spine[name].notnull() for name in columns])
    return known.group_by(columns).aggregate(**{ROW: known[ROW].min()})


def of_moments(
    spine: ir.Table, moments: ir.Table, values: Sequence[ir.Table], part: Part
) -> ir.Table:
    """Return the values of moments, found in several ways, for the spine's own rows."""
    # Under names of ours: a feature may be called like a key column.
    columns = [TIME, *dict.fromkeys(part.key_columns)]
    names = [f"__moment_{number}" for number in range(len(columns))]
    found = moments.select(
        ROW, **{name: moments[column] for name, column in zip(names, columns, strict=True)}
    )
    for number, table in enumerate(values):
        found = found.left_join(table, ROW, rname=f"{{name}}__{number}")
    found = found.select(*names, *aggregates_of(part))
    own = spine.select(
        ROW, **{f"{name}__own": spine[column] for name, column in zip(names, columns, strict=True)}
    )
    joined = own.inner_join(found, [own[f"{name}__own"] == found[name] for name in names])
    return joined.select(ROW, *aggregates_of(part))


def finished(spine: ir.Table, found: ir.Table, part: Part) -> ir.Table:
    """Return ``__row`` and the outputs for every spine row."""
    joined = spine.select(ROW).left_join(found, ROW, rname="{name}__right")
    return joined.select(ROW, **told(joined, part))


def told(found: ir.Table, part: Part) -> dict[str, ir.Value]:
    """Return the outputs, of the features' values: nothing counted is 0, all else NULL."""
    import ibis.expr.operations as ops

    values: dict[str, ir.Value] = {}
    dtypes = {feature.name: feature.dtype for feature in part.view.features}
    asked = aggregates_of(part)
    for feature, output in part.outputs:
        value = found[feature]
        aggregate = asked[feature]
        if aggregate.n is not None:
            # The newest stand at the end of what was collected, the oldest at its beginning.
            n = aggregate.n
            value = value[:n] if aggregate.function == "first" else value[-n:]
        else:
            # Some engines sum integers into wider types than Ibis believes: the cast is needed.
            value = ops.Cast(value, dtypes[feature]).to_expr()
        if aggregate.function in COUNTS:
            value = value.coalesce(0)
        values[output] = value
    return values


class _Pairs:
    """Spine rows with the source rows in the widest of some windows."""

    def __init__(
        self,
        left: ir.Table,
        whole: ir.Table,
        windows: Collection[Window],
        part: Part,
        capabilities: Capabilities,
    ) -> None:
        micros = capabilities.micros
        if micros is not None:
            left = left.mutate(**{f"{BOUND}now": micros(left[TIME])})
            whole = whole.mutate(**{_AGE: micros(whole[EVENT])})
        else:
            left = with_bounds(left, windows, capabilities)
        self._counted = micros is not None
        self._widest = widest_of(windows)
        near = within(self._widest, None, lambda step: self._until(left, whole, step))
        on = [*same_keys(left, whole, part.view), near]
        if part.judges_arrival:
            on.append(whole[CREATED] <= left[TIME])
        self.table = left.inner_join(whole, on, rname="{name}__right")

    def within(self, window: Window) -> ir.Value:
        """Return whether a pair's source row, which is in the widest window, lies in this one."""
        return within(window, self._widest, lambda step: self._until(self.table, self.table, step))

    def _until(self, left: ir.Table, whole: ir.Table, step: int) -> ir.Value:
        if self._counted:
            return left[f"{BOUND}now"] - whole[_AGE] >= step
        return whole[EVENT] <= left[f"{BOUND}{step}"]


def ranked(
    whole: ir.Table,
    asked: Mapping[str, ResolvedAggregate],
    view: ResolvedView,
    capabilities: Capabilities,
) -> ir.Table:
    """Return the rows with their places in their keys' order, where an aggregate goes by it."""
    import ibis

    if not any(aggregate.function in ("first", "last") for aggregate in asked.values()):
        return whole
    place = ibis.row_number().over(
        group_by=[whole[name] for name in key_names(view)] or None,
        order_by=newest_first(whole, view, capabilities),
    )
    return whole.mutate(**{PLACE: place})


def _value(
    pairs: ir.Table, aggregate: ResolvedAggregate, within: ir.Value, capabilities: Capabilities
) -> ir.Value:
    """Return an aggregate over the pairs in its window."""
    function = aggregate.function
    if aggregate.input is None:
        return pairs.count(where=within)
    value = pairs[aggregate.input]
    if function in ("first", "last"):
        held = within & is_there(value)
        if aggregate.n is not None:
            assert capabilities.collect is not None
            return capabilities.collect(value, pairs[PLACE], held)
        picked = value.argmin if function == "last" else value.argmax
        return picked(pairs[PLACE], where=held)
    if function == "count":
        return value.count(where=within)
    if function == "count_distinct":
        return value.nunique(where=within)
    if function == "approx_count_distinct":
        return value.approx_nunique(where=within)
    if function in ("std", "var"):
        if value.type().is_floating():
            value = pairs[f"{_SQUARED}{aggregate.input}"]
        elif value.type().is_decimal():
            value = value.cast("float64")
        found = capabilities.variance(as_number(value), "sample", within)
        return found.sqrt() if function == "std" else found
    value = as_number(value)
    if function in ("quantile", "median"):
        q = 0.5 if aggregate.q is None else aggregate.q
        return value.cast("float64").quantile(q, where=within)
    if function == "mean" and not value.type().is_integer():
        # Some engines give the mean of decimals a few digits more than they have, and fail at
        # squares of floats that no mean needs.
        value = value.cast("float64")
        return value.sum(where=within) / value.count(where=within)
    return getattr(value, function)(where=within)


def _with_squares(whole: ir.Table, asked: Mapping[str, ResolvedAggregate]) -> ir.Table:
    """Return the rows with what spreads of floats are over beside them."""
    names = {
        aggregate.input
        for aggregate in asked.values()
        if aggregate.input is not None and aggregate.function in ("std", "var")
    }
    floats = {name: whole[name] for name in names if whole[name].type().is_floating()}
    made = {f"{_SQUARED}{name}": squared(value) for name, value in sorted(floats.items())}
    return whole.mutate(**made) if made else whole


def squared(value: ir.Value) -> ir.Value:
    """Return a float that has a square, and NaN for all others: some engines fail at them."""
    import ibis

    fine = value.abs() <= _HUGE
    nan = ibis.literal(float("nan"), "float64")
    return ibis.cases((fine, value), (is_there(value), nan), else_=ibis.null("float64"))


def as_number(value: ir.Value) -> ir.Value:
    """Return a boolean as 0 or 1, and all else as it is."""
    import ibis

    if not value.type().is_boolean():
        return value
    return ibis.cases((value, 1), (~value, 0), else_=ibis.null("int64"))
