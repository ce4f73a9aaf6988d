"""Latest values as Ibis expressions: one function per strategy.

Every strategy obeys the same rules, with ``t`` the spine row's instant:

* rule 2: a row is visible if ``event <= t - lag`` (see :attr:`ResolvedView.lag`);
* rule 3: of the visible rows with equal keys the greatest (event, created, hash of the row) wins,
  a NULL created timestamp being lowest;
* rule 4: a winner with ``event < t - ttl`` gives NULLs, and no older row takes its place;
* rule 5: the winner is taken whole;
* rule 8: NULL keys and NULL times match nothing.

A spine relation has ``__row`` (int64), ``__time`` (naive UTC timestamp of microseconds) and the
key columns; a rows relation is what :attr:`ResolvedView.rows_sql` selects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.plan import Part, ResolvedView
from virtualfs.definitions.duration import microseconds

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["EVENT", "ROW", "TIME", "as_of", "asof_join", "latest_per_key", "lookup"]

ROW = "__row"
TIME = "__time"
EVENT = "__event"
_ORDER = "__order"
_RANK = "__rank"
_CREATED = "__created"
_LAST_HASH = 2**64 - 1


def asof_join(spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities) -> ir.Table:
    """Return ``__row`` and the output columns for every spine row, by one native ASOF join.

    The ASOF key is the struct (event, created, hash), so ties are decided inside the join. NULLs
    sort highest in a struct: source rows without an event are left out, and a spine row without an
    instant, which would match the newest row, has its answer taken away again.
    """
    import ibis

    view = part.view
    # Some engines' ASOF joins let NULL equal NULL, so rows that can never match are left out.
    source = _with_event(rows, view, capabilities).filter(
        [ibis._[column].notnull() for column in (EVENT, *view.join_keys)]
    )
    order = {"event": source[EVENT]}
    bound = {"event": spine[TIME] - ibis.interval(microseconds=view.lag)}
    if view.created_timestamp:
        created = _created(source, view, capabilities)
        order["created"] = ibis.coalesce(created, _infinity(negative=True))
        bound["created"] = _infinity()
    order["hash"] = _row_hash(rows, view, capabilities)
    bound["hash"] = ibis.literal(_LAST_HASH, type="uint64")
    right = source.select(
        *part_features(part),
        **_keys(source, tuple(view.join_keys)),
        **{EVENT: source[EVENT], _ORDER: ibis.struct(order)},
    )
    left = spine.select(ROW, TIME, **_keys(spine, part.key_columns), **{_ORDER: ibis.struct(bound)})
    equal = [left[name] == right[name] for name in _keys(spine, part.key_columns)]
    joined = left.asof_join(right, left[_ORDER] >= right[_ORDER], equal, rname="{name}__right")
    counts = joined[TIME].notnull()
    if view.ttl is not None:  # NULL for a spine row without an instant, so it does not count either
        counts = joined[EVENT] >= joined[TIME] - ibis.interval(microseconds=microseconds(view.ttl))
    values = _where(counts, {feature: joined[feature] for feature, _ in part.outputs})
    return joined.select(ROW, **{output: values[feature] for feature, output in part.outputs})


def latest_per_key(
    spine: ir.Table, rows: ir.Table, part: Part, capabilities: Capabilities
) -> ir.Table:
    """Return ``__row`` and the output columns of a static view, by one equality join.

    A static source has one row per key; of several the greatest hash wins (rule 3).
    """
    import ibis

    view = part.view
    one = {"__key": ibis.literal(1)}  # so that a view without entities is an equality join too
    names = {**one, **_keys(rows, tuple(view.join_keys))}
    source = rows.select(
        *part_features(part), **names, **{_RANK: _rank(rows, view, capabilities, [])}
    )
    right = source.filter(source[_RANK] == 0)
    left = spine.select(ROW, **one, **_keys(spine, part.key_columns))
    equal = [left[name] == right[name] for name in names]
    joined = left.left_join(right, equal, rname="{name}__right")
    return joined.select(ROW, **{output: joined[feature] for feature, output in part.outputs})


def lookup(
    keys: ir.Table, rows: ir.Table, view: ResolvedView, capabilities: Capabilities
) -> ir.Table:
    """Return the winner of each key that has a visible row: ``__row``, ``__event``, all features.

    `keys` is a spine relation, small, whose key columns have the names of the join keys. The TTL
    is left to the reader, as it is judged when the value is read (rule 12).
    """
    import ibis

    names = tuple(view.join_keys)
    left = keys.select(ROW, TIME, **_keys(keys, names))
    source = _with_event(rows, view, capabilities)
    right = source.select(
        *view.feature_names,
        **_keys(source, names),
        **{EVENT: source[EVENT], "__hash": _row_hash(rows, view, capabilities)},
        **({_CREATED: _created(source, view, capabilities)} if view.created_timestamp else {}),
    )
    condition: list[Any] = [left[name] == right[name] for name in _keys(keys, names)]
    order = [ibis.desc("__hash")]
    if view.created_timestamp:
        order.insert(0, ibis.desc(_CREATED, nulls_first=False))
    if view.event_timestamp:
        condition.append(right[EVENT] <= left[TIME] - ibis.interval(microseconds=view.lag))
        order.insert(0, ibis.desc(EVENT))
    joined = left.inner_join(right, condition or [True], rname="{name}__right")
    ranked = joined.mutate(**{_RANK: ibis.row_number().over(group_by=joined[ROW], order_by=order)})
    return ranked.filter(ranked[_RANK] == 0).select(ROW, EVENT, *view.feature_names)


def as_of(rows: ir.Table, view: ResolvedView, instant: Any, capabilities: Capabilities) -> ir.Table:
    """Return one row per key, the view's answer at one instant: keys, event timestamp, features.

    Keys whose latest row is over its TTL keep their row, with NULLs.
    """
    import ibis

    at = ibis.literal(instant, type="timestamp(6)")
    source = _with_event(rows, view, capabilities)
    if view.join_keys:
        source = source.filter([source[key].notnull() for key in view.join_keys])
    order = [ibis.desc(EVENT)] if view.event_timestamp else []
    if view.event_timestamp:
        source = source.filter(source[EVENT] <= at - ibis.interval(microseconds=view.lag))
    ranked = source.mutate(**{_RANK: _rank(source, view, capabilities, order)})
    winners = ranked.filter(ranked[_RANK] == 0)
    values = {name: winners[name] for name in view.feature_names}
    if view.ttl is not None:
        young = winners[EVENT] >= at - ibis.interval(microseconds=microseconds(view.ttl))
        values = _where(young, values)
    fixed = [*view.join_keys, *filter(None, [view.event_timestamp])]
    return winners.select(*fixed, **{n: v for n, v in values.items() if n not in fixed})


def part_features(part: Part) -> list[str]:
    """Return the features that a part reads, each once."""
    return list(dict.fromkeys(feature for feature, _ in part.outputs))


def _keys(table: ir.Table, columns: tuple[str, ...]) -> dict[str, ir.Value]:
    return {f"__key_{number}": table[column] for number, column in enumerate(columns)}


def _with_event(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> ir.Table:
    import ibis

    if view.event_timestamp is None:
        return rows.mutate(**{EVENT: ibis.null("timestamp(6)")})
    event = capabilities.instant(rows[view.event_timestamp], view.timezone, "up")
    return rows.mutate(**{EVENT: event})


def _created(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> ir.Value:
    # As an instant, so that every strategy ranks ties alike, whatever the column's precision.
    return capabilities.instant(rows[view.created_timestamp], view.timezone, "up")


def _where(condition: ir.Value, values: dict[str, ir.Value]) -> dict[str, ir.Value]:
    import ibis

    return {
        name: condition.ifelse(value, ibis.null(value.type())) for name, value in values.items()
    }


def _row_hash(rows: ir.Table, view: ResolvedView, capabilities: Capabilities) -> ir.Value:
    return capabilities.row_hash([rows[column] for column in view.columns])


def _rank(
    rows: ir.Table, view: ResolvedView, capabilities: Capabilities, order: list[Any]
) -> ir.Value:
    import ibis

    if view.created_timestamp:
        order = [*order, _created(rows, view, capabilities).desc(nulls_first=False)]
    order = [*order, _row_hash(rows, view, capabilities).desc()]
    group = [rows[key] for key in view.join_keys]
    return ibis.row_number().over(group_by=group or None, order_by=order)


def _infinity(*, negative: bool = False) -> ir.Value:
    import ibis

    return ibis.literal("-infinity" if negative else "infinity").cast("timestamp(6)")
