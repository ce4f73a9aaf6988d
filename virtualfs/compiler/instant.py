"""A view's answer at given instants: for keys looked up online, and for all keys at once."""

from __future__ import annotations

from collections.abc import Sequence
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
    key_names,
    newest_first,
    same_keys,
    shown_created,
    shown_event,
    spine_keys,
    tie_order,
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
    "counting_at",
    "in_utc",
    "known_keys",
    "lookup",
    "whole_view",
    "windows",
    "windows_at",
    "winners_of",
    "within_reach",
]

VISIBLE = "__visible"
"""Whether a row counts at the instant."""
HAPPENED = "__happened"
"""Whether a row's event counts at the instant, whenever it was written."""
YOUNG = "__young"
"""Whether a row is within the TTL at the instant; NULL without one."""
_RANK = "__rank"
_NEWEST = "__newest"
_ENDS = datetime(1, 1, 2), datetime(9999, 12, 30)


def whole_view(view: ResolvedView, late_data: LateData = "include") -> Part:
    """Return the part that asks for every feature of a view under its own name and keys."""
    names = view.feature_names
    return Part(view, tuple(view.join_keys), tuple(zip(names, names, strict=True)), late_data)


def lookup(keys: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return the winner of each key that has a visible row.

    That is ``__row``, ``__event``, ``__created`` where the view has such a time, and all features.
    `keys` is a spine relation, small, whose key columns have the names of the join keys; `part` is
    the whole view. The TTL is left to the reader, as it is judged when the value is read (rule 12).
    """
    view = part.view
    found = valid_rows(keys, rows, part, capabilities, how="inner")
    times = {EVENT: shown_event(found, view, capabilities)}
    times |= shown_created(found, view, capabilities)
    values = {output: found[feature] for feature, output in part.outputs}
    return found.select(ROW, **times, **values)


def windows(keys: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return ``__row``, ``__event`` and all aggregates for each key; `part` is the whole view.

    ``__event`` is the instant of the answer; NULL for a key that has no visible row.
    """
    import ibis

    answers = fragment(keys, rows, part, capabilities, BY_JOIN)
    known = aggregate.seen(keys, rows, part, capabilities).mutate(**{FOUND: True})
    joined = keys.select(ROW, TIME).left_join(known, ROW, rname="{name}__right")
    never = ibis.null(capabilities.instant_type)
    told = joined.select(ROW, **{EVENT: joined[FOUND].isnull().ifelse(never, joined[TIME])})
    return told.inner_join(answers, ROW, rname="{name}__right").select(
        ROW, EVENT, *part.view.feature_names
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

    part = whole_view(view, late_data)
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
        whole = counting_at(source, part, at, capabilities)
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
    source = counting_at(rows, part, at, capabilities)
    if view.is_aggregate:
        found = windows_at(source, rows, part, at, capabilities)
        return found.select(*view.join_keys, *view.feature_names)
    winners = winners_of(source, view, capabilities).mutate(**{TIME: at})
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


def counting_at(rows: ir.Table, part: Part, at: ir.Value, capabilities: Capabilities) -> ir.Table:
    """Return the rows that count at an instant, as :func:`whole_rows` gives them."""
    view = part.view
    whole = whole_rows(rows, part, capabilities)
    if view.event_timestamp:
        whole = whole.filter(whole[AT] <= bound(at, part, capabilities))
    if view.valid_to:
        ends = capabilities.shift(at, -microseconds(view.availability_delay))
        whole = whole.filter(ends < whole[UNTIL])
    return whole


def winners_of(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> ir.Table:
    """Return the winner of each key among rows; the newest event is found by keys and times alone.

    `rows` are as :func:`whole_rows` gives them.
    """
    import ibis

    keys = key_names(view)
    order = newest_first
    if view.event_timestamp and keys:
        newest = rows.group_by(keys).aggregate(**{_NEWEST: rows[EVENT].max()})
        on = [*((rows[key] == newest[key]) for key in keys), rows[EVENT] == newest[_NEWEST]]
        rows = rows.semi_join(newest, on)
        order = tie_order
    rank = ibis.row_number().over(
        group_by=[rows[key] for key in keys] or None, order_by=order(rows, view, capabilities)
    )
    ranked = rows.mutate(**{_RANK: rank})
    return ranked.filter(ranked[_RANK] == 0)


def windows_at(
    known: ir.Table, rows: ir.Table, part: Part, at: ir.Value, capabilities: Capabilities
) -> ir.Table:
    """Return the join keys in some rows, each once, with all aggregates at one instant.

    Parameters
    ----------
    known
        Rows whose keys are wanted.
    rows
        All rows of the view.
    """
    import ibis

    keys = list(part.view.join_keys)
    each = known.select(*keys, __one=ibis.literal(1)).distinct()
    number = ibis.row_number().over(order_by=[*keys, "__one"])
    spine = each.mutate(**{ROW: number, TIME: at})
    answers = fragment(spine, rows, part, capabilities, BY_JOIN)
    return spine.inner_join(answers, ROW, rname="{name}__right")
