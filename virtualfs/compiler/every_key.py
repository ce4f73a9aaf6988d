"""A view's rows of all keys at one instant, in the order of the keys, to fill a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.instant import counting_at, whole_view, windows_at, winners_of
from virtualfs.compiler.plan import ResolvedView
from virtualfs.compiler.program import bind_rows, rows_relation
from virtualfs.compiler.rows import CREATED, EVENT, key_names, shown_created, shown_event

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["Wanted", "compile_every_key"]


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
    keys = key_names(view)
    counting = counting_at(rows, part, now, capabilities)
    wanted_rows = _chosen(counting, keys, view, wanted, capabilities)
    if view.is_aggregate:
        found = windows_at(wanted_rows, rows, part, now, capabilities)
        columns = dict(zip(keys, (found[key] for key in view.join_keys), strict=True))
        columns |= {EVENT: now}
    else:
        found = winners_of(wanted_rows, view, capabilities)
        columns = {key: found[key] for key in keys}
        columns |= {EVENT: shown_event(found, view, capabilities)}
        columns |= shown_created(found, view, capabilities)
    found = found.select(**columns, **{name: found[name] for name in view.feature_names})
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
    if isinstance(values[0], date | time) and not isinstance(values[0], datetime):
        # As text, which every engine casts; the functions that make dates differ.
        value = ibis.literal(values[0].isoformat()).cast(column.type())
    else:
        value = ibis.literal(values[0], type=column.type())
    if not others:
        return column > value
    return (column > value) | ((column == value) & _greater(others, values[1:]))
