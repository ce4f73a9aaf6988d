"""Counts, sums and means over windows by exact prefix sums, in one sweep over events and instants.

A window's sum is the sum of everything before its end less that before its beginning, so the cost
is one sort, whatever the windows' lengths. That is only right where nothing is lost on the way:

* integers and decimals are summed as decimals of 38 digits, which hold any sum of 10^18 of them;
* floats are brought to whole numbers by one power of two for all rows and summed likewise. One that
  is too large, too small or no finite number for that stays out and is counted as odd; a spine row
  whose windows hold an odd one is answered by the join on range instead.

So one value of 1e15 a month ago does not touch this hour's mean, and an infinity touches only the
windows that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.aggregate import (
    Window,
    aggregates_of,
    as_number,
    joined_over_range,
    steps_of,
    window_of,
    windows_of,
)
from virtualfs.compiler.plan import Part, ResolvedAggregate, ResolvedView
from virtualfs.compiler.rows import (
    CREATED,
    EVENT,
    ROW,
    TIME,
    common_key_types,
    key_names,
    keys_of,
    whole_rows,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["boundaries", "can_sum", "swept"]

_POSITION = "__position"
_SIDE = "__side"
_STEP = "__step"
_FUNCTIONS = ("count", "sum", "mean")
_SPREADS = ("std", "var")
_DIGITS = 28
"""Digits of decimals of which 10^10 can be summed in 38."""
_SQUARED_DIGITS = 9
"""Digits of decimals of which 10^10 can be summed and the sum squared in 38."""
_BITS = 99
"""Bits of the whole numbers that floats become: 2^27 of them sum to less than 38 digits hold."""
_ODD = 2**32
"""What an odd float adds to a count: more than there are others."""
_MIDDLE = 75
"""Bits that a float of the usual size has as a whole number: 52 of its own and 23 to spare."""


def can_sum(aggregate: ResolvedAggregate, view: ResolvedView, capabilities: Capabilities) -> bool:
    """Tell whether an aggregate can be had by exact prefix sums."""
    import ibis

    if aggregate.function == "count":
        return True
    if aggregate.function not in (*_FUNCTIONS, *_SPREADS):
        return False
    dtype = ibis.dtype(view.columns[aggregate.input or ""])
    if aggregate.function in _SPREADS:
        # Their squares must be summed without loss too, of 10^10 of them.
        if dtype.is_integer():
            return bool(dtype.nbytes < 8)
        return bool(
            dtype.is_boolean()
            or (dtype.is_decimal() and dtype.precision and dtype.precision <= _SQUARED_DIGITS)
        )
    if dtype.is_floating():
        return capabilities.exact is not None
    return not dtype.is_decimal() or dtype.precision is None or dtype.precision <= _DIGITS


def boundaries(part: Part) -> list[int]:
    """Return how many microseconds before an instant some window begins or ends."""
    return steps_of(windows_of(part))


def swept(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities, scaled: ir.Table
) -> ir.Table:
    """Return ``__row`` and the features' values for the spine rows that have keys and an instant.

    1. Events and the boundaries of every spine row's windows stand in one relation, key by key, in
       the order of time, events before boundaries where they are equal.
    2. Running sums are taken over it, and read at the boundaries.
    3. What a window holds is the difference of two.

    With ``late_data="exclude"`` an event must also have been written: it then stands, for each
    boundary anew, where it has both happened and been written, and boundaries stand at the instant.

    Parameters
    ----------
    scaled
        The view's rows again, under another name, to find the scale of floats by.
    """
    view = part.view
    asked = aggregates_of(part)
    steps = boundaries(part)
    inputs = [*dict.fromkeys(aggregate.input for aggregate in asked.values())]
    summed = {found.input for found in asked.values() if found.function != "count"}
    squared = {found.input for found in asked.values() if found.function in _SPREADS}
    columns = {
        name: _Column(number, name, view, summed=name in summed, squared=name in squared)
        for number, name in enumerate(inputs)
    }
    running = _running(spine, rows, part, capabilities, steps, [*columns.values()], scaled)
    read = {
        f"{name}_{step}": running[name].max(where=running[_STEP] == step)
        for column in columns.values()
        for name in column.names
        for step in steps
    }
    found = running.group_by(ROW).aggregate(**read)
    odd: list[ir.Value] = []
    values = {}
    for name, aggregate in asked.items():
        column, window = columns[aggregate.input], window_of(aggregate, view)
        count = _between(found, column.count, window)
        values[name] = count % _ODD + count // _ODD if column.is_float else count
        if aggregate.function != "count":
            total = _between(found, column.total, window)
            if column.is_float:
                odd.append(count >= _ODD)
                total = total.cast("float64") / _scale(scaled, column.input)
            if aggregate.function in _SPREADS:
                square = _between(found, column.square, window)
                values[name] = _spread(count, total, square, aggregate.function)
                continue
            if aggregate.function == "mean":
                total = total.cast("float64") / count
            values[name] = (count > 0).ifelse(total, _null(total))
    if not odd:
        return found.select(ROW, **values)
    marked = found.select(ROW, **values, __odd=reduce(or_, odd))
    return _repaired(marked, spine, scaled, part, capabilities)


class _Column:
    """The running sums of one input: its count, perhaps its sum (how many are odd) and squares."""

    def __init__(
        self, number: int, name: str | None, view: ResolvedView, *, summed: bool, squared: bool
    ) -> None:
        self.input = name or ""
        self.dtype = view.columns[name] if name else "int64"
        self.count = f"__count_{number}"
        self.total = f"__total_{number}" if summed else ""
        self.square = f"__square_{number}" if squared else ""
        self.total_type = _sum_type(self.dtype)
        self.square_type = _sum_type(self.dtype, 2)
        self.is_float = summed and self.dtype.startswith("float")

    @property
    def names(self) -> list[str]:
        """Names of the running sums."""
        return [name for name in (self.count, self.total, self.square) if name]

    def parts(
        self, rows: ir.Table, scaled: ir.Table, capabilities: Capabilities
    ) -> dict[str, ir.Value]:
        """Return what each row adds."""
        import ibis

        if not self.input:
            return {self.count: ibis.literal(1, "int64")}
        value = rows[self.input]
        parts = {self.count: sql.is_there(value).ifelse(1, 0).cast("int64")}
        if self.is_float:
            scale = _scale(scaled, self.input)
            size = value.cast("float64").abs()
            most, least = 2.0**_BITS / scale, 1 / scale
            fits = (size == 0) | ((size >= least) & (size < most))
            whole = fits.ifelse(value.cast("float64") * scale, ibis.null("float64"))
            floor = sql.builtin("floor", ("float64",), "float64")
            exact = fits & (floor(whole) == whole)
            assert capabilities.exact is not None
            parts[self.total] = exact.ifelse(
                capabilities.exact(whole), ibis.literal(0).cast(self.total_type)
            )
            # A running sum costs as much as the sort, so odd ones are counted beside the others.
            parts[self.count] = ibis.cases((~sql.is_there(value), 0), (exact, 1), else_=_ODD).cast(
                "int64"
            )
        elif self.total:
            digits = as_number(value).cast(self.total_type)
            parts[self.total] = digits.coalesce(ibis.literal(0).cast(self.total_type))
        if self.square:
            wide = as_number(value).cast(self.total_type)
            zero = ibis.literal(0).cast(self.square_type)
            parts[self.square] = (wide * wide).cast(self.square_type).coalesce(zero)
        return parts

    def nothing(self) -> dict[str, ir.Value]:
        """Return what a boundary adds."""
        import ibis

        zero = ibis.literal(0, "int64")
        types = {self.count: "int64", self.total: self.total_type, self.square: self.square_type}
        return {name: zero.cast(types[name]) for name in self.names}


def _running(
    spine: ir.Table,
    rows: ir.Table,
    part: Part,
    capabilities: Capabilities,
    steps: Sequence[int],
    columns: Sequence[_Column],
    scaled: ir.Table,
) -> ir.Table:
    """Return ``__row``, ``__step`` and the running sums at each boundary of each spine row."""
    import ibis

    micros = capabilities.micros
    whole = whole_rows(rows, part, capabilities)
    keys = key_names(part.view)
    types = common_key_types(whole, spine, part)
    left = spine.select(ROW, TIME, **keys_of(spine, part.key_columns, types))
    left = left.filter([left[name].notnull() for name in (TIME, *keys)])
    added: dict[str, ir.Value] = {}
    nothing: dict[str, ir.Value] = {}
    for column in columns:
        added |= column.parts(whole, scaled, capabilities)
        nothing |= column.nothing()

    def place(instant: ir.Value) -> ir.Value:
        return micros(instant) if micros is not None else instant

    def moved(value: ir.Value, by: int) -> ir.Value:
        return value + by if micros is not None else capabilities.shift(value, by)

    def events(position: ir.Value, step: int | None) -> ir.Table:
        at = {_POSITION: position, _SIDE: ibis.literal(0, "int8"), ROW: ibis.null("int64")}
        numbered = ibis.null("int64") if step is None else ibis.literal(step, "int64")
        return whole.select(**keys_of(whole, keys, types), **at, **{_STEP: numbered}, **added)

    def asked(position: ir.Value, step: int) -> ir.Table:
        at = {_POSITION: position, _SIDE: ibis.literal(1, "int8"), ROW: left[ROW]}
        return left.select(*keys, **at, **{_STEP: ibis.literal(step, "int64")}, **nothing)

    happened, now = place(whole[EVENT]), place(left[TIME])
    group = list(keys)
    if part.judges_arrival:
        written = place(whole[CREATED])
        later = [moved(happened, step) for step in steps]
        stands = [(at > written).ifelse(at, written) for at in later]
        pieces = [events(at, step) for at, step in zip(stands, steps, strict=True)]
        pieces += [asked(now, step) for step in steps]
        group.append(_STEP)
    else:
        pieces = [events(happened, None), *(asked(moved(now, -step), step) for step in steps)]
    both = pieces[0].union(*pieces[1:])
    over: Mapping[str, Any] = {
        "group_by": [both[name] for name in group] or None,
        "order_by": [both[_POSITION], both[_SIDE]],
        "rows": (None, 0),
    }
    sums = {name: both[name].sum().over(**over) for column in columns for name in column.names}
    summed = both.select(ROW, _STEP, _SIDE, **sums)
    return summed.filter(summed[_SIDE] == 1)


def _repaired(
    marked: ir.Table, spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities
) -> ir.Table:
    """Answer the spine rows whose windows hold odd values by the join on range."""
    wanted = marked.filter(marked["__odd"]).select(ROW)
    some = spine.semi_join(wanted, spine[ROW] == wanted[ROW])
    again = joined_over_range(some, rows, part, capabilities)
    joined = marked.left_join(again, ROW, rname="{name}__again")
    values = {
        name: joined["__odd"].ifelse(joined[f"{name}__again"], joined[name])
        for name in aggregates_of(part)
    }
    return joined.select(ROW, **values)


def _spread(count: ir.Value, total: ir.Value, square: ir.Value, function: str) -> ir.Value:
    """Return variance or standard deviation of a sample.

    ``n * sum(x^2) - sum(x)^2`` is taken in whole numbers, so that nothing cancels.
    """
    import ibis

    above = (count * square - total * total).cast("float64")
    variance = above / count.nullif(0) / (count - 1).nullif(0)
    found = variance.sqrt() if function == "std" else variance
    return (count > 1).ifelse(found, ibis.null("float64"))


def _between(found: ir.Table, name: str, window: Window) -> ir.Value:
    until = found[f"{name}_{window.end}"]
    return until if window.start is None else until - found[f"{name}_{window.start}"]


def _sum_type(dtype: str, power: int = 1) -> str:
    """Return the type in which values of a type, or their squares, are summed without loss."""
    import ibis

    kind = ibis.dtype(dtype)
    if not kind.is_decimal():
        return "decimal(38, 0)"
    return "decimal" if kind.scale is None else f"decimal(38, {kind.scale * power})"


def _scale(rows: ir.Table, name: str) -> ir.Value:
    """Return the power of two by which floats of the usual size become whole numbers."""
    import ibis

    value = rows[name].cast("float64")
    size = value.abs()
    usual = (size > 1e-250) & (size < 1e250)
    log = sql.builtin("ln", ("float64",), "float64")
    mean = log(usual.ifelse(size, ibis.null("float64"))).mean() / ibis.literal(0.6931471805599453)
    bits = (_MIDDLE - mean.coalesce(0.0)).round().cast("float64")
    power = sql.builtin("pow", ("float64", "float64"), "float64")
    return power(ibis.literal(2.0, "float64"), bits).as_scalar()


def _null(value: ir.Value) -> ir.Value:
    import ibis

    return ibis.null(value.type())
