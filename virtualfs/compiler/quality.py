"""Questions about data as SQL: what breaks a view's assumptions, and why a value is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import aggregate, sql
from virtualfs.compiler.plan import Part, ResolvedView
from virtualfs.compiler.program import bind_rows, rows_relation
from virtualfs.compiler.rows import (
    EVENT,
    FOUND,
    ROW,
    TIME,
    UNTIL,
    bound,
    created_of,
    event_of,
    key_names,
    same_keys,
    spine_keys,
    whole_rows,
    young,
)
from virtualfs.compiler.strategy import fragment, winners
from virtualfs.compiler.time_range import misplaced_rows

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["COUNT", "REASONS", "broken", "counted", "reasons", "sampled"]

COUNT = "__count"
_REASON = "__reason"
_RANK = "__rank"
_NULLS = "__nulls_"
REASONS = (
    "present",
    "NULL key or instant",
    "no such key",
    "only later rows",
    "not yet known",
    "not valid then",
    "over the TTL",
)
"""Why a spine row has, or lacks, a winner; told apart in this order, but for the last."""


def broken(
    view: ResolvedView, now: datetime, capabilities: Capabilities
) -> dict[str, tuple[str, ir.Table, ResolvedView]]:
    """Return, by kind of finding, what it means, the rows that it is about, and of which view."""
    found = {
        kind: (meaning, rows, view)
        for kind, (meaning, rows) in _broken_rows(view, now, capabilities).items()
    }
    elsewhere = misplaced_rows(view, capabilities)
    if elsewhere is not None:
        found["misplaced"] = (
            "rows in folders of another time are not read when they should be: set partitions= "
            "right, or move them",
            rows_relation(view),
            view.model_copy(update={"rows_sql": elsewhere}),
        )
    return found


def _broken_rows(
    view: ResolvedView, now: datetime, capabilities: Capabilities
) -> dict[str, tuple[str, ir.Table]]:
    import ibis

    rows = rows_relation(view)
    keys = [rows[key] for key in view.join_keys]
    found: dict[str, tuple[str, ir.Table]] = {}
    if keys:
        found["null_keys"] = (
            "rows with a NULL join key never match",
            rows.filter(reduce(or_, [key.isnull() for key in keys])),
        )
    group = list(view.join_keys)
    if view.event_timestamp:
        event = event_of(rows, view, capabilities)
        found["null_times"] = (
            "rows without a readable event timestamp never match",
            rows.filter(event.isnull()),
        )
        found["future_times"] = (
            "rows of the future are invisible until then",
            rows.filter(event > capabilities.literal_instant(now)),
        )
        rows = rows.mutate(**{EVENT: event})
        group.append(EVENT)
    if view.created_timestamp:
        found["null_created"] = (
            'rows without a created timestamp are never known under late_data="exclude"',
            rows.filter(rows[view.created_timestamp].isnull()),
        )
        rows = rows.mutate(__created=created_of(rows, view, capabilities))
        group.append("__created")
    ties = ibis.window(group_by=group) if group else ibis.window()
    tied = rows.mutate(**{COUNT: rows.count().over(ties)})
    never = [*view.join_keys, *([EVENT] if view.event_timestamp else [])]  # match nothing
    kept = tied.filter([tied[COUNT] > 1, *(tied[name].notnull() for name in never)])
    what = "keys and event timestamp" if view.event_timestamp else "keys"
    also = " and created timestamp" if view.created_timestamp else ""
    if view.is_aggregate:  # of which each counts
        return found
    found["ties"] = (
        f"rows with equal {what}{also}: a hash picks one of them",
        kept.select(*view.columns),
    )
    if view.valid_to:
        found |= _broken_validity(view, capabilities)
    return found


def _broken_validity(
    view: ResolvedView, capabilities: Capabilities
) -> dict[str, tuple[str, ir.Table]]:
    part = Part(view, tuple(view.join_keys), ())
    whole = whole_rows(rows_relation(view), part, capabilities)
    keys = [whole[name] for name in key_names(view)]
    ordered = whole.mutate(
        __next=whole[EVENT].lead().over(group_by=keys or None, order_by=whole[EVENT])
    )
    return {
        "empty_validity": (
            "rows that end before they begin are never valid",
            whole.filter(whole[UNTIL] <= whole[EVENT]).select(*view.columns),
        ),
        "overlaps": (
            "rows still valid when the next of their key begins: the later one wins",
            ordered.filter(ordered[UNTIL] > ordered["__next"]).select(*view.columns),
        ),
    }


def counted(table: ir.Table, view: ResolvedView, capabilities: Capabilities) -> str:
    """Return the SELECT of how many rows a finding has."""
    return _text(table.aggregate(**{COUNT: table.count()}), view, capabilities)


def shown_columns(view: ResolvedView) -> dict[str, str]:
    """Return the columns that a finding's samples show, with their types: keys and times."""
    times = (view.event_timestamp, view.created_timestamp, view.valid_to)
    names = [*dict.fromkeys([*view.join_keys, *filter(None, times)])] or list(view.columns)[:4]
    return {name: view.columns[name] for name in names}


def sampled(table: ir.Table, view: ResolvedView, capabilities: Capabilities, rows: int) -> str:
    """Return the SELECT of some of a finding's rows."""
    return _text(table.select(*shown_columns(view)).limit(rows), view, capabilities)


def reasons(
    spine: ir.Table, part: Part, capabilities: Capabilities, samples: int
) -> tuple[str, str]:
    """Return two SELECTs over a spine's table: counts by reason, and some rows of each.

    The first gives ``__reason``, ``__count`` and per output ``__nulls_N``, the NULLs in rows that
    are present; the second ``__reason``, ``__row``, the instant and the keys.
    """
    import ibis

    view = part.view
    rows = rows_relation(view)
    found = _answers(spine, rows, part, capabilities)
    values = {
        f"__value_{n}": found[output if view.is_aggregate else feature]
        for n, (feature, output) in enumerate(part.outputs)
    }
    fresh = young(found, part, capabilities)
    expired = found[FOUND].isnull() if fresh is None else ~fresh
    marked = found.select(ROW, **values, __found=found[FOUND], __expired=expired)
    # Every row of the key counts here, known at the instant or not.
    anyway = replace(part, late_data="include")
    whole = whole_rows(rows, anyway, capabilities)
    names = key_names(view)
    known = {"__first": whole[EVENT].min(), "__rows": whole.count()}
    firsts = whole.group_by(names).aggregate(**known) if names else whole.aggregate(**known)
    left = spine.select(ROW, TIME, **spine_keys(spine, part))
    joined = left.left_join(marked, left[ROW] == marked[ROW], rname="{name}__right")
    joined = joined.select(ROW, TIME, *names, *values, "__found", "__expired")
    joined = joined.left_join(firsts, same_keys(joined, firsts, view) or [True], rname="{name}__r")
    joined = joined.select(ROW, TIME, *names, *values, "__found", "__expired", "__first", "__rows")
    unasked = [joined[name].isnull() for name in names]
    if view.event_timestamp:
        unasked.append(joined[TIME].isnull())
    cases: list[tuple[ir.Value, str]] = []
    if fresh is not None:
        cases.append((joined["__found"].notnull() & joined["__expired"], "over the TTL"))
    cases.append((joined["__found"].notnull(), "present"))
    if unasked:
        cases.append((reduce(or_, unasked), "NULL key or instant"))
    cases.append((joined["__rows"].isnull() | (joined["__rows"] == 0), "no such key"))
    if view.event_timestamp:
        late = joined["__first"] > bound(joined[TIME], anyway, capabilities)
        cases.append((late, "only later rows"))
    reason = ibis.cases(*cases, else_="not valid then" if view.valid_to else "not yet known")
    told = joined.mutate(**{_REASON: reason})
    present = told[_REASON] == "present"
    nulls = {
        f"{_NULLS}{number}": (present & told[name].isnull()).ifelse(1, 0).sum().cast("int64")
        for number, name in enumerate(values)
    }
    counts = told.group_by(_REASON).aggregate(**{COUNT: told.count(), **nulls})
    rank = ibis.row_number().over(group_by=told[_REASON], order_by=told[ROW])
    some = told.mutate(**{_RANK: rank})
    some = some.filter(some[_RANK] < samples).select(_REASON, ROW)
    return (
        _text(counts.order_by(_REASON), view, capabilities),
        _text(some.order_by([_REASON, ROW]), view, capabilities),
    )


def _answers(spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return ``__row``, ``__found`` and the values of each spine row."""
    import ibis

    if not part.view.is_aggregate:
        return winners(spine, rows, part, capabilities)
    answers = fragment(spine, rows, part, capabilities)
    known = aggregate.seen(spine, rows, part, capabilities).mutate(**{FOUND: ibis.literal(True)})
    return answers.left_join(known, ROW, rname="{name}__right")


def _text(table: ir.Table, view: ResolvedView, capabilities: Capabilities) -> str:
    return bind_rows(
        sql.text(sql.render(table, capabilities), capabilities.dialect), view, capabilities
    )
