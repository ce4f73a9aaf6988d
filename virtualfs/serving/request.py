"""What an online read asks for, checked before anything runs: plan, join keys, request inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any
from uuid import UUID

from virtualfs.compiler.plan import (
    FeaturePlan,
    OnDemandSelection,
    Selection,
    plan_features,
    request_inputs,
)
from virtualfs.dtypes import integer_bounds
from virtualfs.errors import NotFoundError, SpineError

__all__ = ["checked_value", "entity_keys", "plan_online", "request_rows", "row_dicts"]


_EXPECTED: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "date": date,
    "time": time,
    "timestamp": datetime,
    "uuid": UUID,
    "binary": bytes,
    "float32": (float, int),
    "float64": (float, int),
    "decimal": (Decimal, int),
}


def plan_online(
    selections: Sequence[Selection | OnDemandSelection], *, at_hand: bool = True
) -> FeaturePlan:
    """Return the plan of an online read; its output columns have the names of training's.

    Parameters
    ----------
    at_hand
        Whether it is about now, for which views may be not offered.

    Raises
    ------
    NotFoundError
        A view is not offered online.
    """
    offline = sorted(
        {view.name for item in selections for view in (item.view, *item.views) if not view.online}
    )
    if offline and at_hand:
        raise NotFoundError(f"not offered online (online=False): {', '.join(offline)}")
    keys = {key for item in selections for key in item.key_columns}
    return plan_features(selections, keys | set(request_inputs(selections)))


def request_rows(
    plan: FeaturePlan, request: Any, keys: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the request inputs of each entity, checked and in canonical types.

    An input that is also a join key is taken from the entity.

    Parameters
    ----------
    request
        One dict for all entities, a list with one for each, or a dict of lists.

    Raises
    ------
    SpineError
        A request input is missing or mistyped, or their number is not that of the entities.
    """
    if not plan.request:
        return []
    needed = plan.request_columns
    own = [name for name in plan.request if name not in needed]
    given = [] if request is None else request
    if _is_frame(given):
        given = _columns_of(given)
    if isinstance(given, Mapping):
        if any(_is_list(given.get(name)) for name in needed):
            given = _rows_of(given, "request inputs")
        else:
            given = [given] * len(keys)
    if needed and not given:
        given = [{}] * len(keys)
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise SpineError("request= is a dict, or a list with one dict for each entity")
    if needed and len(given) != len(keys):
        raise SpineError(
            f"request= has {len(given)} entries for {len(keys)} entities; give one dict for all "
            "of them, or one for each"
        )
    rows = []
    for number, entity in enumerate(keys):
        row = {name: entity[name] for name in own}
        for name, dtype in needed.items():
            if not isinstance(given[number], Mapping) or name not in given[number]:
                raise SpineError(
                    f"entity {number} lacks the request input {name!r} ({dtype}); pass it by "
                    f"request={{{name!r}: ...}}"
                )
            value = given[number][name]
            where = f"entity {number}, request input {name!r}"
            is_nan = isinstance(value, float) and value != value and dtype == "float64"
            # Of what is computed with, NaN is a number like any other.
            row[name] = float(value) if is_nan else checked_value(value, dtype, where)
        rows.append(row)
    return rows


def entity_keys(plan: FeaturePlan, entities: Any) -> list[dict[str, Any]]:
    """Return the join keys of each entity, checked and in canonical types.

    Raises
    ------
    SpineError
        A join key is missing or mistyped; the message says at which entity.
    """
    given = row_dicts(entities, "entities")
    columns = plan.key_columns
    checked: dict[str, list[Any]] = {}
    for name, dtype in columns.items():
        try:
            values = [entity[name] for entity in given]
        except (KeyError, TypeError, IndexError):
            raise _lacking(given, name) from None
        # Most are keys of their type to begin with.
        quick = _QUICK.get(dtype)
        if quick is None or not set(map(type, values)) <= {quick} or not _are_whole(values, dtype):
            values = [
                checked_value(value, dtype, f"entity {number}, join key {name!r}")
                for number, value in enumerate(values)
            ]
        checked[name] = values
    if len(columns) == 1:
        ((name, values),) = checked.items()
        return [{name: value} for value in values]
    if not columns:
        for number, entity in enumerate(given):
            if not isinstance(entity, Mapping):
                raise _not_keys(number, entity)
        return [{} for _ in given]
    names = list(checked)
    return [dict(zip(names, row, strict=True)) for row in zip(*checked.values(), strict=True)]


_QUICK: dict[str, type] = {"string": str, "int64": int}


def _are_whole(values: Sequence[Any], dtype: str) -> bool:
    """Tell whether keys of the quick types are in range, or can be encoded."""
    if dtype == "int64":
        return not values or -(2**63) <= min(values) <= max(values) < 2**63
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _lacking(given: Sequence[Any], name: str) -> SpineError:
    """Return the error of the first entity that lacks a join key."""
    number, entity = next(
        (number, entity)
        for number, entity in enumerate(given)
        if not isinstance(entity, Mapping) or name not in entity
    )
    if not isinstance(entity, Mapping):
        return _not_keys(number, entity)
    return SpineError(
        f"entity {number} lacks the join key {name!r}; it has "
        f"{', '.join(map(str, entity)) or 'none'}"
    )


def _not_keys(number: int, entity: Any) -> SpineError:
    return SpineError(f"entity {number} is {type(entity).__name__}, expected a dict of keys")


def row_dicts(given: Any, what: str) -> Sequence[Any]:
    """Return rows given as a table, a dict of lists or a list of dicts, as the last.

    Parameters
    ----------
    what
        What they are called in messages.

    Raises
    ------
    SpineError
        They are something else, or lists of different lengths.
    """
    if _is_frame(given):
        given = _columns_of(given)
    if isinstance(given, Mapping):
        for name, values in given.items():
            if not _is_list(values):
                raise SpineError(
                    f"{name!r}: expected a list of values, not {values!r}; a single one of "
                    f"{what} is a list of one dict: [{{{name!r}: {values!r}}}]"
                )
        given = _rows_of(given, what)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise SpineError(f"{what} must be a list of dicts, a dict of lists, or a table")
    return given


def _rows_of(columns: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    """Return a dict of lists as a list of dicts."""
    lists = {name: [*values] for name, values in columns.items() if _is_list(values)}
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise SpineError(f"the lists of {what} differ in length: {lengths}")
    count = next(iter(lengths.values()), 0)
    single = {name: value for name, value in columns.items() if name not in lists}
    return [
        {**single, **{name: values[row] for name, values in lists.items()}} for row in range(count)
    ]


def _is_list(values: Any) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, str | bytes | Mapping)


def _is_frame(value: Any) -> bool:
    """Return whether a value is a table of pandas, polars, pyarrow or another of their kind."""
    return hasattr(value, "columns") and (
        hasattr(value, "__arrow_c_stream__") or hasattr(value, "__dataframe__")
    )


def _columns_of(frame: Any) -> dict[str, list[Any]]:
    """Return the columns of a pandas, polars or pyarrow table as lists."""
    import pyarrow as pa

    table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    columns: dict[str, list[Any]] = table.to_pydict()
    return columns


def checked_value(value: Any, dtype: str, where: str) -> Any:
    """Return a key or a request input in the canonical form of its data type.

    Raises
    ------
    SpineError
        It does not fit; the message says `where`.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = _of_numpy(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "to_pydatetime"):
        if getattr(value, "nanosecond", 0):
            raise SpineError(f"{where}: {value} is finer than a microsecond")
        value = value.to_pydatetime()
        if dtype == "date" and value == datetime(value.year, value.month, value.day):
            value = value.date()  # numpy and pandas have no dates of their own
    if isinstance(value, Decimal) and value.is_snan():
        raise SpineError(f"{where}: {value} is no number")
    if value != value:  # NaN is how pandas writes NULL
        return None
    if dtype == "uuid" and isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            raise SpineError(f"{where}: {value!r} is no UUID") from None
    family, written = dtype.split("(")[0], value
    wanted = _EXPECTED.get(family, int)
    fits = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    if family == "date" and isinstance(value, datetime):
        fits = False
    if family in ("float32", "float64") and fits:
        try:
            value = float(value) + 0.0  # as -0.0 is equal to it
        except OverflowError:
            fits = False
    if family == "decimal" and fits:
        value = _scaled(Decimal(value), dtype)
        fits = value is not None
    if family == "timestamp" and fits:
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        value = value if "'" in dtype else value.replace(tzinfo=None)
    bounds = integer_bounds(dtype)
    if bounds is not None and fits:
        value = int(value)
        if not bounds[0] <= value <= bounds[1]:
            raise SpineError(f"{where}: {value} is out of the range of {dtype}")
    if not fits:
        raise SpineError(f"{where}: expected {dtype}, not {written!r} ({type(written).__name__})")
    return _plain(value, where)


def _of_numpy(value: Any) -> Any:
    """Return a scalar of numpy as Python's own; instants are of pandas where they are fine."""
    if type(value).__name__ == "datetime64":
        import pandas as pd

        found = pd.Timestamp(value)
        return None if found is pd.NaT else found
    return value.item()


def _plain(value: Any, where: str) -> Any:
    """Return a value of a subclass, as frameworks make them, as one of Python's own class.

    Raises
    ------
    SpineError
        A text has half of a character, which no engine takes.
    """
    kind = type(value)
    if kind is str or (kind not in _OWN and isinstance(value, str)):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SpineError(f"{where}: {value!r} is no text that can be encoded") from None
        return value if kind is str else str.__str__(value)
    if kind in _OWN:
        return value
    for own in _OWN:
        if isinstance(value, own):
            return _as_own(value, own)
    return value


_OWN = (str, bool, int, float, bytes, datetime, date, Decimal, UUID)


def _as_own(value: Any, own: type) -> Any:
    if own is datetime:
        parts = (value.year, value.month, value.day, value.hour, value.minute, value.second)
        return datetime(*parts, value.microsecond, value.tzinfo, fold=value.fold)
    if own is date:
        return date(value.year, value.month, value.day)
    if own is UUID:
        return UUID(int=value.int)
    return own.__new__(own, value)


def _scaled(value: Decimal, dtype: str) -> Decimal | None:
    """Return a number with as many decimal places as its type has; None if they do not hold it.

    Keys that are equal have one form in the cache.
    """
    match = re.fullmatch(r"decimal\(\d+, (\d+)\)", dtype)
    if match is None or not value.is_finite():
        return value if value.is_finite() else None
    try:
        scaled = value.quantize(Decimal(1).scaleb(-int(match[1])), context=_EXACT)
    except (Inexact, InvalidOperation):
        return None
    return scaled


_EXACT = Context(prec=76, traps=[Inexact, InvalidOperation])
