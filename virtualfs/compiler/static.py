"""Views without times: one row per key, by one equality join."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.plan import Part
from virtualfs.compiler.rows import (
    ROW,
    TIME,
    key_names,
    newest_first,
    same_keys,
    spine_keys,
    whole_rows,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["winners"]

_RANK = "__rank"


def winners(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities, *, unique: bool
) -> ir.Table:
    """Return the winners; of several rows of one key the greatest hash wins (rule 3)."""
    import ibis

    view = part.view
    whole = whole_rows(rows, part, capabilities)
    if not unique:
        keys = [whole[name] for name in key_names(view)]
        rank = ibis.row_number().over(
            group_by=keys or None, order_by=newest_first(whole, view, capabilities)
        )
        whole = whole.mutate(**{_RANK: rank})
        whole = whole.filter(whole[_RANK] == 0).drop(_RANK)
    # A constant key makes the join of a view without entities an equality join too.
    whole = whole.mutate(__one=ibis.literal(1))
    left = spine.select(ROW, TIME, **spine_keys(spine, part), __one=ibis.literal(1))
    equal = [*same_keys(left, whole, view), left["__one"] == whole["__one"]]
    return left.left_join(whole, equal, rname="{name}__right")
