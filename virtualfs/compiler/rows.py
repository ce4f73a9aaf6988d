"""What every strategy of latest values stands on: a view's rows and a spine in fixed columns.

The rules, with ``t`` the spine row's instant:

* rule 2: a row is visible if ``event + delay <= t`` (or ``< t``), so if ``event <= t - lag``
  (see :attr:`ResolvedView.lag`); the spine's side is shifted, the source's columns stay bare;
* rule 7: with ``late_data="exclude"`` it must also have ``created <= t``;
* rule 3: of the visible rows with equal keys the greatest (event, created, hash of the row) wins,
  a NULL created timestamp being lowest;
* rule 4: a winner with ``event < t - ttl`` gives NULLs, and no older row takes its place;
* rule 5: the winner is taken whole;
* rule 8: NULL keys and NULL times match nothing;
* rule 10: an SCD2 row is visible if ``valid_from + delay <= t < valid_to + delay``.

A spine relation has ``__row`` (int64), ``__time`` (instant) and key columns; a rows relation is
what :attr:`ResolvedView.rows_sql` selects. A strategy returns *winners*: for every spine row one
row of ``__row``, ``__time``, ``__event``, ``__found`` and all columns of the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.plan import Part, ResolvedView
from virtualfs.definitions.duration import microseconds

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = [
    "AT",
    "CREATED",
    "EVENT",
    "FOUND",
    "ROW",
    "TIME",
    "UNTIL",
    "bound",
    "common_key_types",
    "created_of",
    "event_of",
    "hashed_columns",
    "key_names",
    "keys_of",
    "newest_first",
    "outputs_of",
    "pick",
    "same_keys",
    "shown_created",
    "shown_event",
    "spine_keys",
    "tie_order",
    "visible_at",
    "whole_rows",
    "young",
]

ROW = "__row"
TIME = "__time"
EVENT = "__event"
AT = "__at"
"""The instant from which on a row counts."""
UNTIL = "__until"
"""The instant from which on an SCD2 row no longer counts, the delay not added."""
FOUND = "__found"
"""True where there is a winner, NULL where there is none."""
CREATED = "__created"
_RANK = "__rank"
_FIRST, _FOREVER = datetime(1, 1, 1), datetime(9999, 12, 31)


def bound(time: ir.Value, part: Part, capabilities: Capabilities) -> ir.Value:
    """Return the greatest ``__at`` that counts at a spine row's instant."""
    if part.judges_arrival:
        return time  # the lag is in the rows' __at, beside the created timestamp
    return capabilities.shift(time, -part.view.lag)


def event_of(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> ir.Value:
    """Return the rows' event timestamps as instants; NULL for a static view."""
    import ibis

    if view.event_timestamp is None:
        return ibis.null(capabilities.instant_type)
    return capabilities.instant(rows[view.event_timestamp], view.timezone, "up")


def shown_event(found: ir.Table, view: ResolvedView, capabilities: Capabilities) -> ir.Value:
    """Return the winners' events as they are reported: since for ever is since the year 1."""
    event = found[EVENT]
    if view.event_timestamp is None:
        return event
    first = capabilities.literal_instant(_FIRST)
    return (event < first).ifelse(first, event)


def shown_created(
    found: ir.Table, view: ResolvedView, capabilities: Capabilities
) -> dict[str, ir.Value]:
    """Return the winners' created timestamps, where the view has such a time, within 1 to 9999."""
    import ibis

    if view.created_timestamp is None:
        return {}
    created = created_of(found, view, capabilities)
    first, last = (capabilities.literal_instant(end) for end in (_FIRST, _FOREVER))
    return {CREATED: ibis.cases((created < first, first), (created > last, last), else_=created)}


def created_of(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> ir.Value:
    """Return the created timestamps as instants, so that every strategy ranks ties alike."""
    return capabilities.instant(rows[view.created_timestamp], view.timezone, "up")


def key_names(view: ResolvedView) -> list[str]:
    """Return the columns that hold a view's join keys, under names that no other column has."""
    return [f"__key_{number}" for number in range(len(view.join_keys))]


def keys_of(
    table: ir.Table, columns: Sequence[str], types: Sequence[str] | None = None
) -> dict[str, ir.Value]:
    """Return key columns under names that no other column has, perhaps cast to given types."""
    import ibis

    found = {f"__key_{number}": table[column] for number, column in enumerate(columns)}
    if types is not None:
        for (name, value), dtype in zip(found.items(), types, strict=True):
            if value.type().copy(nullable=True) != ibis.dtype(dtype):
                found[name] = value.cast(dtype)
    return found


def common_key_types(rows: ir.Table, spine: ir.Table, part: Part) -> list[str]:
    """Return the types that the keys of rows and of a spine both fit, to stand in one relation."""
    import ibis.expr.datatypes as dt

    return [
        str(dt.highest_precedence([rows[f"__key_{number}"].type(), spine[column].type()])).lstrip(
            "!"
        )
        for number, column in enumerate(part.key_columns)
    ]


def spine_keys(spine: ir.Table, part: Part) -> dict[str, ir.Value]:
    """Return a spine's key columns in the view's order."""
    return keys_of(spine, part.key_columns)


def same_keys(left: ir.Table, right: ir.Table, view: ResolvedView) -> list[ir.Value]:
    """Return the conditions that the keys are equal, column by column (rule 8)."""
    names = key_names(view)
    return [left[name] == right[name] for name in names]


def whole_rows(rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return the rows with keys, ``__event``, ``__at`` and all columns of the view.

    Rows that can never match, for a NULL key or time, are left out: some engines' joins let NULL
    equal NULL.
    """
    import ibis

    view = part.view
    event = event_of(rows, view, capabilities)
    made: dict[str, ir.Value] = {**keys_of(rows, tuple(view.join_keys)), EVENT: event, AT: event}
    if view.created_timestamp:
        made[CREATED] = created_of(rows, view, capabilities)
    if part.judges_arrival:
        later = capabilities.shift(event, view.lag)
        made[AT] = (later > made[CREATED]).ifelse(later, made[CREATED])
    if view.valid_to:
        until = capabilities.instant(rows[view.valid_to], view.timezone, "up")
        made[UNTIL] = ibis.coalesce(until, capabilities.literal_instant(_FOREVER))
    named = rows.select(*view.columns, **made, **{FOUND: ibis.literal(True)})
    never = key_names(view)
    if view.event_timestamp:
        never += [EVENT, *([CREATED] if part.judges_arrival else [])]
    return named.filter([named[name].notnull() for name in never]) if never else named


def visible_at(rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return the keys and ``__at`` of the rows, with the winner at t standing at the last one <= t.

    With ``late_data="exclude"`` a row that is written after a newer one never wins; only rows that
    are the newest known when they appear are kept. Equal event timestamps stay: among them
    appearance goes with the created timestamp.
    """
    whole = whole_rows(rows, part, capabilities)
    keys = key_names(part.view)
    if part.judges_arrival:
        import ibis

        newest = whole[EVENT].max().over(
            group_by=[whole[name] for name in keys] or None,
            order_by=[whole[AT].asc(), whole[EVENT].desc()],
            rows=(None, 0),
        )  # fmt: skip
        whole = whole.select(*keys, AT, EVENT, __newest=newest)
        whole = whole.filter(ibis._[EVENT] >= ibis._["__newest"])
    return whole.select(*keys, AT)


def pick(
    matched: ir.Table,
    rows: ir.Table,
    part: Part,
    capabilities: Capabilities,
    *,
    unique: bool = False,
) -> ir.Table:
    """Return the winners, given the ``__at`` at which each spine row's winner stands.

    Parameters
    ----------
    matched
        ``__row``, ``__time``, keys and ``__at``, the last NULL where nothing is visible.
    unique
        Whether no two rows share keys and event timestamp, so that there is nothing to rank.
    """
    whole = whole_rows(rows, part, capabilities)
    equal = [*same_keys(matched, whole, part.view), matched[AT] == whole[AT]]
    joined = matched.left_join(whole, equal, rname="{name}__right")
    if unique and not part.judges_arrival:
        return joined
    # Rows that stand at one instant have one event timestamp, unless the created one moved them.
    return _first_per_row(joined, part.view, capabilities, one_event=not part.judges_arrival)


def valid_rows(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities, how: str = "left"
) -> ir.Table:
    """Return the winners by one join on keys and times, for SCD2 rows and for few spine rows."""
    view = part.view
    whole = whole_rows(rows, part, capabilities)
    left = spine.select(ROW, TIME, **spine_keys(spine, part))
    visible = same_keys(left, whole, view)
    if view.event_timestamp:
        visible.append(whole[AT] <= bound(left[TIME], part, capabilities))
    if view.valid_to:
        ends = capabilities.shift(left[TIME], -microseconds(view.availability_delay))
        visible.append(ends < whole[UNTIL])
    joined = left.join(whole, visible or [True], how=how, rname="{name}__right")
    return _first_per_row(joined, view, capabilities, one_event=False)


def tie_order(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> list[Any]:
    """Return the order among rows of one event timestamp, the winner first (rule 3)."""
    import ibis

    order: list[Any] = []
    if view.created_timestamp:
        created = rows[CREATED] if CREATED in rows.columns else created_of(rows, view, capabilities)
        order.append(ibis.desc(created, nulls_first=False))
    order.append(capabilities.row_hash([rows[name] for name in hashed_columns(view)]).desc())
    return order


def hashed_columns(view: ResolvedView) -> list[str]:
    """Return the columns that tell tied rows apart: those that are not keys, which are equal."""
    return [name for name in view.columns if name not in view.join_keys] or [*view.columns]


def newest_first(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> list[Any]:
    """Return the order of rule 3 over rows that have ``__event``, the winner first."""
    event = [rows[EVENT].desc()] if view.event_timestamp else []
    return [*event, *tie_order(rows, view, capabilities)]


def _first_per_row(
    joined: ir.Table, view: ResolvedView, capabilities: Capabilities, *, one_event: bool
) -> ir.Table:
    import ibis

    ordering = tie_order if one_event else newest_first
    order = ordering(joined, view, capabilities)
    rank = ibis.row_number().over(group_by=joined[ROW], order_by=order)
    ranked = joined.select(ROW, TIME, EVENT, FOUND, *view.columns, **{_RANK: rank})
    return ranked.filter(ranked[_RANK] == 0)


def young(winners: ir.Table, part: Part, capabilities: Capabilities) -> ir.Value | None:
    """Return the condition of rule 4, that the winner is within its TTL; None without one."""
    if part.view.ttl is None:
        return None
    return winners[EVENT] >= capabilities.shift(winners[TIME], -microseconds(part.view.ttl))


def outputs_of(winners: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return ``__row`` and the output columns: the winners' features, NULL beyond the TTL."""
    import ibis

    counts = young(winners, part, capabilities)
    values = {}
    for feature, output in part.outputs:
        value = winners[feature]
        values[output] = value if counts is None else counts.ifelse(value, ibis.null(value.type()))
    return winners.select(ROW, **values)
