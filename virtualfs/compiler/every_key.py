"""A view's rows of all keys at one instant, in the order of the keys, to fill a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.instant import whole_view
from virtualfs.compiler.plan import ResolvedView
from virtualfs.compiler.program import bind_rows, rows_relation
from virtualfs.compiler.rows import (
    AT,
    CREATED,
    EVENT,
    ROW,
    TIME,
    UNTIL,
    bound,
    newest_first,
    shown_created,
    shown_event,
    tie_order,
    whole_rows,
)
from virtualfs.compiler.strategy import BY_JOIN, fragment
from virtualfs.definitions.duration import microseconds

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["Wanted", "compile_every_key", "key_column"]

_RANK = "__rank"
_NEWEST = "__newest"


def key_column(number: int) -> str:
    """Return the column that holds a join key, by its place."""
    return f"__key_{number}"


@dataclass(frozen=True)
class Wanted:
    """Which keys are wanted; all where everything is None.

    Parameters
    ----------
    written_since
        Those with a row that was written after this instant, or nobody knows when, or whose event
        became visible after it; naive and in UTC.
    event_from, event_until
        Those with an event at or after the one and before the other.
    after
        Those greater than these join keys in the order of the answer.
    """

    written_since: datetime | None = None
    event_from: datetime | None = None
    event_until: datetime | None = None
    after: tuple[Any, ...] | None = None


def compile_every_key(
    view: ResolvedView, at: datetime, wanted: Wanted, capabilities: Capabilities
) -> tuple[str, dict[str, str]]:
    """Return the SELECT of one row per key, by key, and its columns with their types.

    These are the keys, ``__event``, ``__created`` where the view has such a time, and all features,
    whatever their age. Of aggregates ``__event`` is the instant.

    Parameters
    ----------
    at
        The instant, naive and in UTC.
    """
    rows = rows_relation(view)
    part = whole_view(view)
    now = capabilities.literal_instant(at)
    visible = whole_rows(rows, part, capabilities)
    if view.event_timestamp:
        visible = visible.filter(visible[AT] <= bound(now, part, capabilities))
    if view.valid_to:
        ends = capabilities.shift(now, -microseconds(view.availability_delay))
        visible = visible.filter(ends < visible[UNTIL])
    keys = [key_column(number) for number in range(len(view.join_keys))]
    visible = _chosen(visible, keys, view, wanted, capabilities)
    if view.is_aggregate:
        found = _windows(visible, rows, view, now, capabilities)
    else:
        winners = _winners(visible, keys, view, capabilities)
        times = {EVENT: shown_event(winners, view, capabilities)}
        times |= shown_created(winners, view, capabilities)
        features = {name: winners[name] for name in view.feature_names}
        found = winners.select(*keys, **times, **features)
    ordered = found.order_by(keys) if keys else found
    text = sql.text(sql.render(ordered, capabilities), capabilities.dialect)
    schema = {name: sql.type_text(ordered[name]) for name in ordered.columns}
    return bind_rows(text, view, capabilities), schema


def _chosen(
    rows: ir.Table,
    keys: Sequence[str],
    view: ResolvedView,
    wanted: Wanted,
    capabilities: Capabilities,
) -> ir.Table:
    """Return the rows of the keys that are wanted."""
    import ibis

    if wanted.after is not None:
        rows = rows.filter(_greater([rows[key] for key in keys], wanted.after))
    touched = rows
    if wanted.written_since is not None:
        since = capabilities.literal_instant(wanted.written_since)
        recent = capabilities.shift(touched[EVENT], view.lag) > since
        if CREATED in touched.columns:
            created = touched[CREATED]
            recent = recent | created.isnull() | (created > since)
        touched = touched.filter(recent)
    if wanted.event_from is not None:
        touched = touched.filter(touched[EVENT] >= capabilities.literal_instant(wanted.event_from))
    if wanted.event_until is not None:
        touched = touched.filter(touched[EVENT] < capabilities.literal_instant(wanted.event_until))
    if touched is rows:
        return rows
    if not keys:
        return rows.filter(touched.count().as_scalar() > ibis.literal(0))
    some = touched.select(*keys).distinct()
    return rows.semi_join(some, list(keys))


def _greater(columns: Sequence[ir.Value], values: Sequence[Any]) -> ir.Value:
    """Write that columns come after values, compared one after the other."""
    import ibis

    column, *others = columns
    value = ibis.literal(values[0], type=column.type())
    if not others:
        return column > value
    return (column > value) | ((column == value) & _greater(others, values[1:]))


def _winners(
    visible: ir.Table, keys: Sequence[str], view: ResolvedView, capabilities: Capabilities
) -> ir.Table:
    """Return the winner of each key: the newest event is found by keys and times alone."""
    import ibis

    order = newest_first
    if view.event_timestamp and keys:
        newest = visible.group_by(list(keys)).aggregate(**{_NEWEST: visible[EVENT].max()})
        on = [*((visible[key] == newest[key]) for key in keys), visible[EVENT] == newest[_NEWEST]]
        visible = visible.semi_join(newest, on)
        order = tie_order
    rank = ibis.row_number().over(
        group_by=[visible[key] for key in keys] or None,
        order_by=order(visible, view, capabilities),
    )
    ranked = visible.mutate(**{_RANK: rank})
    return ranked.filter(ranked[_RANK] == 0)


def _windows(
    visible: ir.Table, rows: ir.Table, view: ResolvedView, now: ir.Value, capabilities: Capabilities
) -> ir.Table:
    import ibis

    known = visible.select(*view.join_keys, __one=ibis.literal(1)).distinct()
    number = ibis.row_number().over(order_by=[*view.join_keys, "__one"])
    spine = known.mutate(**{ROW: number, TIME: now})
    answers = fragment(spine, rows, whole_view(view), capabilities, BY_JOIN)
    found = spine.inner_join(answers, ROW, rname="{name}__right")
    named = {key_column(place): found[key] for place, key in enumerate(view.join_keys)}
    return found.select(
        **named, **{EVENT: now}, **{name: found[name] for name in view.feature_names}
    )
