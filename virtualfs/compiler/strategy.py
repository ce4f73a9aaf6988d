"""Which strategy answers a view: chosen by what the engine can do, and by cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from virtualfs.capabilities import UNKNOWN, Capabilities, Statistics
from virtualfs.compiler import aggregate, asof, positions, prefix, rows, static, sweep
from virtualfs.compiler.plan import Part
from virtualfs.compiler.seek import can_seek

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["BY_JOIN", "Strategy", "choose", "fragment", "winners"]

# One look into an index costs about as much as sweeping this many source rows (docs/benchmarks.md).
_SWEPT_PER_SEEK = 6


Method = Literal["prefix", "positions", "spreads", "range"]


@dataclass(frozen=True)
class Strategy:
    """How one view is answered, and why so."""

    kind: Literal["static", "interval", "asof", "seek", "sweep", "range", "windows"]
    why: str
    reduce: bool = False
    """Whether source rows of keys that the spine lacks are left out before they are sorted."""
    unique: bool = False
    """Whether the catalog says that there is nothing to rank."""
    methods: tuple[Method, ...] = ()
    """How windows are answered, each instant of a key once, where one join would cost too much."""

    def __str__(self) -> str:
        names = [_METHODS[method] for method in self.methods] or [_NAMES[self.kind]]
        return f"{', '.join(names)} ({self.why})"


_METHODS: dict[Method, str] = {
    "prefix": "exact prefix sums in one sweep over times",
    "positions": "extremes and ends of windows by position",
    "spreads": "spreads of floats over tiles, about exact means",
    "range": "join on keys and range for what has no such way",
}
_SWEPT: dict[Method, int] = {"prefix": 2400, "positions": 2400, "spreads": 6000, "range": 0}
_PAIR, _COUNTED = 8, 10
"""What a row costs that is swept, what a pair of a join, and what each aggregate adds to a pair: in
nanoseconds on two cores, though only their ratios matter (docs/adr/0004)."""
BY_JOIN = Strategy("range", "few keys, or each once")
"""How windows are answered where every key is asked for once: no more pairs than rows."""
_NAMES = {
    "static": "latest row per key",
    "interval": "join on validity",
    "asof": "native ASOF join of times, then the rows by equality",
    "seek": "index look-up per spine row",
    "sweep": "sweep over times, then the rows by equality",
    "range": "join on keys and range, each window counting its own rows",
}


def choose(
    part: Part, source: ir.Table, capabilities: Capabilities, statistics: Statistics
) -> Strategy:
    """Choose the strategy for one view on one engine.

    * Keys of the spine alone are sorted when the spine has no more rows than the source has keys.
    * An index is worth its look-ups while the spine is small against the source; a sweep reads
      everything once, whatever the spine.
    """
    view = part.view
    if view.is_aggregate:
        return _choose_windows(part, source, capabilities, statistics)
    # In a zone whose clocks change, two different wall times can be one instant.
    unique = statistics.unique and view.timezone == "UTC"
    if view.event_timestamp is None:
        return Strategy("static", "no event timestamp", unique=unique)
    if view.valid_to:
        return Strategy("interval", f"rows hold from {view.event_timestamp} until {view.valid_to}")
    seeks = statistics.indexed and can_seek(source, view, capabilities)
    if seeks and _few_seeks(statistics):
        return Strategy("seek", f"an index serves; {statistics}", unique=unique)
    reduce = _few_keys(statistics)
    return Strategy(
        "asof" if capabilities.asof_join else "sweep",
        f"{'keys of the spine only; ' if reduce else ''}{statistics}",
        reduce=reduce,
        unique=unique,
    )


def _choose_windows(
    part: Part, source: ir.Table, capabilities: Capabilities, statistics: Statistics
) -> Strategy:
    """Choose between one join on range, which does every function, and what cost bounds."""
    methods: tuple[Method, ...] = ("range",)
    if capabilities.prefix_sums:
        methods = tuple(_by_method(part, capabilities))
    if _few_pairs(part, statistics, methods):
        if statistics.indexed and can_seek(source, part.view, capabilities):
            return Strategy("seek", f"an index serves; {statistics}")
        return Strategy("range", str(statistics))
    return Strategy("windows", str(statistics), methods=methods)


def _by_method(part: Part, capabilities: Capabilities) -> dict[Method, list[str]]:
    """Return the features that each method answers."""
    found: dict[Method, list[str]] = {
        "prefix": [], "positions": [], "spreads": [], "range": [],
    }  # fmt: skip
    for name, asked in aggregate.aggregates_of(part).items():
        if prefix.can_sum(asked, part.view, capabilities):
            found["prefix"].append(name)
        elif positions.has_position(asked, part):
            found["positions"].append(name)
        elif positions.has_spread(asked, part, capabilities):
            found["spreads"].append(name)
        else:
            found["range"].append(name)
    return {method: names for method, names in found.items() if names}


def _few_seeks(statistics: Statistics) -> bool:
    if statistics.rows is None or statistics.spine_rows is None:
        return True
    return statistics.spine_rows * _SWEPT_PER_SEEK <= statistics.rows


def _few_pairs(part: Part, statistics: Statistics, methods: tuple[Method, ...]) -> bool:
    """Tell whether the pairs of spine rows and rows of their keys cost less than sweeps."""
    rows, keys, asked = statistics.rows, statistics.keys, statistics.spine_rows
    if rows is None or keys is None or asked is None:
        return False
    swept = rows + asked * len(prefix.boundaries(part))
    # What goes by the join in any case still has its instants answered once, where they are many.
    cost = sum(_SWEPT[method] for method in methods) or _SWEPT["prefix"]
    pair = _PAIR + _COUNTED * len(part.features)
    return asked * rows / keys * pair <= cost * swept


def _few_keys(statistics: Statistics) -> bool:
    if statistics.spine_rows is None:
        return False
    if statistics.keys is not None:
        return statistics.spine_rows <= statistics.keys
    return statistics.rows is not None and statistics.spine_rows * 16 <= statistics.rows


def winners(
    spine: ir.Table,
    source: ir.Table,
    part: Part,
    capabilities: Capabilities,
    strategy: Strategy | None = None,
    *,
    times: ir.Table | None = None,
) -> ir.Table:
    """Return the winner of each spine row, as an Ibis expression over any spine and rows.

    Index look-ups cannot be written in Ibis; where they were chosen this is the sweep, which has
    the same meaning.

    Parameters
    ----------
    times
        The source again, under another name, where a strategy reads its times first.
    """
    seen = source if times is None else times
    chosen = strategy or choose(part, source, capabilities, UNKNOWN)
    if chosen.kind == "static":
        return static.winners(spine, source, part, capabilities, unique=chosen.unique)
    if chosen.kind == "interval":
        return rows.valid_rows(spine, source, part, capabilities)
    if chosen.kind == "asof":
        matched = asof.matched(spine, seen, part, capabilities, reduce=chosen.reduce)
    else:
        matched = sweep.matched(spine, seen, part, capabilities, reduce=chosen.reduce)
    return rows.pick(matched, source, part, capabilities, unique=chosen.unique)


def fragment(
    spine: ir.Table,
    source: ir.Table,
    part: Part,
    capabilities: Capabilities,
    strategy: Strategy | None = None,
    *,
    times: ir.Table | None = None,
) -> ir.Table:
    """Return ``__row`` and the output columns of a view, as an Ibis expression."""
    if part.view.is_aggregate:
        chosen = strategy or choose(part, source, capabilities, UNKNOWN)
        again = source if times is None else times
        if chosen.kind != "windows":
            values = aggregate.joined_over_range(spine, source, part, capabilities)
            return aggregate.finished(spine, values, part)
        moments = aggregate.moments_of(spine, part)
        found = []
        by_method = _by_method(part, capabilities)
        if chosen.methods == ("range",):
            by_method = {"range": [*aggregate.aggregates_of(part)]}
        for method, names in by_method.items():
            some = replace(part, outputs=tuple(pair for pair in part.outputs if pair[0] in names))
            if method == "prefix":
                found.append(prefix.swept(moments, source, some, capabilities, again))
            elif method == "positions":
                found += positions.by_position(moments, source, some, capabilities)
            elif method == "spreads":
                about = positions.means_of(some)
                means = prefix.swept(moments, source, about, capabilities, again)
                found += positions.spreads(moments, source, some, capabilities, means)
            else:
                found.append(aggregate.joined_over_range(moments, source, some, capabilities))
        values = aggregate.of_moments(spine, moments, found, part)
        return aggregate.finished(spine, values, part)
    matched = winners(spine, source, part, capabilities, strategy)
    return rows.outputs_of(matched, part, capabilities)
