"""Latest values by the engine's own ASOF join."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.plan import Part
from virtualfs.compiler.rows import (
    AT,
    ROW,
    TIME,
    bound,
    key_names,
    same_keys,
    spine_keys,
    visible_at,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["matched"]

_BOUND = "__bound"


def matched(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities, *, reduce: bool
) -> ir.Table:
    """Return each spine row with the ``__at`` of its winner.

    Only keys and times go through the join: sorting them is a third of the cost of sorting whole
    rows, and the rows wanted are fetched by equality afterwards (docs/adr/0002).

    Parameters
    ----------
    reduce
        Whether source rows of keys that the spine does not have are left out first.
    """
    import ibis

    left = spine.select(ROW, TIME, **spine_keys(spine, part))
    left = left.mutate(**{_BOUND: bound(left[TIME], part, capabilities)})
    right = visible_at(rows, part, capabilities)
    if reduce and part.view.join_keys:
        right = right.semi_join(left, same_keys(right, left, part.view))
    equal = same_keys(left, right, part.view)
    joined = left.asof_join(right, left[_BOUND] >= right[AT], equal, rname="{name}__right")
    keys = key_names(part.view)
    found = joined.select(ROW, TIME, _BOUND, *keys, AT)
    # Some engines let a NULL instant match the newest row.
    at = found[_BOUND].notnull().ifelse(found[AT], ibis.null(found[AT].type()))
    return found.select(ROW, TIME, *keys, **{AT: at})
