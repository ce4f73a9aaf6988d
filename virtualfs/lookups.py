"""What goes to a warehouse when a few keys are looked up, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from virtualfs.compiler.plan import RESERVED
from virtualfs.compiler.rows import CREATED, EVENT, ROW, TIME
from virtualfs.dtypes import integer_bounds, uuids
from virtualfs.errors import SpineError, WarehouseError

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import pyarrow as pa

__all__ = [
    "Columns",
    "KeySpine",
    "PartlyUnreadable",
    "Unreadable",
    "array_of",
    "canonical_value",
    "changed_type",
    "check_type",
    "columns_of",
    "is_same_type",
    "marked",
    "micros_of",
    "uuids_as_text",
    "values_of",
    "within",
]

Columns = Mapping[str, list[Any]]
"""The columns of an answer as Python values; ``__event`` and ``__created`` are microseconds
since 1970. A value that Python cannot hold is an :class:`Unreadable`."""


@dataclass(frozen=True)
class Unreadable:
    """A value that Python cannot hold, such as a date after the year 9999."""

    reason: str


class PartlyUnreadable(dict[str, list[Any]]):
    """The columns of an answer of which some values are :class:`Unreadable`."""


_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)


@dataclass(frozen=True)
class KeySpine:
    """Keys of one view at one instant, numbered in order.

    Parameters
    ----------
    types
        Join keys with their data types.
    keys
        Tuples in the order of `types`.
    instant
        Microseconds since 1970 in UTC.
    """

    types: Mapping[str, str]
    keys: Sequence[tuple[Any, ...]]
    instant: int

    def lists(self) -> list[list[Any]]:
        """Return the spine's columns as lists: row number, naive UTC datetime, join keys."""
        count = len(self.keys)
        at = _EPOCH + timedelta(microseconds=self.instant)
        own = [list(values) for values in zip(*self.keys, strict=True)]
        return [list(range(count)), [at] * count, *own]

    def without_nul(self) -> list[list[Any]]:
        """Return :meth:`lists` without keys that hold a NUL character, which some engines lack.

        No row can have such a key there.
        """
        texts = [number for number, dtype in enumerate(self.types.values()) if dtype == "string"]
        bad = {
            row
            for row, key in enumerate(self.keys)
            if any("\0" in (key[number] or "") for number in texts)
        }
        if not bad:
            return self.lists()
        return [
            [value for row, value in enumerate(column) if row not in bad]
            for column in self.lists()
        ]

    def table(self, instant_type: str) -> pa.Table:
        """Return the spine as Arrow, its instants of the type that the engine's are.

        Raises
        ------
        SpineError
            A key does not fit its type.
        """
        import ibis
        import pyarrow as pa

        at = pa.array([self.instant] * len(self.keys), pa.int64())
        columns: dict[str, Any] = {
            ROW: pa.array(range(len(self.keys)), pa.int64()),
            TIME: at if instant_type == "int64" else at.cast(pa.timestamp("us")),
        }
        for number, (name, dtype) in enumerate(self.types.items()):
            kind = ibis.dtype(dtype).to_pyarrow()
            values = [key[number] for key in self.keys]
            try:
                columns[name] = uuids(values) if dtype == "uuid" else pa.array(values, kind)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise SpineError(f"join key {name!r} does not fit {dtype}: {error}") from None
        return pa.table(columns)


def micros_of(instant: datetime) -> int:
    """Return a naive UTC datetime in microseconds since 1970."""
    return (instant - _EPOCH) // _MICROSECOND


def columns_of(table: pa.Table, schema: Mapping[str, str]) -> dict[str, list[Any]]:
    """Return the columns of an answer as Python values.

    Parameters
    ----------
    schema
        Columns and data types that the compiler expects.

    Raises
    ------
    WarehouseError
        A column has another type than it had when its view was applied.
    """
    import pyarrow as pa

    found = {}
    for name, dtype in schema.items():
        column = table.column(name)
        if name in (EVENT, CREATED):
            found[name] = values_of(column.cast(pa.int64()), "int64")
        else:
            found[name] = values_of(column, dtype)
            if not name.startswith(RESERVED):  # a key's type is that of its entity
                check_type(name, column.type, dtype)
                if column.type != _arrow_type(dtype):
                    found[name] = within(found[name], dtype)
    return marked(found)


def marked(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return columns so that it shows whether some values are unreadable."""
    is_whole = all(Unreadable not in set(map(type, values)) for values in columns.values())
    return columns if is_whole else PartlyUnreadable(columns)


def values_of(column: pa.ChunkedArray, dtype: str) -> list[Any]:
    """Return the values of a column in their canonical form, as the cache gives them back."""
    if dtype in ("int64", "float64") and column.null_count == 0:
        numbers: list[Any] = column.to_numpy().tolist()  # in a fifth of the time
        return numbers
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):  # of one of them
        values = [_value_of(item) for item in column]
    change = canonical_value(dtype)
    if change is None:
        return values
    return [
        value if value is None or isinstance(value, Unreadable) else change(value)
        for value in values
    ]


def within(values: list[Any], dtype: str) -> list[Any]:
    """Return integers with those as unreadable that the stored type does not hold."""
    bounds = integer_bounds(dtype)
    if bounds is None:
        return values
    return [
        value
        if value is None or isinstance(value, Unreadable)
        else int(value)
        if bounds[0] <= value <= bounds[1]
        else Unreadable(f"{value} is out of the range of {dtype}")
        for value in values
    ]


@lru_cache(maxsize=1024)
def _arrow_type(dtype: str) -> pa.DataType:
    import ibis

    return ibis.dtype(dtype).to_pyarrow()


def _value_of(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except (ValueError, OverflowError) as error:
        return Unreadable(str(error) or type(error).__name__)


@lru_cache(maxsize=4096)
def canonical_value(dtype: str) -> Callable[[Any], Any] | None:
    """Return the function that brings a value that is not NULL into its canonical form.

    Zoned times are in UTC, UUIDs are :class:`uuid.UUID`, intervals Arrow's months, days and
    nanoseconds, also within lists, structs and maps. None where every value is canonical.
    """
    if not any(part in dtype for part in ("uuid", "timestamp(", "interval")):
        return None
    import ibis

    return _canonical(ibis.dtype(dtype))


def _canonical(dtype: dt.DataType) -> Callable[[Any], Any] | None:
    if dtype.is_uuid():
        return lambda value: value if isinstance(value, UUID) else _uuid(value)
    if dtype.is_timestamp():
        return _in_utc if dtype.timezone is not None else None
    if dtype.is_interval():
        return _interval
    if dtype.is_array():
        inner = _or_null(_canonical(dtype.value_type))
        return inner and (lambda value: [inner(item) for item in value])
    if dtype.is_map():
        ends = _or_null(_canonical(dtype.key_type)), _or_null(_canonical(dtype.value_type))
        if not any(ends):
            return None
        of_key, of_value = (end or (lambda item: item) for end in ends)
        return lambda value: [(of_key(key), of_value(item)) for key, item in value]
    if dtype.is_struct():
        changes = {name: _or_null(_canonical(kind)) for name, kind in dtype.items()}
        if not any(changes.values()):
            return None
        return lambda value: {
            name: item if (change := changes[name]) is None else change(item)
            for name, item in value.items()
        }
    return None


def _or_null(change: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    return change and (lambda value: None if value is None else change(value))


def _uuid(value: Any) -> UUID:
    return UUID(bytes=value) if isinstance(value, bytes) else UUID(str(value))


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC) if value.tzinfo else value


def _interval(value: Any) -> Any:
    """Return an interval as Arrow writes one that has months; others are time deltas."""
    if not isinstance(value, list | tuple):
        return value
    import pyarrow as pa

    return pa.MonthDayNano(value)


def array_of(values: Sequence[Any], dtype: str) -> pa.Array:
    """Return canonical values as Arrow: UUIDs as text, intervals as they are."""
    import ibis
    import pyarrow as pa

    kind = ibis.dtype(dtype)
    if "uuid" in dtype:
        values = [None if value is None else uuids_as_text(value) for value in values]
    has_months = "interval" in dtype and not all(
        value is None or isinstance(value, timedelta) for value in values
    )
    arrow = _with_months(kind) if has_months else kind.to_pyarrow()
    return pa.array(values, arrow)


def uuids_as_text(value: Any) -> Any:
    """Return a value with the UUIDs in it as text."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list | tuple):
        return type(value)([uuids_as_text(item) for item in value])
    if isinstance(value, dict):
        return {name: uuids_as_text(item) for name, item in value.items()}
    return value


def _with_months(kind: dt.DataType) -> pa.DataType:
    """Return the Arrow type of a data type whose intervals have months, days and nanoseconds."""
    import pyarrow as pa

    if kind.is_interval():
        return pa.month_day_nano_interval()
    if kind.is_array():
        return pa.list_(_with_months(kind.value_type))
    if kind.is_map():
        return pa.map_(_with_months(kind.key_type), _with_months(kind.value_type))
    if kind.is_struct():
        return pa.struct([(name, _with_months(inner)) for name, inner in kind.items()])
    return kind.to_pyarrow()


def check_type(name: str, arrow_type: pa.DataType, dtype: str) -> None:
    """Refuse a column whose type is not the one that was stored when its view was applied.

    Raises
    ------
    WarehouseError
        Its values would be read as something else.
    """
    found = _type_of(arrow_type)
    if not ("interval" in dtype if found is None else is_same_type(found, dtype)):
        raise changed_type(name, dtype, str(found or arrow_type))


@lru_cache(maxsize=4096)
def _type_of(arrow_type: pa.DataType) -> dt.DataType | None:
    """Return the data type of an Arrow column; None for one that Ibis does not know."""
    import ibis
    import pyarrow as pa

    if pa.types.is_dictionary(arrow_type):
        return _type_of(arrow_type.value_type)
    if arrow_type == pa.uuid():
        return ibis.dtype("uuid")
    try:
        return ibis.dtype(arrow_type)
    except Exception:  # noqa: BLE001 - Ibis raises several kinds
        return None


def changed_type(name: str, dtype: str, now: str) -> WarehouseError:
    """Return the error for a column whose type has changed in the warehouse."""
    return WarehouseError(
        f"column {name!r} is {now} in the warehouse and was {dtype} when its view was applied; "
        "plan and apply the view again, or change the column back"
    )


@lru_cache(maxsize=4096)
def is_same_type(found: dt.DataType, dtype: str) -> bool:
    """Tell whether the type that a warehouse tells of a column is the stored one.

    What expressions lose of a type, such as the precision of a decimal, does not count. Nor does
    the width of an integer, of which :func:`within` judges the values.
    """
    import ibis

    return _same(found, ibis.dtype(dtype))


def _same(found: Any, wanted: Any) -> bool:
    if wanted.is_array():
        return bool(found.is_array() and _same(found.value_type, wanted.value_type))
    if wanted.is_map():
        return bool(
            found.is_map()
            and _same(found.key_type, wanted.key_type)
            and _same(found.value_type, wanted.value_type)
        )
    if wanted.is_struct():
        return bool(
            found.is_struct()
            and found.names == wanted.names
            and all(_same(own, other) for own, other in zip(found.types, wanted.types, strict=True))
        )
    if wanted.is_integer():  # which some engines write as decimals without places
        return bool(found.is_integer() or (found.is_decimal() and found.scale == 0))
    if wanted.is_timestamp():
        zones = found.is_timestamp() and (found.timezone is None, wanted.timezone is None)
        return bool(zones and zones[0] == zones[1])
    if wanted.is_uuid() or wanted.is_json() or wanted.is_inet() or wanted.is_macaddr():
        # What has no type of its own in Arrow comes as text.
        return type(found) is type(wanted) or found.is_string()
    return type(found) is type(wanted)
