"""Files that a spine's time range cannot need are not read.

A view over files reads no file, and no group of rows, that lies wholly outside of the instants that
are asked about: rows after the last of them are not visible, and what is older than the TTL or the
longest window before the first gives nothing. The statement says so by conditions on the source's
own event timestamp and on its partitions; the engine compares them with the names of folders, the
log of a table, and the statistics inside files. The conditions leave out whole days only, so they
never decide what a zone, a boundary or a delay should: the strategies go by the rules as ever.

The two ends are known when a spine stands in its table; until then placeholders stand for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.plan import Part, ResolvedView, TimeRange
from virtualfs.definitions.duration import format_duration, parse_duration

__all__ = ["EVER", "bind_range", "has_range", "misplaced_rows", "reach_of", "rows_in_range"]

EVER = None
"""The reach of what depends on rows however old."""
_FIRST, _LAST = "__virtualfs_first", "__virtualfs_last"
_PLACE = re.compile(rf"'(?P<end>{_FIRST}|{_LAST})(?: - (?P<reach>\w+))?'")
_SLACK = timedelta(days=1)
"""More than any zone is away from UTC, so that times without one need not be told apart."""
_FORMATS = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "date": "%Y-%m-%d"}
_WIDTHS = {"year": 4, "month": 2, "day": 2, "hour": 2, "date": 10}


def reach_of(part: Part) -> timedelta | None:
    """Return how old a row may be and still count for a training set; `EVER` if any may."""
    view = part.view
    if view.is_aggregate:
        asked = {feature for feature, _ in part.outputs}
        windows = [
            feature.aggregate for feature in view.features
            if feature.name in asked and feature.aggregate is not None
        ]  # fmt: skip
        if any(aggregate.window is None for aggregate in windows):
            return EVER
        longest = max(
            (item.window + item.offset for item in windows if item.window is not None),
            default=timedelta(0),
        )
        return longest + view.availability_delay
    return view.ttl if view.ttl and not view.valid_to else EVER


def rows_in_range(view: ResolvedView, reach: timedelta | None, capabilities: Capabilities) -> str:
    """Return the SELECT of a view's rows, of files only those that instants of a range can need."""
    if view.time_range is None:
        return view.rows_sql
    ends: list[tuple[type[exp.LTE | exp.GTE], str]] = [(exp.LTE, _LAST)]
    if reach is not None:
        ends.append((exp.GTE, f"{_FIRST} - {format_duration(reach)}"))
    conditions = [
        condition
        for compare, end in ends
        for condition in _conditions(view.time_range, compare, end)
    ]
    return _where(view, exp.and_(*conditions, copy=False), capabilities)


def misplaced_rows(view: ResolvedView, capabilities: Capabilities) -> str | None:
    """Return the SELECT of rows that lie in folders of other times; None where none can.

    One day off is none: folders may be named by the days of any zone.
    """
    if view.time_range is None or not view.time_range.partitions:
        return None
    event = exp.cast(_column(view.time_range.column), "TIMESTAMP")
    day = exp.Interval(this=exp.Literal.string("1"), unit=exp.var("DAY"))
    off = [
        exp.not_(_or_unknown(condition))
        for compare, end in ((exp.LTE, event + day), (exp.GTE, event.copy() - day.copy()))
        for condition in _partition_conditions(view.time_range, compare, end)
    ]
    return _where(view, exp.or_(*off, copy=False), capabilities)


_SOURCE = sql.reserved("source")
_BEFORE = "source"
"""What files were called by earlier releases, whose statements are kept."""


def _where(view: ResolvedView, condition: exp.Expr, capabilities: Capabilities) -> str:
    """Return the SELECT of a view's rows of files, with a condition on the files' own columns.

    It stands behind the files, which nothing but their new names may follow.
    """
    dialect = capabilities.dialect
    named = f" AS {sql.quoted(_SOURCE, dialect)}"
    if named not in view.rows_sql:
        named = f" AS {sql.quoted(_BEFORE, dialect)}"
        for column in condition.find_all(exp.Column):
            column.set("table", sql.identifier(_BEFORE))
    before, files, after = view.rows_sql.rpartition(named)
    where = sql.text(exp.Where(this=condition), dialect).strip()
    return f"{before}{files}\n{where}{after}"


def _conditions(where: TimeRange, compare: type[exp.LTE | exp.GTE], end: str) -> Iterator[exp.Expr]:
    kind = "DATE" if where.dtype == "date" else "TIMESTAMPTZ" if "'" in where.dtype else "TIMESTAMP"
    yield compare(this=_column(where.column), expression=_instant(end, kind))
    instant = _instant(end, "TIMESTAMP")
    yield from map(_or_unknown, _partition_conditions(where, compare, instant))


def _partition_conditions(
    where: TimeRange, compare: type[exp.LTE | exp.GTE], end: exp.Expr
) -> Iterator[exp.Expr]:
    """Yield what the names of folders must be, compared with an instant, coarse units first.

    Written without casts of columns: an engine looks at folders' names only by what cannot fail.
    """
    strictly = exp.LT if compare is exp.LTE else exp.GT
    by_unit = {partition.unit: partition for partition in where.partitions}
    units = ["date"] if "date" in by_unit else [unit for unit in _FORMATS if unit in by_unit]
    found: exp.Expr | None = None
    for unit in reversed(units):
        name, dtype = by_unit[unit].name, by_unit[unit].dtype
        at = _said(unit, dtype, end)
        if found is None:
            found = compare(this=_column(name), expression=at)
        else:
            same = exp.EQ(this=_column(name), expression=at.copy())
            before = strictly(this=_column(name), expression=at)
            found = exp.or_(before, exp.and_(same, found))
        if dtype == "string":  # text compares as numbers do only where it is as long
            length = exp.Length(this=_column(name))
            width = exp.Literal.number(_WIDTHS[unit])
            found = exp.or_(found, exp.NEQ(this=length, expression=width))
    if found is not None:
        yield found


def _said(unit: str, dtype: str, instant: exp.Expr) -> exp.Expr:
    """Return what a folder of an instant is named by, as the engine reads the name."""
    if dtype == "string":
        return exp.func("strftime", instant.copy(), exp.Literal.string(_FORMATS[unit]))
    if unit != "date":
        return exp.func(unit, instant.copy())
    if dtype in ("date", "timestamp"):
        return exp.cast(instant.copy(), "DATE")
    year, month, day = (exp.func(part, instant.copy()) for part in ("year", "month", "day"))
    return exp.Paren(this=year * 10_000 + month * 100 + day)


def _column(name: str) -> exp.Column:
    return exp.column(sql.identifier(name), _SOURCE, quoted=True)


def _instant(text: str, kind: str) -> exp.Expr:
    return exp.cast(exp.Literal.string(text), kind)


def _or_unknown(condition: exp.Expr) -> exp.Expr:
    # Rows in the folder of those without a value may be of any time.
    return exp.func("coalesce", condition, exp.true())


def has_range(statement: str) -> bool:
    """Tell whether the ends of a range have to be bound before a statement runs."""
    return _LAST in statement


def bind_range(statement: str, first: int | None, last: int | None) -> str:
    """Return a statement with the ends of the range that its spine asks about.

    Parameters
    ----------
    first, last
        Microseconds since 1970 in UTC; None where the spine has no instant.

    Examples
    --------
    >>> bind_range("at >= CAST('__virtualfs_first - 7d' AS DATE)", 0, 0)
    "at >= CAST('1969-12-24 00:00:00' AS DATE)"
    """

    def end(match: re.Match[str]) -> str:
        if match["end"] == _LAST:
            return f"'{_written(last, _SLACK, '-infinity', 'infinity')}'"
        reach = parse_duration(match["reach"]) + _SLACK
        return f"'{_written(first, -reach, 'infinity', '-infinity')}'"

    return _PLACE.sub(end, statement)


def _written(micros: int | None, moved: timedelta, nothing: str, beyond: str) -> str:
    if micros is None:
        return nothing
    try:
        return str(datetime(1970, 1, 1) + timedelta(microseconds=micros) + moved)
    except OverflowError:  # an instant for ever, or before all years
        return beyond
