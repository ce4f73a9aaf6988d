"""Looking for what leaks into a training set: counted in the warehouse, told in words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import leakage, sql
from virtualfs.compiler.fitting import over_rows
from virtualfs.compiler.leakage import Variant
from virtualfs.compiler.plan import FeaturePlan, ResolvedView
from virtualfs.display import Block, Code, Shown
from virtualfs.errors import printable
from virtualfs.provider import Session, Warehouse

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["Leak", "LeakageReport", "holders_of", "judge_rows", "judge_static", "made_of_the_label"]

EQUAL = 0.95
"""From which share of equal values on a feature is suspected to be the label."""
CORRELATED = 0.95
SEPARATED = 0.98
"""From which area under the ROC curve on a feature is suspected to tell a label of two values."""
_WRITTEN = re.compile(r"(?i)updat|modif|chang|writ|load|insert|ingest|sync")
"""In names of columns that say when a row was written; others may be of what is to come."""
FEWEST = 20
"""Rows below which nothing is suspected."""


@dataclass(frozen=True)
class Leak:
    """One way in which something leaks, or may.

    Parameters
    ----------
    kind
        ``late_rows``, ``counts_itself``, ``made_of_the_label``, ``static``, ``static_changes``,
        ``like_the_label``.
    meaning
        What happens, in words.
    detail
        What is told of this feature alone.
    is_sure
        Whether it has happened in these rows; otherwise it is a doubt.
    rows, of
        At how many rows, of how many.
    """

    kind: str
    view: str
    feature: str
    meaning: str
    detail: str
    advice: str
    is_sure: bool
    rows: int
    of: int

    def __str__(self) -> str:
        return printable("\n".join(_told_together([self])))


def _told_together(leaks: Sequence[Leak]) -> Iterator[str]:
    """Yield lines about leaks that differ in the feature alone."""
    first = leaks[0]
    yield f"{'LEAK ' if first.is_sure else 'DOUBT'}  {first.view}: {first.meaning}"
    width = max(len(leak.feature) for leak in leaks)
    yield from (f"    {leak.feature:<{width}}  {leak.detail}" for leak in leaks if leak.feature)
    yield f"    -> {first.advice}"


@dataclass(frozen=True)
class LeakageReport(Shown):
    """What was found; true when something leaks or may."""

    rows: int
    label: str
    features: tuple[str, ...]
    leaks: tuple[Leak, ...]
    unjudged: tuple[str, ...]
    """What could not be judged, and why."""

    def __bool__(self) -> bool:
        return bool(self.leaks)

    def _blocks(self) -> list[Block]:
        return [Code(str(self))]

    def __str__(self) -> str:
        checked = f"{self.rows:,} rows, {len(self.features)} features, label {self.label!r}"
        lines = [f"Leakage: {checked}"]
        alike: dict[tuple[str, str, str], list[Leak]] = {}
        for leak in self.leaks:
            alike.setdefault((leak.view, leak.meaning, leak.advice), []).append(leak)
        for some in alike.values():
            lines += ["", *_told_together(some)]
        if not self.leaks:
            lines += ["", "Nothing was found that leaks."]
        if self.unjudged:
            lines += ["", "Not judged:", *(f"    {item}" for item in self.unjudged)]
        return printable("\n".join(lines))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "rows": self.rows,
            "label": self.label,
            "features": list(self.features),
            "leaks": [vars(leak) for leak in self.leaks],
            "unjudged": list(self.unjudged),
        }


def _source_columns(view: ResolvedView, warehouse: Warehouse) -> Mapping[str, Any]:
    """Return all columns of the source that a view reads, with their types."""
    return warehouse.describe(_of_source(view, warehouse.capabilities.dialect))


def _of_source(view: ResolvedView, dialect: str) -> str:
    """Return the SELECT of all columns of the source that a view reads."""
    if view.source_sql is not None:
        place: Any = exp.Alias(
            this=sql.verbatim(view.source_sql), alias=sql.identifier(sql.reserved("source"))
        )
        return sql.text(exp.Select(expressions=[exp.Star()]).from_(place), dialect)
    tree: Any = sqlglot.parse_one(view.rows_sql, dialect=dialect)
    return sql.text(tree.select(exp.Star(), append=False), dialect)


def holders_of(
    label: str, views: Collection[ResolvedView], warehouse: Callable[[str], Warehouse]
) -> dict[str, str]:
    """Return the views whose sources have a column called as the label is, with that column."""
    found = {}
    for view in views:
        for column in _source_columns(view, warehouse(view.warehouse)):
            if column.casefold() == label.casefold():
                found[view.label] = column
    return found


def judge_static(
    view: ResolvedView, warehouse: Warehouse, first: datetime | None, rows: int
) -> Iterator[Leak]:
    """Look at a source without times: whether it changes although nothing says when.

    Parameters
    ----------
    first
        The spine's first instant: what was written after it may not have been known then.
    """
    capabilities = warehouse.capabilities
    times = {
        name: str(dtype).lstrip("!")
        for name, dtype in _source_columns(view, warehouse).items()
        if dtype.is_timestamp() or dtype.is_date()
    }
    source = _of_source(view, capabilities.dialect)
    found = False
    with warehouse.session() as session:
        for name in times:
            if first is None:
                break
            count = leakage.later(times, name, view.timezone, first, capabilities)
            counted = session.query(over_rows(count, source, capabilities), {"n": "int64"})
            number = int(counted.column(0)[0].as_py() or 0)
            if number:
                found = True
                yield Leak(
                    "static_changes", view.label, "",
                    f"its source has no event timestamp, but in {number:,} of its rows {name!r} is "
                    f"after {first:%Y-%m-%d %H:%M}, the spine's first instant: values of later are "
                    "given to earlier rows",
                    "",
                    f"say event_timestamp={name!r} if it is when the values became true, or keep "
                    "the history and use valid_from= and valid_to=",
                    is_sure=bool(_WRITTEN.search(name)), rows=number, of=rows,
                )  # fmt: skip
    if not found:
        yield Leak(
            "static", view.label, "",
            "its source has no event timestamp, so every instant is given the values of today",
            "",
            "that is right only for what never changes; otherwise give the source "
            "event_timestamp=, or valid_from= and valid_to=",
            is_sure=False, rows=0, of=rows,
        )  # fmt: skip


def judge_rows(
    session: Session,
    capabilities: Capabilities,
    select: str,
    dtypes: Mapping[str, str],
    plan: FeaturePlan,
    variants: Sequence[Variant],
    label: str,
    holders: Mapping[str, str],
) -> tuple[int, list[Leak]]:
    """Ask the rows of a training set what leaks; return how many there are, and what does.

    Parameters
    ----------
    select
        The SELECT of the rows.
    dtypes
        Their columns with the data types.
    plan
        What was asked for.
    holders
        The views whose sources hold the label, with its column.
    """

    def asked(table: ir.Table) -> list[Any]:
        types = {name: str(dtype).lstrip("!") for name, dtype in table.schema().items()}
        found = session.query(over_rows(table, select, capabilities), types)
        return [column[0].as_py() if len(column) else None for column in found.columns]

    rows, *counts = asked(leakage.changes(dtypes, variants))
    leaks = []
    for variant, value in zip(variants, counts, strict=True):
        if value:
            leaks.append(_changed(variant, int(value), int(rows), holders))
    owners = {
        output: (part.view.label, feature) for part in plan.uses for feature, output in part.outputs
    }
    for name, how in _like_the_label(asked, dtypes, plan.columns, label):
        view, feature = owners[name]
        leaks.append(
            Leak(
                "like_the_label", view, feature,
                f"it says the label {label!r} in other words", how[0],
                "a feature that knows the answer is usually made of it, or of what comes after; "
                "look at where it comes from with `virtualfs lineage`",
                is_sure=False, rows=how[1], of=int(rows),
            )
        )  # fmt: skip
    return int(rows), leaks


def _changed(variant: Variant, rows: int, of: int, holders: Mapping[str, str]) -> Leak:
    share = f"{rows:,} of {of:,} rows ({rows / of:.1%})"
    if variant.without == "late rows":
        return Leak(
            "late_rows", variant.view, variant.feature,
            "rows that decide it were written after the instant, so its value was not known then",
            share,
            'train with late_data="exclude", or give the source the availability_delay= that its '
            "rows arrive with",
            is_sure=True, rows=rows, of=of,
        )  # fmt: skip
    if variant.view not in holders:
        return Leak(
            "counts_itself", variant.view, variant.feature,
            "it includes the instant itself: if a row of that instant is the one to be predicted, "
            "it counts itself",
            f"the instant's own row decides it at {share}",
            'give the view boundary="exclusive", which is the default of aggregates, unless its '
            "source has nothing of what is predicted",
            is_sure=False, rows=rows, of=of,
        )  # fmt: skip
    return Leak(
        "counts_itself", variant.view, variant.feature,
        f"its source holds the label ({holders[variant.view]!r}) and it includes the instant "
        "itself, so what is to be predicted counts itself",
        f"the instant's own row decides it at {share}",
        'give the view boundary="exclusive", which is the default of aggregates; or ask for an '
        "instant before the label is known",
        is_sure=True, rows=rows, of=of,
    )  # fmt: skip


def made_of_the_label(
    views: Collection[ResolvedView], plan: FeaturePlan, holders: Mapping[str, str], rows: int
) -> Iterator[Leak]:
    """Find features that are made of the column that holds the label."""
    asked = {(part.view.label, feature) for part in plan.parts for feature, _ in part.outputs}
    for view in views:
        column = holders.get(view.label)
        if column is None:
            continue
        for feature in view.features:
            reads = re.search(rf"(?<!\w){re.escape(column)}(?!\w)", feature.sql, re.IGNORECASE)
            if reads and (view.label, feature.name) in asked:
                yield Leak(
                    "made_of_the_label", view.label, feature.name,
                    f"it is made of the column that holds the label ({column!r})",
                    "",
                    "that is right for outcomes that are known by the instant: say when they are "
                    "by created_timestamp= or availability_delay= of the source",
                    is_sure=False, rows=0, of=rows,
                )  # fmt: skip


def _like_the_label(
    asked: Callable[[Any], list[Any]],
    dtypes: Mapping[str, str],
    features: Sequence[str],
    label: str,
) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield features that say the label in other words, with how, and at how many rows."""
    import ibis

    plain = [
        name for name in features
        if not (ibis.dtype(dtypes[name]).is_nested() or ibis.dtype(dtypes[name]).is_json()
                or ibis.dtype(dtypes[name]).is_binary())
    ]  # fmt: skip
    counts = leakage.likeness(dtypes, plain, label)
    found = counts.told(asked(counts.table))
    target = found[label]
    if (target["values"] or 0) < 2:
        return
    means = {
        name: {what: value for what, value in facts.items() if what.endswith(("own", "label"))}
        for name, facts in found.items()
        if name != label
    }
    counts = leakage.spreads(dtypes, means, label)
    if counts:
        for column, held in counts.told(asked(counts.table)).items():
            for prefix, what in (("", "correlation"), ("missing_", "missing")):
                found[column][what] = _correlation(held, prefix)
    is_binary = target["values"] == 2 and "max" in target
    for name in plain:
        facts = found[name]
        both = int(facts["both"] or 0)
        if both < FEWEST:
            continue
        how = _told(facts, both)
        kind = ibis.dtype(dtypes[name])
        if how is None and is_binary and (kind.is_numeric() or kind.is_boolean()):
            area = asked(leakage.auc(dtypes, name, label, float(target["max"])))[0]
            if area is not None and max(area, 1 - area) >= SEPARATED:
                how = (
                    "tells its two values apart: the area under the ROC curve is "
                    f"{max(area, 1 - area):.3f} over {both:,} rows"
                )
        if how is None and kind.is_string() and target["values"] <= both / 10:
            told, of, categories = asked(leakage.purity(dtypes, name, label))
            if of and categories <= of / 10 and told / of >= SEPARATED:
                how = f"its value alone tells it right at {told / of:.1%} of {both:,} rows"
        if how is not None:
            yield name, (how, both)


def _correlation(sums: Mapping[str, Any], prefix: str) -> float | None:
    own, label, both = (sums.get(f"{prefix}{what}") for what in ("own", "label", "both"))
    if not own or not label or both is None:
        return None
    return float(both) / math.sqrt(float(own) * float(label))


def _told(facts: Mapping[str, Any], both: int) -> str | None:
    if "equal" in facts and (facts["equal"] or 0) / both >= EQUAL:
        return f"equals it at {facts['equal'] / both:.1%} of {both:,} rows"
    correlation = facts.get("correlation")
    if correlation is not None and abs(correlation) >= CORRELATED:
        return f"goes with it: their correlation is {correlation:.3f} over {both:,} rows"
    missing = facts.get("missing")
    if missing is not None and abs(missing) >= CORRELATED:
        return f"is NULL where it is so: the correlation is {missing:.3f}"
    return None
