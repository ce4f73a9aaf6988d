"""Aggregate functions: what each takes, and of what type it answers, the same on all warehouses.

================================  =========================  ==================================
function                          takes                      gives
================================  =========================  ==================================
count, count_distinct, approx_*   anything that compares     int64, never NULL
sum                               integers, booleans         int64; overflow raises
sum                               decimals (p, s)            decimal(38, s)
sum                               floats                     float64
mean, std, var                    numbers, booleans          float64
quantile, median                  numbers                    float64, linearly interpolated
min, max                          what has an order          the input's type
first, last                       anything                   the input's type
first, last with ``n``            anything                   array of the input's type
================================  =========================  ==================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtualfs.definitions.aggregate import COUNTS, Aggregate
from virtualfs.errors import DefinitionError

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt

__all__ = ["result_type"]

_ORDERED = ("numeric", "string", "date", "time", "timestamp", "interval")


def result_type(aggregate: Aggregate, found: dt.DataType | None, where: str) -> str:
    """Return the type of an aggregate's answers.

    Parameters
    ----------
    found
        Type of the column; None where rows are counted.

    Raises
    ------
    DefinitionError
        The function does not take such a column.
    """
    function = aggregate.function
    if function == "count" or found is None:
        return "int64"
    what = f"{where}: {function} of {aggregate.column!r}, which is {found}"
    if function in COUNTS:
        if found.is_nested() or found.is_json():
            raise DefinitionError(f"{what}; only values that compare can be told apart")
        return "int64"
    if function in ("first", "last"):
        value = str(found).lstrip("!")
        return f"array<{value}>" if aggregate.n else value
    if function in ("min", "max"):
        if found.is_boolean() or not any(getattr(found, f"is_{kind}")() for kind in _ORDERED):
            hint = "; of booleans take sum or mean" if found.is_boolean() else ""
            raise DefinitionError(f"{what}, has no order{hint}")
        return str(found).lstrip("!")
    takes_boolean = function not in ("quantile", "median")
    if not (found.is_numeric() or (found.is_boolean() and takes_boolean)):
        raise DefinitionError(f"{what}; it takes numbers, so convert the column in a query= source")
    if function == "sum" and (found.is_integer() or found.is_boolean()):
        return "int64"
    if function == "sum" and found.is_decimal():
        return "decimal" if found.scale is None else f"decimal(38, {found.scale})"
    return "float64"
