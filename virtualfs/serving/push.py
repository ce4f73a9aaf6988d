"""Pushed rows: typed, checked as a whole, and put into the cache where newer wins."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from virtualfs.compiler.plan import ResolvedView
from virtualfs.definitions.duration import format_duration, microseconds
from virtualfs.display import Block, Grid, Note, Shown
from virtualfs.dtypes import type_name
from virtualfs.errors import NotFoundError, Problem, SpineError, did_you_mean
from virtualfs.lookups import canonical_value
from virtualfs.serving.codec import Row, from_micros, to_micros
from virtualfs.serving.flights import Key
from virtualfs.serving.request import checked_value, row_dicts

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt

__all__ = ["PAST_CACHE", "PushResult", "count", "kept_for", "pushed_rows", "refuse_push"]

_SHOWN = 20
"""Bad rows that an error names."""
PAST_CACHE = "goes past the cache, because its keys compare by a collation that has no other form"
_SCALAR = re.compile(r"(boolean|u?int\d+|float\d+|decimal|string|binary|timestamp|date|uuid)(\(|$)")


@dataclass(frozen=True)
class PushResult(Shown):
    """What became of pushed rows.

    Parameters
    ----------
    written
        Rows that stand in the cache now.
    dropped
        Rows that were not newer than what the cache had, or already over the view's TTL.
    """

    view: str
    written: int
    dropped: int

    def _blocks(self) -> list[Block]:
        heads = ("view", "written", "older, dropped")
        return [Note("Pushed rows", strong=True),
                Grid(heads, [(self.view, self.written, self.dropped)])]  # fmt: skip


def refuse_push(view: ResolvedView) -> None:
    """Raise NotFoundError if a view takes no pushed rows."""
    if not view.online:
        raise NotFoundError(f"{view.label} is not offered online (online=False)")
    if not view.is_cacheable:
        raise NotFoundError(f"{view.label} {PAST_CACHE}; write the rows to its source instead")
    if view.is_aggregate:
        raise NotFoundError(
            f"{view.label} holds aggregates, which are computed from all rows of a window; write "
            "the rows to its source instead"
        )
    if view.event_timestamp is None or view.valid_to is not None:
        what = "is static" if view.event_timestamp is None else "has validity ranges (SCD2)"
        raise NotFoundError(
            f"{view.label} {what}, so no event timestamp says which of two rows is the newer; "
            "write to its source, and invalidate its keys"
        )


def pushed_rows(view: ResolvedView, rows: Any, now: datetime) -> list[tuple[Key, Row]]:
    """Return rows that a caller pushes, checked and in canonical types.

    Parameters
    ----------
    rows
        A table, a list of dicts or a dict of lists: join keys, the view's times, all features.
    now
        The instant after which no event may lie.

    Raises
    ------
    SpineError
        Some rows are wrong; the message numbers them, and none of them is taken.
    """
    given = row_dicts(rows, "rows")
    times = [name for name in (view.event_timestamp, view.created_timestamp) if name]
    needed = dict.fromkeys([*view.join_keys, *times, *view.feature_names])
    types = {name: view.columns[name] for name in times} | view.join_keys
    types |= {feature.name: feature.dtype for feature in view.features}
    checkers = {name: _checker(types[name]) for name in needed}
    latest = to_micros(now) - view.lag
    zone = ZoneInfo(view.timezone)
    found: list[tuple[Key, Row]] = []
    wrong: list[Problem] = []
    for number, row in enumerate(given):
        try:
            typed = _typed(view, row, checkers)
            event = _instant(typed[view.event_timestamp or ""], zone)
            if event > latest:
                raise SpineError(
                    f"event time {from_micros(event).isoformat()} is not visible yet at "
                    f"{now.isoformat()}{_because(view)}"
                )
        except SpineError as error:
            wrong.append(((number,), str(error)))
            continue
        created = typed[view.created_timestamp] if view.created_timestamp else None
        key = tuple([typed[name] for name in view.join_keys])
        values = tuple([typed[name] for name in view.feature_names])
        written = None if created is None else _instant(created, zone)
        found.append((key, Row(None, event, True, values, written, to_micros(now))))
    if wrong:
        told = [f"row {number}: {text}" for (number,), text in wrong[:_SHOWN]]
        more = [f"and {len(wrong) - _SHOWN:,} more"] if len(wrong) > _SHOWN else []
        raise SpineError(
            f"push to {view.label}: {len(wrong):,} of {len(given):,} rows are wrong, and none was "
            "pushed:\n  " + "\n  ".join([*told, *more]),
            problems=wrong,
        )
    return found


def _because(view: ResolvedView) -> str:
    if view.availability_delay:
        return (
            f" (its availability_delay is {format_duration(view.availability_delay)}, so training "
            "would not see it yet)"
        )
    return ""


def _typed(
    view: ResolvedView, row: Any, checkers: Mapping[str, Callable[[Any, str], Any]]
) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise SpineError(f"is {type(row).__name__}, expected a dict")
    missing = [name for name in checkers if name not in row]
    if missing:
        raise SpineError(
            f"lacks {', '.join(missing)}; a row is pushed whole, with None (null) for NULL"
        )
    unknown = [str(name) for name in row if name not in checkers]
    if unknown:
        raise SpineError(f"has no column {unknown[0]!r}. {did_you_mean(unknown[0], checkers)}")
    typed = {name: check(row[name], name) for name, check in checkers.items()}
    for name in (*view.join_keys, view.event_timestamp):
        if name is not None and typed[name] is None:
            raise SpineError(f"{name} is NULL")
    return typed


def _checker(dtype: str) -> Callable[[Any, str], Any]:
    """Return what checks a value and gives it as the cache and the warehouse give it."""
    if _SCALAR.match(dtype):

        def scalar(value: Any, name: str) -> Any:
            if isinstance(value, float) and value != value and dtype.startswith("float"):
                return value  # of features NaN is a number like any other
            return checked_value(value, dtype, name)

        return scalar
    import ibis

    kind = ibis.dtype(dtype)

    def nested(value: Any, name: str) -> Any:
        try:
            return _of_type(value, kind, name)
        except SpineError:
            raise SpineError(f"{name}: expected {dtype}, not {value!r}") from None

    return nested


def _of_type(value: Any, kind: dt.DataType, name: str) -> Any:
    """Return a value of any type, nested ones too, in its canonical form."""
    if value is None:
        return None
    if kind.is_array() and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_of_type(item, kind.value_type, name) for item in value]
    if kind.is_map():
        pairs = [*value.items()] if isinstance(value, Mapping) else value
        if isinstance(pairs, Sequence) and all(_is_pair(pair) for pair in pairs):
            return [
                (_of_type(key, kind.key_type, name), _of_type(item, kind.value_type, name))
                for key, item in pairs
            ]
    if kind.is_struct() and isinstance(value, Mapping) and set(value) <= set(kind.names):
        return {field: _of_type(value.get(field), inner, name) for field, inner in kind.items()}
    dtype = type_name(kind) or str(kind)
    if _SCALAR.match(dtype):
        return _checker(dtype)(value, name)
    change = canonical_value(dtype)
    fits = (
        (kind.is_time() and isinstance(value, time))
        or (kind.is_interval() and isinstance(value, timedelta | tuple))
        or (not (kind.is_nested() or kind.is_time() or kind.is_interval()) and type(value) is str)
    )
    if not fits:
        raise SpineError(f"{name}: expected {dtype}, not {value!r}")
    return change(value) if change is not None else value


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _instant(value: date | datetime, zone: ZoneInfo) -> int:
    """Return a time in microseconds: naive ones are in the source's zone, dates are midnight."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=zone, fold=1)
    return to_micros(value.astimezone(UTC))


def kept_for(view: ResolvedView, row: Row, now: datetime) -> float | None:
    """Return the seconds until a pushed row's TTL ends: 0 if it has, None without a TTL."""
    if view.ttl is None or row.event is None:
        return None
    return max(0.0, (row.event + microseconds(view.ttl) - to_micros(now)) / 1e6)


def count(view: ResolvedView, stays: Sequence[bool], dropped: int) -> PushResult:
    """Return what became of a batch."""
    return PushResult(view.label, sum(stays), dropped + len(stays) - sum(stays))
