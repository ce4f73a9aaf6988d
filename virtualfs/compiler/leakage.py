"""What leaks into a training set, as one plan and as questions about its rows.

A feature is asked for a second time as it would be without what may leak: without rows that were
written after the instant, and without the instant's own row. Where the two differ, what was
suspected has happened. Whether a feature says the label in other words is counted: how often they
are equal, how they correlate, and how well one tells the other's two values apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from virtualfs.capabilities import Capabilities
from virtualfs.compiler.fitting import Counts, rows_table
from virtualfs.compiler.plan import RESERVED, FeaturePlan, Part

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = [
    "Variant", "auc", "changes", "later", "likeness", "purity", "spreads",
    "with_variants",
]  # fmt: skip

_HUGE, _TINY = 1e150, 1e-150
"""Numbers whose squares are still numbers, on every engine."""
_DIGITS = 1e-9
Without = Literal["late rows", "the instant"]


@dataclass(frozen=True)
class Variant:
    """A feature as it would be without something.

    Parameters
    ----------
    column
        The column that holds it without.
    compared
        The columns that tell whether the two differ.
    """

    view: str
    feature: str
    without: Without
    column: str
    compared: tuple[str, str]


def with_variants(
    plan: FeaturePlan, holders: Collection[str]
) -> tuple[FeaturePlan, tuple[Variant, ...]]:
    """Return a plan with its features once more, as they would be without what may leak.

    Parameters
    ----------
    holders
        Labels of the views whose sources hold the label.
    """
    parts: list[Part] = []
    more: list[Part] = []
    variants: list[Variant] = []
    counted = 0
    for part in plan.parts:
        view = part.view
        others: list[tuple[Without, Part]] = []
        if view.created_timestamp is not None and part.late_data == "include":
            others.append(("late rows", replace(part, late_data="exclude")))
        reads_instant = view.event_timestamp and not view.valid_to and view.boundary == "inclusive"
        # The latest value includes the instant by default, which is a leak only with the label.
        if reads_instant and (view.is_aggregate or view.label in holders):
            strict = view.model_copy(update={"boundary": "exclusive"})
            others.append(("the instant", replace(part, view=strict)))
        counts = _counts(part) if others else {}
        places = {name: f"{RESERVED}count_{counted + n}" for n, name in enumerate(counts.values())}
        counted += len(places)
        parts.append(_counting(part, counts, places, part.outputs))
        for without, other in others:
            outputs = []
            again = {name: f"{RESERVED}count_{counted + n}" for n, name in enumerate(places)}
            counted += len(again)
            for feature, output in part.outputs:
                column = f"{RESERVED}without_{len(variants)}"
                outputs.append((feature, column))
                compared = (output, column)
                if feature in counts and without == "late rows":
                    compared = (places[counts[feature]], again[counts[feature]])
                variants.append(Variant(view.label, feature, without, column, compared))
            more.append(_counting(other, counts, again, tuple(outputs)))
    parts += more
    shown = (output for part in parts for _, output in part.outputs)
    columns = tuple(dict.fromkeys((*plan.columns, *shown)))
    return replace(plan, parts=tuple(parts), columns=columns), tuple(variants)


def _counts(part: Part) -> dict[str, str]:
    """Return of each sum of floats the feature that counts what it adds.

    Their last digits depend on the order of adding, so the rows tell whether some are missing.
    """
    found: dict[str, str] = {}
    named: dict[Any, str] = {}
    features = {feature.name: feature for feature in part.view.features}
    for name, _ in part.outputs:
        feature = features[name]
        made = feature.aggregate
        if made is None or feature.dtype != "float64":
            continue
        if made.function in ("sum", "mean", "std", "var"):
            place = (made.input, made.window, made.offset)
            found[name] = named.setdefault(place, f"{RESERVED}counted_{len(named)}")
    return found


def _counting(
    part: Part,
    counts: Mapping[str, str],
    places: Mapping[str, str],
    outputs: tuple[tuple[str, str], ...],
) -> Part:
    """Return a part that counts too; `places` are the columns of what `counts` names."""
    features = {feature.name: feature for feature in part.view.features}
    more = {}
    for name, counting in counts.items():
        made = features[name].aggregate
        assert made is not None
        bare = made.model_copy(update={"function": "count"})
        more[counting] = features[name].model_copy(
            update={"name": counting, "dtype": "int64", "aggregate": bare}
        )
    if not more:
        return replace(part, outputs=outputs)
    view = part.view.model_copy(update={"features": (*part.view.features, *more.values())})
    return replace(part, view=view, outputs=(*outputs, *places.items()))


def changes(dtypes: Mapping[str, str], variants: Collection[Variant]) -> ir.Table:
    """Return how many rows there are, and at how many each variant differs, as one row."""
    import ibis

    rows = rows_table(dtypes)
    found: dict[str, ir.Value] = {"n": rows.count()}
    for variant in variants:
        one, other = (rows[name] for name in variant.compared)
        differs = ~one.identical_to(other)
        if one.type().is_floating():
            # The same rows, added in another order, may differ in their last digits.
            apart = (one - other).abs() > _DIGITS * ibis.greatest(one.abs(), other.abs())
            differs = differs & ibis.coalesce(apart, True)
        found[variant.column] = differs.ifelse(1, 0).sum()
    return rows.aggregate(**found)


def likeness(dtypes: Mapping[str, str], features: Collection[str], label: str) -> Counts:
    """Return what features have in common with the label.

    Of the label the number of values, least and greatest; of each feature over rows where both are
    known ``both``, ``equal`` (how many are), and of numbers the means, ``own`` and ``label``; of
    its being NULL the same, as ``missing_own`` and ``missing_label``.
    """
    counts = Counts(dtypes)
    rows, count = counts.rows, counts.add
    target = rows[label]
    number = _number(target)
    count(label, "both", target.count())
    count(label, "values", target.nunique())
    if number is not None:
        count(label, "min", number.min())
        count(label, "max", number.max())
    for name in features:
        value = rows[name]
        both = value.notnull() & target.notnull()
        count(name, "both", both.ifelse(1, 0).sum())
        if _alike(value, target):
            count(name, "equal", (both & (value == target)).ifelse(1, 0).sum())
        for prefix, own, other, where in _pairs(rows, name, label):
            count(name, f"{prefix}own", own.mean(where=where))
            count(name, f"{prefix}label", other.mean(where=where))
    return counts


def spreads(
    dtypes: Mapping[str, str], means: Mapping[str, Mapping[str, float]], label: str
) -> Counts:
    """Return sums of products of what features and the label are away from their means.

    Two passes, because one would lose the digits of what is far from zero.

    Parameters
    ----------
    means
        Of features that have some, as :func:`likeness` names them.
    """
    import ibis

    counts = Counts(dtypes)
    for name, held in means.items():
        for prefix, own, other, where in _pairs(counts.rows, name, label):
            if held.get(f"{prefix}own") is None or held.get(f"{prefix}label") is None:
                continue
            # Said to be floats, or some engines would take them for decimals of many digits.
            middle, centre = (
                ibis.literal(float(held[f"{prefix}{what}"]), type="float64")
                for what in ("own", "label")
            )
            left, right = _squarable(own - middle), _squarable(other - centre)
            for what, value in (("own", left * left), ("label", right * right),
                                ("both", left * right)):  # fmt: skip
                counts.add(name, f"{prefix}{what}", value.sum(where=where))
    return counts


def _pairs(
    rows: ir.Table, name: str, label: str
) -> Iterator[tuple[str, ir.Value, ir.Value, ir.Value]]:
    """Yield what is correlated: a feature, and its being NULL, each with the label."""
    value, target = rows[name], rows[label]
    own, other = _number(value), _number(target)
    if other is None:
        return
    known = target.notnull() & _is_finite(other)
    if own is not None:
        yield "", own, other, value.notnull() & known & _is_finite(own)
    yield "missing_", _as_float(value.isnull()), other, known


def _squarable(value: ir.Value) -> ir.Value:
    return (value.abs() < _TINY).ifelse(0.0, value)


def _is_finite(value: ir.Value) -> ir.Value:
    # NaN is greater than all numbers where there is one, or nothing is.
    return value.between(-_HUGE, _HUGE)


def auc(dtypes: Mapping[str, str], feature: str, label: str, greatest: float) -> ir.Table:
    """Return how often the greater label has the greater feature, ties half: the area under ROC.

    Hanley and McNeil, Radiology 143 (1982): the chance that of two rows, one of each label, the
    feature orders them right.
    """
    import ibis

    rows = rows_table(dtypes)
    value, number = _number(rows[feature]), _number(rows[label])
    assert value is not None
    assert number is not None
    held = rows.filter(rows[feature].notnull(), rows[label].notnull(), _is_finite(value))
    bare = held.select(value=value, high=_as_float(number == greatest))
    by_value = bare.group_by("value").aggregate(high=bare.high.sum(), n=bare.count())
    by_value = by_value.mutate(low=by_value.n - by_value.high)
    before = ibis.window(order_by=by_value.value, preceding=None, following=0)
    ordered = by_value.mutate(below=by_value.low.sum().over(before) - by_value.low)
    right = (ordered.high * (ordered.below + ordered.low / 2)).sum()
    pairs = ordered.high.sum() * ordered.low.sum()
    return ordered.aggregate(auc=right / pairs.nullif(0.0), n=ordered.n.sum())


def purity(dtypes: Mapping[str, str], feature: str, label: str) -> ir.Table:
    """Return at how many rows a category alone tells the label right, of how many.

    Each category is taken to mean the label that it has most often.
    """
    rows = rows_table(dtypes)
    held = rows.filter(rows[feature].notnull(), rows[label].notnull())
    bare = held.select(category=held[feature], label=held[label])
    pairs = bare.group_by(["category", "label"]).aggregate(n=bare.count())
    best = pairs.group_by("category").aggregate(best=pairs.n.max(), n=pairs.n.sum())
    return best.aggregate(told=best.best.sum(), n=best.n.sum(), categories=best.count())


def later(
    dtypes: Mapping[str, str],
    column: str,
    timezone: str,
    instant: datetime,
    capabilities: Capabilities,
) -> ir.Table:
    """Return how many rows have a time after an instant, which is naive and in UTC."""
    rows = rows_table(dtypes)
    after = capabilities.instant(rows[column], timezone, "up") > capabilities.literal_instant(
        instant
    )
    return rows.aggregate(n=after.ifelse(1, 0).sum())


def _number(value: ir.Value) -> Any:
    kind = value.type()
    if kind.is_boolean():
        return _as_float(value)
    return value.cast("float64") if kind.is_numeric() else None


def _as_float(value: ir.Value) -> ir.Value:
    # A literal 1.0 is a decimal to some engines, whose products run out of digits.
    return value.ifelse(1, 0).cast("float64")


def _alike(value: ir.Value, other: ir.Value) -> bool:
    one, two = value.type(), other.type()
    return bool(
        (one.is_numeric() and two.is_numeric())
        or (one.is_string() and two.is_string())
        or (one.is_boolean() and two.is_boolean())
        or (one.is_temporal() and one == two)
    )
