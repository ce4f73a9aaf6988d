"""Windows of hot keys as ranges of positions: extremes from exact tiles, first and last directly.

What cannot be subtracted needs every row of a window, or parts that were merged before. Here the
rows of a key are numbered in the order of time, so that a window is a range of positions. Its
newest values stand at its end. For the least and the greatest, 64 neighbours make a tile and 64
tiles a larger one: a window is single rows at both ends (64 at most each), tiles next to them, and
large tiles between, some hundred parts for a million rows. It is exact, as tiles go by position and
never by the clock.

What is NULL has no position, so every input is numbered for itself, in one sweep for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.aggregate import (
    PLACE,
    Window,
    aggregates_of,
    ranked,
    squared,
    steps_of,
    window_of,
    windows_of,
)
from virtualfs.compiler.plan import Part, ResolvedAggregate
from virtualfs.compiler.rows import (
    EVENT,
    ROW,
    TIME,
    common_key_types,
    key_names,
    keys_of,
    whole_rows,
)
from virtualfs.compiler.sql import is_there

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["by_position", "has_position", "has_spread", "means_of", "spreads"]

_BITS = 6
"""A tile has two to the power of this many parts."""
_SIDE, _STEP, _WHEN = "__side", "__step", "__when"
_LEVEL, _TILE, _INDEX, _FIRST, _END = "__level", "__tile", "__index", "__first", "__end"
_WINDOW = "__window"


def has_position(aggregate: ResolvedAggregate, part: Part) -> bool:
    """Tell whether an aggregate can be had by positions.

    With ``late_data="exclude"`` what counts is no range of positions.
    """
    if part.judges_arrival:
        return False
    if aggregate.function in ("first", "last"):
        return (aggregate.n or 1) <= 1 << _BITS
    return aggregate.function in ("min", "max")


def by_position(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities
) -> list[ir.Table]:
    """Return ``__row`` and some features' values, of spine rows that have something in a window.

    1. Rows and the boundaries of every window stand in one relation, in the order of time; running
       counts number the rows, and say at which position each boundary stands.
    2. For extremes, rows are merged into tiles, and these into larger ones.
    3. Each window is cut into pieces within one tile: rows, tiles, large tiles, tiles, rows. Pieces
       meet their parts by equality of the tile and a range within it.

    One table for the extremes of each input, and one for its first and last values.
    """
    found = []
    for of_input, mine in _by_input(spine, rows, part, capabilities):
        extremes = {n: a for n, a in mine.items() if a.function in ("min", "max")}
        ends = {n: a for n, a in mine.items() if n not in extremes}
        if extremes:
            found.append(of_input.extremes(extremes))
        if ends:
            found.append(of_input.ends(ends, capabilities))
    return found


def has_spread(aggregate: ResolvedAggregate, part: Part, capabilities: Capabilities) -> bool:
    """Tell whether the spread of floats can be merged from tiles, about a mean known exactly."""
    return (
        aggregate.function in ("std", "var")
        and capabilities.exact is not None
        and not part.judges_arrival
        and part.view.columns[aggregate.input or ""].startswith("float")
    )


def means_of(part: Part) -> Part:
    """Return the part that asks for the means about which a part asks for spreads."""
    features = [
        feature.model_copy(
            update={"aggregate": feature.aggregate.model_copy(update={"function": "mean"})}
        )
        for feature in part.view.features
        if feature.aggregate is not None and feature.name in part.features
    ]
    return replace(part, view=part.view.model_copy(update={"features": tuple(features)}))


def spreads(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities, means: ir.Table
) -> list[ir.Table]:
    """Return ``__row`` and the spreads of floats, one table for each input.

    Each part of a window adds its own squares about its own mean, and its count times the square of
    how far that lies from the window's mean. All is added and nothing subtracted, so nothing is
    lost; the window's mean must only be right to its last digits.

    Parameters
    ----------
    means
        ``__row`` and the windows' means by the features' names, as :func:`means_of` asks for them.
    """
    return [
        of_input.spreads(mine, means, capabilities)
        for of_input, mine in _by_input(spine, rows, part, capabilities)
    ]


def _by_input(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities
) -> list[tuple[_Input, dict[str, ResolvedAggregate]]]:
    """Return the inputs, numbered in one sweep, each with the aggregates over it."""
    asked = aggregates_of(part)
    steps = steps_of(windows_of(part))
    inputs = [*dict.fromkeys(str(aggregate.input) for aggregate in asked.values())]
    counted = _counted(spine, rows, part, capabilities, steps, inputs)
    return [
        (_Input(counted, number, part), {n: a for n, a in asked.items() if a.input == name})
        for number, name in enumerate(inputs)
    ]


class _Input:
    """One input's rows by position, and the windows over them."""

    def __init__(self, counted: ir.Table, number: int, part: Part) -> None:
        self._counted = counted
        self._position = f"__position_{number}"
        self._value = f"__value_{number}"
        self._view = part.view
        self._keys = key_names(part.view)

    def extremes(self, asked: Mapping[str, ResolvedAggregate]) -> ir.Table:
        """Return the least and greatest values."""
        kinds = [*dict.fromkeys(window_of(aggregate, self._view) for aggregate in asked.values())]
        cut = _cut(self._ranges([(window, 0, None) for window in kinds]), self._keys, levels=3)
        pairs = self._met(cut, self._nodes())
        values = {
            name: getattr(pairs[f"__{aggregate.function}"], aggregate.function)(
                where=pairs[_WINDOW] == kinds.index(window_of(aggregate, self._view))
            )
            for name, aggregate in asked.items()
        }
        return pairs.group_by(ROW).aggregate(**values)

    def ends(self, asked: Mapping[str, ResolvedAggregate], capabilities: Capabilities) -> ir.Table:
        """Return the first and last values: the rows at either end of a window."""
        import ibis

        kinds = [
            (window_of(a, self._view), (a.n or 1) if a.function == "first" else 0,
             (a.n or 1) if a.function == "last" else None)
            for a in asked.values()
        ]  # fmt: skip
        cut = _cut(self._ranges(kinds), self._keys, levels=1)
        single = self._rows()
        tiles = (single[_INDEX] >> _BITS).cast("int64")
        nodes = single.mutate(**{_LEVEL: ibis.literal(0, "int64"), _TILE: tiles})
        pairs = self._met(cut, nodes)
        values = {}
        for number, (name, aggregate) in enumerate(asked.items()):
            within = pairs[_WINDOW] == number
            value = pairs[self._value]
            if aggregate.n is None:
                values[name] = value.argmax(pairs[_INDEX], where=within)
            else:
                assert capabilities.collect is not None
                values[name] = capabilities.collect(value, -pairs[_INDEX], within)
        return pairs.group_by(ROW).aggregate(**values)

    def spreads(
        self, asked: Mapping[str, ResolvedAggregate], means: ir.Table, capabilities: Capabilities
    ) -> ir.Table:
        """Return the standard deviations and variances about means that are known."""
        import ibis

        kinds = {window_of(a, self._view): name for name, a in asked.items()}
        ranges = []
        for number, (window, name) in enumerate(kinds.items()):
            held = self._ranges([(window, 0, None)])
            known = means.select(__mean_row=means[ROW], __mean=squared(means[name]))
            joined = held.left_join(known, held[ROW] == known["__mean_row"])
            here = {_WINDOW: ibis.literal(number, "int64")}
            ranges.append(joined.select(*self._keys, ROW, _FIRST, _END, "__mean", **here))
        whole = ranges[0].union(*ranges[1:]) if len(ranges) > 1 else ranges[0]
        cut = _cut(whole, self._keys, levels=3, carried=["__mean"])
        pairs = self._met(cut, self._summaries(capabilities))
        apart = pairs["__mean_of"] - pairs["__mean"]
        pairs = pairs.mutate(__about=pairs["__square"] + pairs["__count"] * apart * apart)
        values = {}
        for name, aggregate in asked.items():
            within = pairs[_WINDOW] == [*kinds].index(window_of(aggregate, self._view))
            count = pairs["__count"].sum(where=within)
            found = pairs["__about"].sum(where=within) / (count - 1).nullif(0).cast("float64")
            values[name] = found.sqrt() if aggregate.function == "std" else found
        return pairs.group_by(ROW).aggregate(**values)

    def _summaries(self, capabilities: Capabilities) -> ir.Table:
        """Return rows and tiles: count, mean, and squares about it."""
        import ibis

        rows = self._rows()
        rows = rows.mutate(__squared=squared(rows[self._value].cast("float64")))
        found = []
        for number in range(3):
            level = {_LEVEL: ibis.literal(number, "int64")}
            if number == 0:
                tile = (rows[_INDEX] >> _BITS).cast("int64")
                one, none = ibis.literal(1, "int64"), ibis.literal(0.0, "float64")
                held = {"__count": one, "__mean_of": rows["__squared"], "__square": none}
                found.append(rows.select(*self._keys, _INDEX, **level, **{_TILE: tile}, **held))
                continue
            index = (rows[_INDEX] >> _BITS * number).cast("int64")
            single = rows.mutate(__tile_index=index)
            value = single["__squared"]
            made = single.group_by([*self._keys, "__tile_index"]).aggregate(
                __count=single.count(),
                __mean_of=value.mean(),
                __square=capabilities.variance(value, "pop", None) * single.count(),
            )
            last = number == 2
            tile = (made["__tile_index"] >> _BITS).cast("int64")
            placed = {_TILE: ibis.literal(0, "int64") if last else tile}
            found.append(
                made.select(
                    *self._keys,
                    **{_INDEX: made["__tile_index"]},
                    **level,
                    **placed,
                    __count=made["__count"],
                    __mean_of=made["__mean_of"],
                    __square=made["__square"],
                )
            )
        return found[0].union(*found[1:])

    def _met(self, cut: ir.Table, nodes: ir.Table) -> ir.Table:
        on = [cut[name] == nodes[name] for name in (*self._keys, _LEVEL, _TILE)]
        on += [nodes[_INDEX] >= cut[_FIRST], nodes[_INDEX] < cut[_END]]
        return cut.inner_join(nodes, on, rname="{name}__node")

    def _rows(self) -> ir.Table:
        rows = self._counted.filter(
            [self._counted[_SIDE] == 0, is_there(self._counted[self._value])]
        )
        return rows.select(*self._keys, self._value, **{_INDEX: rows[self._position]})

    def _ranges(self, kinds: Sequence[tuple[Window, int, int | None]]) -> ir.Table:
        """Return the positions ``[first, end)`` of numbered windows.

        Parameters
        ----------
        kinds
            The windows; how many rows of each count from its beginning (0 for all), and how many
            from its end (None for all).
        """
        import ibis

        ends = self._counted.filter(self._counted[_SIDE] == 1)
        found = []
        for number, (window, at_first, at_last) in enumerate(kinds):
            end = ends[self._position].max(where=ends[_STEP] == window.end)
            first = ibis.literal(0, "int64")
            if window.start is not None:
                first = ends[self._position].max(where=ends[_STEP] == window.start)
            held = ends.group_by([*self._keys, ROW]).aggregate(**{_FIRST: first, _END: end})
            if at_first:
                held = held.mutate(**{_END: ibis.least(held[_END], held[_FIRST] + at_first)})
            if at_last is not None:
                held = held.mutate(**{_FIRST: ibis.greatest(held[_FIRST], held[_END] - at_last)})
            found.append(held.mutate(**{_WINDOW: ibis.literal(number, "int64")}))
        return found[0].union(*found[1:]) if len(found) > 1 else found[0]

    def _nodes(self) -> ir.Table:
        """Return rows, tiles and large tiles as one relation: places, least and greatest."""
        import ibis

        level = self._rows()
        level = level.mutate(__min=level[self._value], __max=level[self._value])
        found = []
        for number in range(3):
            tile = (level[_INDEX] >> _BITS).cast("int64")
            if number == 2:
                tile = ibis.literal(0, "int64")
            placed = level.mutate(**{_LEVEL: ibis.literal(number, "int64"), _TILE: tile})
            found.append(placed.select(*self._keys, _LEVEL, _TILE, _INDEX, "__min", "__max"))
            merged = {"__min": placed["__min"].min(), "__max": placed["__max"].max()}
            level = placed.group_by([*self._keys, _TILE]).aggregate(**merged)
            level = level.rename(**{_INDEX: _TILE})
        return found[0].union(*found[1:])


def _counted(
    spine: ir.Table,
    rows: ir.Table,
    part: Part,
    capabilities: Capabilities,
    steps: Sequence[int],
    inputs: Sequence[str],
) -> ir.Table:
    """Return rows (side 0) and boundaries (side 1), and how many rows of each input stand before.

    A row is where it stands itself, from 0 on.
    """
    import ibis
    import ibis.expr.operations as ops

    micros = capabilities.micros
    whole = ranked(
        whole_rows(rows, part, capabilities), aggregates_of(part), part.view, capabilities
    )
    keys = key_names(part.view)
    types = common_key_types(whole, spine, part)
    left = spine.select(ROW, TIME, **keys_of(spine, part.key_columns, types))
    left = left.filter([left[name].notnull() for name in (TIME, *keys)])
    now = left[TIME] if micros is None else micros(left[TIME])
    event = whole[EVENT] if micros is None else micros(whole[EVENT])
    values = {f"__value_{n}": whole[name] for n, name in enumerate(inputs)}
    if PLACE in whole.columns:
        values[PLACE] = whole[PLACE]
    none = {name: ibis.null(value.type()) for name, value in values.items()}
    fixed = {_SIDE: ibis.literal(0, "int8"), ROW: ibis.null("int64"), _STEP: ibis.null("int64")}
    pieces = [whole.select(**keys_of(whole, keys, types), **{_WHEN: event}, **fixed, **values)]
    for step in steps:
        moved = now - step if micros is not None else capabilities.shift(now, -step)
        asked = {_SIDE: ibis.literal(1, "int8"), ROW: left[ROW],
                 _STEP: ibis.literal(step, "int64")}  # fmt: skip
        pieces.append(left.select(*keys, **{_WHEN: moved}, **asked, **none))
    both = pieces[0].union(*pieces[1:])
    order = [both[_WHEN], both[_SIDE]]
    if PLACE in both.columns:
        order.append(both[PLACE].desc())
    before = {}
    for number in range(len(inputs)):
        counts = (both[_SIDE] == 0) & is_there(both[f"__value_{number}"])
        one = counts.ifelse(1, 0).cast("int64")
        running = one.sum().over(
            group_by=[both[name] for name in keys] or None, order_by=order, rows=(None, 0)
        )
        # Some engines sum integers into wider types than Ibis believes.
        before[f"__position_{number}"] = ops.Cast(running, "int64").to_expr() - one
    held = [f"__value_{number}" for number in range(len(inputs))]
    return both.select(*keys, _SIDE, ROW, _STEP, *held, **before)


def _cut(
    windows: ir.Table, keys: Sequence[str], levels: int, carried: Sequence[str] = ()
) -> ir.Table:
    """Return the pieces of windows ``[first, end)``, each within one tile of its level.

    With one level they are no longer than a tile.
    """
    import ibis

    tile = (windows[_FIRST] >> _BITS).cast("int64")
    until = (windows[_END] >> _BITS).cast("int64")
    given = windows.filter(windows[_END] > windows[_FIRST]).mutate(__a=tile, __b=until)
    large = ((given["__a"] + 1) >> _BITS).cast("int64")
    given = given.mutate(__c=large, __d=(given["__b"] >> _BITS).cast("int64"))
    a, b, c, d = (given[f"__{name}"] for name in "abcd")
    zero = ibis.literal(0, "int64")
    pieces = [
        # level, tile, first, end, whether there is such a piece
        (0, a, given[_FIRST], given[_END], None),
        (0, b, b << _BITS, given[_END], b > a),
        (1, c, a + 1, b, b > a + 1),
        (1, d, d << _BITS, b, (b > a + 1) & (d > c)),
        (2, zero, c + 1, d, (b > a + 1) & (d > c + 1)),
    ]
    found = []
    for level, of, first, end, there in pieces:
        if level >= levels:
            continue
        table = given if there is None else given.filter(there)
        placed = {_LEVEL: ibis.literal(level, "int64"), _TILE: of, _FIRST: first, _END: end}
        found.append(
            table.select(
                *keys,
                ROW,
                _WINDOW,
                *carried,
                **{name: value.cast("int64") for name, value in placed.items()},
            )
        )
    return found[0].union(*found[1:])
