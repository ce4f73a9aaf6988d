"""The oracle: the meaning of latest values and of windows as plain loops over rows.

Written from the rules of the design document (their numbers stand beside the lines), it shares
nothing with the compiler: no Ibis, no SQL, no Arrow. It is slow and short on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal
from zoneinfo import ZoneInfo

__all__ = ["Row", "aggregated", "instant", "latest", "windowed"]

Row = Mapping[str, Any]

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


def instant(value: Any, timezone: str, rounding: Literal["up", "down"]) -> int | None:
    """Return a time as whole microseconds since 1970 in UTC (rule 9).

    Parameters
    ----------
    value
        A datetime (naive ones are meant in `timezone`), a date (midnight in `timezone`), an
        integer of nanoseconds on the clock of `timezone`, or None.
    timezone
        IANA name. Where clocks are set back a wall time means its later instant, so that nothing
        is seen too early.
    rounding
        What happens to nanoseconds: ``"up"`` for features, ``"down"`` for spines.

    Examples
    --------
    >>> instant(1, "UTC", "up"), instant(1, "UTC", "down"), instant(-1, "UTC", "down")
    (1, 0, -1)
    >>> instant(date(1970, 1, 2), "America/New_York", "up") // 3_600_000_000
    29
    """
    if value is None:
        return None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (value.astimezone(UTC).replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    if isinstance(value, datetime):
        wall = value
    elif isinstance(value, date):
        wall = datetime(value.year, value.month, value.day)
    else:
        whole, rest = divmod(value, 1000)
        wall = _EPOCH + timedelta(microseconds=whole + (rest > 0 and rounding == "up"))
    zone = ZoneInfo(timezone)
    readings = [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    return (max(readings).replace(tzinfo=None) - _EPOCH) // _MICROSECOND


def latest(
    spine_rows: Sequence[Row],
    source_rows: Sequence[Row],
    *,
    join_keys: Mapping[str, str],
    event: str | None,
    created: str | None = None,
    valid_to: str | None = None,
    late_data: Literal["include", "exclude"] = "include",
    timestamp: str = "event_timestamp",
    ttl: timedelta | None = None,
    boundary: Literal["inclusive", "exclusive"] = "inclusive",
    delay: timedelta = timedelta(0),
    timezone: str = "UTC",
) -> list[list[Row | None]]:
    """Return, for each spine row, the source rows that may answer it.

    Parameters
    ----------
    spine_rows, source_rows
        Rows as dicts. Times as in :func:`instant`; naive ones of the spine are UTC.
    join_keys
        The view's keys, mapped to the spine columns that hold them; empty for no entity.
    event, created
        Columns of the source; None for a static source, or one that knows no created timestamp.
    valid_to
        Column of the end of an SCD2 row, `event` being its beginning.
    late_data
        Whether rows count that were written after the spine row's instant.
    timestamp
        The spine's column of instants; not read for a static source.
    ttl, boundary, delay, timezone
        The view's and the source's settings.

    Returns
    -------
    list of list
        One list per spine row, never empty. Several rows where they are fully tied, of which the
        answer is any one, taken whole; ``[None]`` where the answer is NULLs.

    Examples
    --------
    >>> rows = [{"k": 1, "at": datetime(2024, 1, 1), "x": 1}]
    >>> spine = [{"k": 1, "t": datetime(2024, 1, 1)}, {"k": None, "t": datetime(2024, 1, 1)}]
    >>> found = latest(spine, rows, join_keys={"k": "k"}, event="at", timestamp="t")
    >>> found == [rows, [None]]
    True
    """
    answers: list[list[Row | None]] = []
    for spine_row in spine_rows:
        best: tuple[int, float] | None = None
        winners: list[Row | None] = []
        t = None if event is None else instant(spine_row[timestamp], "UTC", "down")
        for row in source_rows:
            # Rule 8: column by column; NULL equals nothing, not even NULL.
            if not all(
                row[key] is not None and row[key] == spine_row[column]
                for key, column in join_keys.items()
            ):
                continue
            rank: tuple[int, float] = (0, 0)
            if event is not None:
                at = instant(row[event], timezone, "up")
                if t is None or at is None:  # Rule 8.
                    continue
                # Rule 2.
                known = at + delay // _MICROSECOND
                if known > t or (known == t and boundary == "exclusive"):
                    continue
                # Rule 10.
                end = instant(row[valid_to], timezone, "up") if valid_to else None
                if end is not None and t >= end + delay // _MICROSECOND:
                    continue
                # Rule 7: written by t, whatever the boundary; NULL is unknown, so not by t.
                written = instant(row[created], timezone, "up") if created else None
                if late_data == "exclude" and created and (written is None or written > t):
                    continue
                # Rule 3: the created timestamp decides ties, NULL lowest.
                rank = (at, float("-inf") if written is None else written)
            if best is None or rank > best:
                best, winners = rank, [row]
            elif rank == best:
                winners.append(row)
        # Rule 4: judged on the winner alone, strictly, the delay not counted.
        age = t - best[0] if t is not None and best is not None else 0
        if ttl is not None and age > ttl // _MICROSECOND:
            winners = [None]
        answers.append(winners or [None])
    return answers


def windowed(
    spine_rows: Sequence[Row],
    source_rows: Sequence[Row],
    *,
    join_keys: Mapping[str, str],
    event: str,
    value: Callable[[Row], Any],
    window: timedelta | None,
    offset: timedelta = timedelta(0),
    created: str | None = None,
    late_data: Literal["include", "exclude"] = "include",
    timestamp: str = "event_timestamp",
    boundary: Literal["inclusive", "exclusive"] = "exclusive",
    delay: timedelta = timedelta(0),
    timezone: str = "UTC",
) -> list[list[list[Any]]]:
    """Return, for each spine row, the values that lie in its window, none of them None.

    Parameters
    ----------
    value
        Returns what an aggregate is over, of a row; None where the row does not count.
    window
        Its length; None for everything so far.
    offset
        How long before the instant it ends.

    Returns
    -------
    list of list of list
        Per spine row the values in groups of one rank (event, created), the oldest group first.
        Within a group the order is not told.

    Examples
    --------
    >>> rows = [{"k": 1, "at": datetime(2024, 1, day), "x": day} for day in (1, 2, 3)]
    >>> spine = [{"k": 1, "t": datetime(2024, 1, 3)}]
    >>> windowed(spine, rows, join_keys={"k": "k"}, event="at", timestamp="t",
    ...          value=lambda row: row["x"], window=timedelta(days=1))
    [[[2]]]
    """
    answers = []
    for spine_row in spine_rows:
        t = instant(spine_row[timestamp], "UTC", "down")
        ranked: dict[tuple[int, float], list[Any]] = {}
        for row in source_rows:
            # Rule 8.
            if t is None or not all(
                row[key] is not None and row[key] == spine_row[column]
                for key, column in join_keys.items()
            ):
                continue
            at = instant(row[event], timezone, "up")
            if at is None:
                continue
            # Rule 6: [end - w, end) or (end - w, end], on the event with the delay added.
            known = at + delay // _MICROSECOND
            end = t - offset // _MICROSECOND
            start = float("-inf") if window is None else end - window // _MICROSECOND
            inside = start <= known < end if boundary == "exclusive" else start < known <= end
            # Rule 7, whatever the offset.
            written = instant(row[created], timezone, "up") if created else None
            if late_data == "exclude" and created and (written is None or written > t):
                continue
            held = value(row)
            if inside and held is not None:
                rank = (at, float("-inf") if written is None else written)
                ranked.setdefault(rank, []).append(held)
        answers.append([ranked[rank] for rank in sorted(ranked)])
    return answers


def aggregated(function: str, groups: Sequence[Sequence[Any]], q: float | None = None) -> Any:
    """Return an aggregate of a window's values, which are not told by order.

    Examples
    --------
    >>> aggregated("mean", [[1], [2, 6]]), aggregated("sum", []), aggregated("count", [])
    (3.0, None, 0)
    """
    values = [value for group in groups for value in group]
    if function == "count":
        return len(values)
    if function in ("count_distinct", "approx_count_distinct"):
        return len(set(values))
    if not values or (function in ("std", "var") and len(values) < 2):
        return None
    if function in ("min", "max"):
        return min(values) if function == "min" else max(values)
    exact = [Fraction(value) for value in values]
    if function == "sum":
        total = sum(exact)
        if any(isinstance(value, float) for value in values):
            return float(total)
        return Decimal(total.numerator) / total.denominator if _is_decimal(values) else int(total)
    mean = sum(exact) / len(exact)
    if function == "mean":
        return float(mean)
    if function in ("std", "var"):
        variance = sum((value - mean) ** 2 for value in exact) / (len(exact) - 1)
        return float(variance) if function == "var" else math.sqrt(variance)
    place = Fraction(0.5 if q is None else q) * (len(exact) - 1)
    ordered = sorted(exact)
    low = ordered[math.floor(place)]
    high = ordered[math.ceil(place)]
    return float(low + (high - low) * (place - math.floor(place)))


def _is_decimal(values: Sequence[Any]) -> bool:
    return any(isinstance(value, Decimal) for value in values)
