"""Latest values, and windows, by one look into an index per spine row, with LATERAL.

Ibis has no lateral join, so the inner query is written with functions in the place of the spine's
columns, which are exchanged in the tree that it renders to.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import aggregate, sql
from virtualfs.compiler.plan import RESERVED, Part, ResolvedView
from virtualfs.compiler.rows import (
    EVENT,
    ROW,
    TIME,
    created_of,
    event_of,
    outputs_of,
    shown_created,
    shown_event,
    tie_order,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["can_seek", "compiled", "compiled_windows"]

_OUTER = "__outer_"
_TIME = TIME.removeprefix(RESERVED)
_SPINE = sql.reserved("outer")
_ANSWER = sql.reserved("answer")


@cache
def _outer(name: str, dtype: str) -> Any:
    import ibis

    def function() -> None: ...

    made = ibis.udf.scalar.builtin(
        function, name=f"{_OUTER}{name}", signature=((), ibis.dtype(dtype))
    )
    return made()


def can_seek(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> bool:
    """Tell whether an index on keys and event timestamp can serve this view on this engine."""
    if not capabilities.lateral_limit or view.event_timestamp is None or view.valid_to:
        return False
    time = _outer(_TIME, capabilities.instant_type)
    return capabilities.seek(rows[view.event_timestamp], view.timezone, time) is not None


def compiled(
    spine: ir.Table,
    rows: ir.Table,
    part: Part,
    capabilities: Capabilities,
    *,
    unique: bool = False,
    found_only: bool = False,
) -> exp.Select:
    """Return the SELECT of ``__row`` and the output columns over the spine's own name.

    Parameters
    ----------
    unique
        Whether no two rows share keys and event timestamp.
    found_only
        False gives every spine row its output columns. True gives what
        :func:`virtualfs.compiler.instant.lookup` does.
    """
    view = part.view
    time = _outer(_TIME, capabilities.instant_type)
    column = rows[view.event_timestamp]
    same = _same(rows, spine, part, capabilities)
    before = capabilities.seek(column, view.timezone, capabilities.shift(time, -view.lag))
    newest = rows.filter([*same, before]).order_by(column.desc()).limit(1)
    # The rows that stand at the latest time are looked up by it alone and ranked afterwards: an
    # order by more than the index has would make the engine fetch and rank dozens.
    winner = newest if unique else newest.order_by(tie_order(newest, view, capabilities)).limit(1)
    found = winner.mutate(**{EVENT: event_of(winner, view, capabilities), TIME: time, ROW: 0})
    if found_only:
        times = {EVENT: shown_event(found, view, capabilities)}
        times |= shown_created(found, view, capabilities)
        values = {output: found[feature] for feature, output in part.outputs}
        names = [*times, *values]
        inner = found.select(**times, **values)
    else:
        names = [output for _, output in part.outputs]
        inner = outputs_of(found, part, capabilities).select(names)

    tree = sql.render(inner, capabilities)
    _follow_the_index(tree, ties=not unique)
    return _lateral(tree, part, names, how="cross" if found_only else "left")


def compiled_windows(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities
) -> exp.Select:
    """Return the SELECT of ``__row`` and the output columns, aggregates over windows.

    The rows of the widest window are read once, for all aggregates.
    """
    view = part.view
    windows = aggregate.windows_of(part)

    def until(step: int, event: ir.Value) -> Any:
        name = f"{aggregate.BOUND}{step}".removeprefix(RESERVED)
        bound = _outer(name, capabilities.instant_type)
        return capabilities.seek(event, view.timezone, bound)

    same = _same(rows, spine, part, capabilities)
    event = view.event_timestamp
    widest = aggregate.widest_of(windows)
    held = aggregate.within(widest, None, lambda step: until(step, rows[event]))
    counted = aggregate.counted_rows(rows.filter([*same, held]), part, capabilities)

    def within(window: aggregate.Window) -> ir.Value:
        return aggregate.within(window, widest, lambda step: until(step, counted[event]))

    values = aggregate.values_of(counted, part, within, capabilities)
    found = counted.aggregate(**values)
    tree = sql.render(found.select(**aggregate.told(found, part)), capabilities)
    bounds = sql.render(aggregate.with_bounds(spine, windows, capabilities), capabilities)
    return _lateral(tree, part, [output for _, output in part.outputs], spine=bounds)


def _same(
    rows: ir.Table, spine: ir.Table, part: Part, capabilities: Capabilities
) -> list[ir.Value]:
    """Return the conditions on the rows of a spine row's keys that were written by its instant."""
    same = [
        rows[key] == _outer(f"key_{n}", sql.type_text(spine[spine_column]))
        for n, (key, spine_column) in enumerate(
            zip(part.view.join_keys, part.key_columns, strict=True)
        )
    ]
    if part.judges_arrival:
        time = _outer(_TIME, capabilities.instant_type)
        same.append(created_of(rows, part.view, capabilities) <= time)
    return same


def _lateral(
    tree: exp.Expr,
    part: Part,
    names: Sequence[str],
    *,
    how: str = "left",
    spine: exp.Expr | None = None,
) -> exp.Select:
    """Return ``__row`` and some columns of what a query finds for each spine row.

    The spine is read in the order of the index, so that neighbours in it read neighbours there.
    """
    # Any name may be a column's, but not a function's.
    stands_for = {f"key_{n}": name for n, name in enumerate(part.key_columns)}

    def outer_column(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Anonymous) or not node.name.startswith(_OUTER):
            return node
        name = node.name.removeprefix(_OUTER)
        return exp.column(
            sql.identifier(stands_for.get(name, RESERVED + name)), _SPINE, quoted=True
        )

    place = [sql.column(name) for name in (*part.key_columns, TIME)]
    source = sql.subquery(spine, "bounds") if spine else exp.Table(this=sql.identifier(sql.SPINE))
    sorted_spine = exp.select("*").from_(source).order_by(*place)
    select = exp.select(exp.column(sql.identifier(ROW), _SPINE, quoted=True)).from_(
        sql.subquery(sorted_spine, "outer")
    )
    for name in names:
        select = select.select(exp.column(sql.identifier(name), _ANSWER, quoted=True))
    alias = exp.TableAlias(this=sql.identifier(_ANSWER))
    side = exp.Lateral(this=exp.Subquery(this=tree.transform(outer_column)), alias=alias)
    on = None if how == "cross" else exp.true()
    return select.join(side, join_type=how, on=on)


def _follow_the_index(tree: exp.Expr, *, ties: bool) -> None:
    """Have the look-up read the index alone: no NULLS LAST, which none serves, and rows that tie.

    The event of rows that are looked up is never NULL.
    """
    *_, select = (node for node in tree.find_all(exp.Select) if node.args.get("order"))
    select.args["order"].expressions[0].set("nulls_first", True)
    if ties:
        select.set("limit", exp.Fetch(
            direction="FIRST", count=exp.Literal.number(1),
            limit_options=exp.LimitOptions(rows=True, with_ties=True),
        ))  # fmt: skip
