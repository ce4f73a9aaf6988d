"""Least and greatest values over windows of hot keys: exact tiles of positions, merged.

What cannot be subtracted needs every row of a window, or parts that were merged before. Here the
rows of a key are numbered in the order of time, and 64 neighbours make a tile, 64 tiles a larger
one. A window is a range of positions, so it is made of single rows at both ends (64 at most each),
tiles next to them, and large tiles between: some hundred parts for a million rows, and exact, as
tiles go by position and never by the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.aggregate import aggregates_of, as_number, steps_of, window_of
from virtualfs.compiler.plan import Part, ResolvedAggregate
from virtualfs.compiler.rows import (
    EVENT,
    ROW,
    TIME,
    common_key_types,
    keys_of,
    whole_rows,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["can_tile", "tiled"]

_BITS = 6
"""A tile has two to the power of this many parts."""
_POSITION, _SIDE, _STEP = "__position", "__side", "__step"
_LEVEL, _TILE, _INDEX, _FIRST, _END = "__level", "__tile", "__index", "__first", "__end"
_WINDOW = "__window"


def can_tile(aggregate: ResolvedAggregate, part: Part) -> bool:
    """Tell whether an aggregate can be merged from tiles.

    With ``late_data="exclude"`` what counts is no range of positions.
    """
    return aggregate.function in ("min", "max") and not part.judges_arrival


def tiled(spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return ``__row`` and the features' values of spine rows that have something in a window.

    1. Rows and the boundaries of every window stand in one relation, in the order of time; a
       running count numbers the rows, and says at which position each boundary stands.
    2. Rows are merged into tiles, and these into larger ones.
    3. Each window is cut into five pieces, each within one tile: rows, tiles, large tiles, tiles,
       rows. Pieces meet their parts by equality of the tile and a range within it.
    """
    import ibis

    asked = aggregates_of(part)
    windows = {name: window_of(aggregate, part.view) for name, aggregate in asked.items()}
    inputs = [*dict.fromkeys(str(aggregate.input) for aggregate in asked.values())]
    counted = _counted(spine, rows, part, capabilities, steps_of(windows.values()), inputs)
    keys = [f"__key_{number}" for number in range(len(part.view.join_keys))]
    nodes = _nodes(counted, keys, inputs)
    kinds = list(dict.fromkeys(windows.values()))
    pieces = []
    for number, window in enumerate(kinds):
        ends = counted.filter(counted[_SIDE] == 1)
        until = ends[_POSITION].max(where=ends[_STEP] == window.end)
        since = (
            ends[_POSITION].max(where=ends[_STEP] == window.start)
            if window.start is not None
            else ibis.literal(0, "int64")
        )
        held = ends.group_by([*keys, ROW]).aggregate(**{_FIRST: since, _END: until})
        pieces.append(held.mutate(**{_WINDOW: ibis.literal(number, "int64")}))
    cut = _cut(pieces[0].union(*pieces[1:]) if len(pieces) > 1 else pieces[0], keys)
    on = [cut[name] == nodes[name] for name in (*keys, _LEVEL, _TILE)]
    on += [nodes[_INDEX] >= cut[_FIRST], nodes[_INDEX] < cut[_END]]
    pairs = cut.inner_join(nodes, on, rname="{name}__node")
    values = {}
    for name, aggregate in asked.items():
        within = pairs[_WINDOW] == kinds.index(windows[name])
        value = pairs[f"__{aggregate.function}_{inputs.index(str(aggregate.input))}"]
        values[name] = getattr(value, aggregate.function)(where=within)
    return pairs.group_by(ROW).aggregate(**values)


def _counted(
    spine: ir.Table,
    rows: ir.Table,
    part: Part,
    capabilities: Capabilities,
    steps: Sequence[int],
    inputs: Sequence[str],
) -> ir.Table:
    """Return rows (side 0) and boundaries (side 1) with how many rows stand before each."""
    import ibis

    micros = capabilities.micros
    whole = whole_rows(rows, part, capabilities)
    keys = [f"__key_{number}" for number in range(len(part.view.join_keys))]
    types = common_key_types(whole, spine, part)
    left = spine.select(ROW, TIME, **keys_of(spine, part.key_columns, types))
    left = left.filter([left[name].notnull() for name in (TIME, *keys)])
    now = left[TIME] if micros is None else micros(left[TIME])
    event = whole[EVENT] if micros is None else micros(whole[EVENT])
    values = {f"__value_{n}": as_number(whole[name]) for n, name in enumerate(inputs)}
    none = {name: ibis.null(value.type()) for name, value in values.items()}
    pieces = [
        whole.select(
            **keys_of(whole, keys, types),
            __when=event,
            **{_SIDE: ibis.literal(0, "int8"), ROW: ibis.null("int64")},
            **{_STEP: ibis.null("int64")},
            **values,
        )
    ]
    for step in steps:
        moved = now - step if micros is not None else capabilities.shift(now, -step)
        side = {_SIDE: ibis.literal(1, "int8"), ROW: left[ROW]}
        step_of = {_STEP: ibis.literal(step, "int64")}
        pieces.append(left.select(*keys, __when=moved, **side, **step_of, **none))
    both = pieces[0].union(*pieces[1:])
    is_row = (both[_SIDE] == 0).ifelse(1, 0).cast("int64")
    before = is_row.sum().over(
        group_by=[both[name] for name in keys] or None,
        order_by=[both["__when"], both[_SIDE]],
        rows=(None, 0),
    )
    # A row counts itself in the running sum, and positions begin at 0.
    return both.select(*keys, _SIDE, ROW, _STEP, *none, **{_POSITION: before - is_row})


def _nodes(counted: ir.Table, keys: Sequence[str], inputs: Sequence[str]) -> ir.Table:
    """Return rows, tiles and large tiles as one relation: where each stands, least and greatest."""
    import ibis

    single = counted.filter(counted[_SIDE] == 0)
    held: dict[str, ir.Value] = {}
    for number in range(len(inputs)):
        value = single[f"__value_{number}"]
        held |= {f"__min_{number}": value, f"__max_{number}": value}
    level = single.select(*keys, **{_INDEX: single[_POSITION]}, **held)
    found = []
    for number in range(3):
        last = number == 2
        tile = ibis.literal(0, "int64") if last else (level[_INDEX] >> _BITS).cast("int64")
        placed = level.mutate(**{_LEVEL: ibis.literal(number, "int64"), _TILE: tile})
        found.append(placed.select(*keys, _LEVEL, _TILE, _INDEX, *held))
        if not last:
            merged = {
                name: (placed[name].min() if name.startswith("__min") else placed[name].max())
                for name in held
            }
            level = placed.group_by([*keys, _TILE]).aggregate(**merged).rename(**{_INDEX: _TILE})
    return found[0].union(*found[1:])


def _cut(windows: ir.Table, keys: Sequence[str]) -> ir.Table:
    """Return the pieces of windows ``[first, end)``, each within one tile of its level."""
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
        table = given if there is None else given.filter(there)
        placed = {_LEVEL: ibis.literal(level, "int64"), _TILE: of, _FIRST: first, _END: end}
        found.append(
            table.select(
                *keys, ROW, _WINDOW, **{name: value.cast("int64") for name, value in placed.items()}
            )
        )
    return found[0].union(*found[1:])
