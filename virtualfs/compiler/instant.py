"""A view's answer at given instants: for keys looked up online, and for all keys at once."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.plan import Part, ResolvedView
from virtualfs.compiler.rows import (
    AT,
    EVENT,
    ROW,
    TIME,
    UNTIL,
    bound,
    newest_first,
    valid_rows,
    whole_rows,
    young,
)
from virtualfs.definitions.duration import microseconds

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["as_of", "lookup", "whole_view"]

_RANK = "__rank"


def whole_view(view: ResolvedView) -> Part:
    """Return the part that asks for every feature of a view under its own name and keys."""
    names = view.feature_names
    return Part(view, tuple(view.join_keys), tuple(zip(names, names, strict=True)))


def lookup(
    keys: ir.Table, rows: ir.Table, view: ResolvedView, capabilities: Capabilities
) -> ir.Table:
    """Return the winner of each key that has a visible row: ``__row``, ``__event``, all features.

    `keys` is a spine relation, small, whose key columns have the names of the join keys. The TTL
    is left to the reader, as it is judged when the value is read (rule 12).
    """
    found = valid_rows(keys, rows, whole_view(view), capabilities, how="inner")
    return found.select(ROW, EVENT, *view.feature_names)


def as_of(
    rows: ir.Table, view: ResolvedView, instant: datetime, capabilities: Capabilities
) -> ir.Table:
    """Return one row per key, the view's answer at one instant: keys, event timestamp, features.

    Keys whose latest row is over its TTL keep their row, with NULLs.
    """
    import ibis

    part = whole_view(view)
    at = capabilities.literal_instant(instant)
    source = whole_rows(rows, part, capabilities)
    if view.event_timestamp:
        source = source.filter(source[AT] <= bound(at, part, capabilities))
    if view.valid_to:
        ends = capabilities.shift(at, -microseconds(view.availability_delay))
        source = source.filter(ends < source[UNTIL])
    rank = ibis.row_number().over(
        group_by=[source[key] for key in view.join_keys] or None,
        order_by=newest_first(source, view, capabilities),
    )
    ranked = source.mutate(**{_RANK: rank, TIME: at})
    winners = ranked.filter(ranked[_RANK] == 0)
    counts = young(winners, part, capabilities)
    fixed = [*dict.fromkeys([*view.join_keys, *filter(None, [view.event_timestamp])])]
    values = {}
    for name in view.feature_names:
        value = winners[name]
        if name not in fixed:
            values[name] = (
                value if counts is None else counts.ifelse(value, ibis.null(value.type()))
            )
    return winners.select(*fixed, **values)
