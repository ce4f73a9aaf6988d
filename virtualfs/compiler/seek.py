"""Latest values by one look into an index per spine row, with LATERAL.

Ibis has no lateral join, so the inner query is written with functions in the place of the spine's
columns, which are exchanged in the tree that it renders to.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.plan import Part, ResolvedView
from virtualfs.compiler.rows import (
    EVENT,
    ROW,
    TIME,
    created_of,
    event_of,
    outputs_of,
    shown_event,
    tie_order,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["can_seek", "compiled"]

_OUTER = "__outer_"
_SPINE = "spine"
_ANSWER = "answer"


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
    time = _outer(TIME, capabilities.instant_type)
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

    The spine is read in the order of the index, so that neighbours in it read neighbours there.

    Parameters
    ----------
    unique
        Whether no two rows share keys and event timestamp.
    found_only
        False gives every spine row its output columns. True gives ``__row``, ``__event`` and all
        features, whatever their age, of those that have a winner.
    """
    view = part.view
    time = _outer(TIME, capabilities.instant_type)
    column = rows[view.event_timestamp]
    # Any name may be a column's, but not a function's.
    stands_for = {f"key_{n}": name for n, name in enumerate(part.key_columns)} | {TIME: TIME}
    same = [
        rows[key] == _outer(f"key_{n}", sql.type_text(spine[spine_column]))
        for n, (key, spine_column) in enumerate(zip(view.join_keys, part.key_columns, strict=True))
    ]
    if part.judges_arrival:
        same.append(created_of(rows, view, capabilities) <= time)
    before = capabilities.seek(column, view.timezone, capabilities.shift(time, -view.lag))
    newest = rows.filter([*same, before]).order_by(column.desc()).limit(1)
    # The rows that stand at the latest time are looked up by it alone and ranked afterwards: an
    # order by more than the index has would make the engine fetch and rank dozens.
    winner = newest if unique else newest.order_by(tie_order(newest, view, capabilities)).limit(1)
    found = winner.mutate(**{EVENT: event_of(winner, view, capabilities), TIME: time, ROW: 0})
    if found_only:
        names = [EVENT, *view.feature_names]
        features = {name: found[name] for name in view.feature_names}
        inner = found.select(**{EVENT: shown_event(found, view, capabilities)}, **features)
    else:
        names = [output for _, output in part.outputs]
        inner = outputs_of(found, part, capabilities).select(names)

    def outer_column(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Anonymous) or not node.name.startswith(_OUTER):
            return node
        name = stands_for[node.name.removeprefix(_OUTER)]
        return exp.column(sql.identifier(name), _SPINE, quoted=True)

    tree: exp.Expr = sql.render(inner, capabilities).transform(outer_column)
    _follow_the_index(tree, ties=not unique)
    place = [exp.column(sql.identifier(name)) for name in (*part.key_columns, TIME)]
    table = exp.Table(this=sql.identifier(sql.SPINE))
    sorted_spine = exp.select("*").from_(table).order_by(*place)
    select = exp.select(exp.column(sql.identifier(ROW), _SPINE, quoted=True)).from_(
        sql.subquery(sorted_spine, _SPINE)
    )
    for name in names:
        select = select.select(exp.column(sql.identifier(name), _ANSWER, quoted=True))
    alias = exp.TableAlias(this=sql.identifier(_ANSWER))
    side = exp.Lateral(this=exp.Subquery(this=tree), alias=alias)
    if found_only:
        return select.join(side, join_type="cross")
    return select.join(side, join_type="left", on=exp.true())


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
