"""A view's answer at given instants: for keys looked up online, and for all keys at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import aggregate
from virtualfs.compiler.plan import LateData, Part, ResolvedView
from virtualfs.compiler.rows import (
    AT,
    EVENT,
    FOUND,
    ROW,
    TIME,
    UNTIL,
    bound,
    newest_first,
    same_keys,
    shown_created,
    shown_event,
    spine_keys,
    valid_rows,
    whole_rows,
    young,
)
from virtualfs.compiler.strategy import BY_JOIN, fragment
from virtualfs.definitions.duration import microseconds

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = [
    "HAPPENED",
    "VISIBLE",
    "YOUNG",
    "as_of",
    "candidates",
    "in_utc",
    "known_keys",
    "lookup",
    "whole_view",
    "windows",
    "within_reach",
]

VISIBLE = "__visible"
"""Whether a row counts at the instant."""
HAPPENED = "__happened"
"""Whether a row's event counts at the instant, whenever it was written."""
YOUNG = "__young"
"""Whether a row is within the TTL at the instant; NULL without one."""
_RANK = "__rank"
_ENDS = datetime(1, 1, 2), datetime(9999, 12, 30)


def whole_view(view: ResolvedView) -> Part:
    """Return the part that asks for every feature of a view under its own name and keys."""
    names = view.feature_names
    return Part(view, tuple(view.join_keys), tuple(zip(names, names, strict=True)))


def lookup(
    keys: ir.Table, rows: ir.Table, view: ResolvedView, capabilities: Capabilities
) -> ir.Table:
    """Return the winner of each key that has a visible row.

    That is ``__row``, ``__event``, ``__created`` where the view has such a time, and all features.
    `keys` is a spine relation, small, whose key columns have the names of the join keys. The TTL
    is left to the reader, as it is judged when the value is read (rule 12).
    """
    found = valid_rows(keys, rows, whole_view(view), capabilities, how="inner")
    times = {EVENT: shown_event(found, view, capabilities)}
    times |= shown_created(found, view, capabilities)
    return found.select(ROW, **times, **{name: found[name] for name in view.feature_names})


def windows(
    keys: ir.Table, rows: ir.Table, view: ResolvedView, capabilities: Capabilities
) -> ir.Table:
    """Return ``__row``, ``__event`` and all aggregates for each key.

    ``__event`` is the instant of the answer; NULL for a key that has no visible row.
    """
    import ibis

    part = whole_view(view)
    answers = fragment(keys, rows, part, capabilities, BY_JOIN)
    known = aggregate.seen(keys, rows, part, capabilities).mutate(**{FOUND: True})
    joined = keys.select(ROW, TIME).left_join(known, ROW, rname="{name}__right")
    never = ibis.null(capabilities.instant_type)
    told = joined.select(ROW, **{EVENT: joined[FOUND].isnull().ifelse(never, joined[TIME])})
    return told.inner_join(answers, ROW, rname="{name}__right").select(
        ROW, EVENT, *view.feature_names
    )


def candidates(
    keys: ir.Table,
    rows: ir.Table,
    view: ResolvedView,
    capabilities: Capabilities,
    late_data: LateData,
    count: int,
) -> ir.Table:
    """Return source rows of one key: `count` that count at its instant and as many that do not.

    The winner stands first, of either kind the nearest first. All columns of the view, and
    ``__event``, ``__visible``, ``__happened`` and ``__young``, in that order.
    """
    import ibis

    part = replace(whole_view(view), late_data=late_data)
    whole = whole_rows(rows, part, capabilities)
    left = keys.select(ROW, TIME, **spine_keys(keys, part))
    joined = left.inner_join(whole, same_keys(left, whole, view) or [True], rname="{name}__right")
    visible: ir.Value = ibis.literal(True)
    happened: ir.Value = visible
    if view.event_timestamp:
        happened = joined[EVENT] <= capabilities.shift(joined[TIME], -view.lag)
        visible = joined[AT] <= bound(joined[TIME], part, capabilities)
    if view.valid_to:
        ends = capabilities.shift(joined[TIME], -microseconds(view.availability_delay))
        visible = visible & (ends < joined[UNTIL])
    fresh = young(joined, part, capabilities)
    marked = joined.mutate(
        **{
            VISIBLE: visible,
            HAPPENED: happened,
            YOUNG: ibis.null("boolean") if fresh is None else fresh,
        }
    )
    # Of rows that do not count yet the nearest is the oldest.
    later = marked[VISIBLE].ifelse(ibis.null(capabilities.instant_type), marked[EVENT])
    rank = ibis.row_number().over(
        group_by=[marked[ROW], marked[VISIBLE]],
        order_by=[later, *newest_first(marked, view, capabilities)],
    )
    ranked = marked.mutate(**{_RANK: rank})
    kept = ranked.filter(ranked[_RANK] < count)
    kept = kept.order_by([kept[VISIBLE].desc(), kept[_RANK]])
    shown = within_reach(kept, view, capabilities)
    first, last = (capabilities.literal_instant(end) for end in _ENDS)
    told = _between(kept[EVENT], first, last)
    return kept.select(
        **shown, **{EVENT: told}, **{name: kept[name] for name in (VISIBLE, HAPPENED, YOUNG)}
    )


def within_reach(
    rows: ir.Table, view: ResolvedView, capabilities: Capabilities
) -> dict[str, ir.Value]:
    """Return a view's columns to be looked at: times for ever, or beyond Python's, at its ends."""
    import ibis

    values: dict[str, ir.Value] = {}
    for name in view.columns:
        value = values[name] = rows[name]
        kind = value.type()
        # Where instants are numbers, times are kept in ways that do not compare.
        if capabilities.instant_type == "int64" or not (kind.is_timestamp() or kind.is_date()):
            continue
        first, last = (
            ibis.literal(end.date().isoformat() if kind.is_date() else end.isoformat()).cast(kind)
            for end in _ENDS
        )
        values[name] = _between(value, first, last)
    return values


def _between(value: ir.Value, first: ir.Value, last: ir.Value) -> ir.Value:
    import ibis

    return ibis.cases((value < first, first), (value > last, last), else_=value)


def known_keys(
    parts: Sequence[Part],
    rows: Sequence[ir.Table],
    instant: datetime,
    timestamp: str,
    capabilities: Capabilities,
) -> ir.Table:
    """Return the keys that some of the views know at an instant, each once, and the instant.

    Parameters
    ----------
    parts
        Views on the same spine columns.
    rows
        Each view's rows.
    timestamp
        Name of the column that holds the instant.
    """
    import ibis

    at = capabilities.literal_instant(instant)
    found = []
    for part, source in zip(parts, rows, strict=True):
        view = part.view
        whole = whole_rows(source, part, capabilities)
        if view.event_timestamp:
            whole = whole.filter(whole[AT] <= bound(at, part, capabilities))
        if view.valid_to:
            ends = capabilities.shift(at, -microseconds(view.availability_delay))
            whole = whole.filter(ends < whole[UNTIL])
        named = dict(zip(part.key_columns, view.join_keys, strict=True))
        found.append(whole.select(**{name: whole[key] for name, key in sorted(named.items())}))
    first, *others = found
    keys = first.union(*others, distinct=True) if others else first.distinct()
    return keys.mutate(**{timestamp: ibis.literal(instant.isoformat()).cast("timestamp(6)")})


def in_utc(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> ir.Table:
    """Return a view's rows with times that say no zone, and are kept in another, in UTC."""
    times = {view.event_timestamp, view.created_timestamp, view.valid_to}
    naive = [
        name
        for name in view.columns
        if name in times and rows[name].type().is_timestamp() and not rows[name].type().timezone
    ]
    if view.timezone == "UTC" or capabilities.instant_type == "int64" or not naive:
        return rows
    moved = {name: capabilities.instant(rows[name], view.timezone, "up") for name in naive}
    return rows.mutate(**moved)


def as_of(
    rows: ir.Table, view: ResolvedView, instant: datetime, capabilities: Capabilities
) -> ir.Table:
    """Return one row per key, the view's answer at one instant: keys, event timestamp, features.

    Keys whose latest row is over its TTL keep their row, with NULLs. Aggregates have no event
    timestamp; keys that have a visible row have theirs.
    """
    import ibis

    part = whole_view(view)
    at = capabilities.literal_instant(instant)
    source = whole_rows(rows, part, capabilities)
    if view.event_timestamp:
        source = source.filter(source[AT] <= bound(at, part, capabilities))
    if view.is_aggregate:
        known = source.select(*view.join_keys, __one=ibis.literal(1)).distinct()
        number = ibis.row_number().over(order_by=[*view.join_keys, "__one"])
        spine = known.mutate(**{ROW: number, TIME: at})
        found = spine.inner_join(
            fragment(spine, rows, part, capabilities, BY_JOIN), ROW, rname="{name}__right"
        )
        return found.select(*view.join_keys, *view.feature_names)
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
