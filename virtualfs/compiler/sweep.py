"""Latest values by one sweep over times: for any engine that has window functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.plan import Part
from virtualfs.compiler.rows import (
    AT,
    ROW,
    TIME,
    bound,
    common_key_types,
    key_names,
    keys_of,
    same_keys,
    visible_at,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["matched"]

_POSITION = "__position"
_SIDE = "__side"


def matched(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities, *, reduce: bool
) -> ir.Table:
    """Return each spine row with the ``__at`` of its winner.

    1. The times of the source and of the spine stand in one relation, key by key, in order, rows
       before spine rows at equal times (``at <= bound`` counts).
    2. The greatest ``__at`` so far is the winner's.
    3. Only the spine's rows are kept. A NULL instant has no place in time, so no winner.

    Parameters
    ----------
    reduce
        Whether source rows of keys that the spine does not have are left out first.
    """
    import ibis

    view = part.view
    seen = visible_at(rows, part, capabilities)
    names = key_names(view)
    if reduce and names:
        wanted = spine.select(**keys_of(spine, part.key_columns))
        seen = seen.semi_join(wanted, same_keys(seen, wanted, view))
    types = common_key_types(seen, spine, part)
    instant = capabilities.instant_type
    source = seen.select(
        **keys_of(seen, names, types),
        **{
            _POSITION: seen[AT],
            AT: seen[AT],
            _SIDE: ibis.literal(0, "int8"),
            ROW: ibis.null("int64"),
            TIME: ibis.null(instant),
        },
    )
    asked = spine.select(
        **keys_of(spine, part.key_columns, types),
        **{
            _POSITION: bound(spine[TIME], part, capabilities),
            AT: ibis.null(instant),
            _SIDE: ibis.literal(1, "int8"),
            ROW: spine[ROW],
            TIME: spine[TIME],
        },
    )
    both = source.union(asked)
    last = both[AT].max().over(
        group_by=[both[name] for name in names] or None,
        order_by=[both[_POSITION], both[_SIDE]],
        rows=(None, 0),
    )  # fmt: skip
    swept = both.select(*names, _POSITION, _SIDE, ROW, TIME, __last=last)
    kept = swept.filter(swept[_SIDE] == 1)
    at = kept[_POSITION].notnull().ifelse(kept["__last"], ibis.null(instant))
    return kept.select(ROW, TIME, *names, **{AT: at})
