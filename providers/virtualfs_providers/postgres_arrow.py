"""Arrow rows into PostgreSQL and out of it: by COPY, as fast as its server takes and gives them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.plan import RESERVED
from virtualfs.compiler.rows import CREATED, EVENT
from virtualfs.errors import WarehouseError
from virtualfs.lookups import (
    Unreadable,
    changed_type,
    is_same_type,
    marked,
    micros_of,
    uuids_as_text,
    values_of,
    within,
)

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import pyarrow as pa

__all__ = [
    "copy_in",
    "copy_out",
    "is_plain",
    "read_as_text",
    "rows_to_arrow",
    "rows_to_columns",
    "sql_type",
    "types_in",
]


def sql_type(dtype: dt.DataType) -> str:
    """Return the type of a column that holds such values; unsigned ones need a wider one."""
    import ibis
    from ibis.backends.sql.datatypes import PostgresType

    if dtype.is_unsigned_integer():
        name = {"uint8": "int16", "uint16": "int32", "uint32": "int64"}.get(
            type(dtype).__name__.lower()
        )
        return sql_type(ibis.dtype(name or "decimal(20, 0)"))
    if dtype.is_timestamp():
        return "timestamp" if dtype.timezone is None else "timestamptz"
    return str(PostgresType.from_ibis(dtype).sql("postgres"))


def is_plain(dtype: dt.DataType) -> bool:
    """Tell whether CSV says all that a value of this type holds."""
    return bool(
        dtype.is_integer()
        or dtype.is_floating()
        or dtype.is_boolean()
        or dtype.is_string()
        or dtype.is_date()
        or dtype.is_timestamp()
    )


def types_in(table: pa.Table) -> list[tuple[str, dt.DataType]]:
    """Return the names and types of Arrow columns."""
    import ibis
    import pyarrow as pa

    uuid = pa.uuid()  # which Ibis does not know
    return [
        (field.name, ibis.dtype("uuid" if field.type == uuid else field.type))
        for field in table.schema
    ]


def copy_in(cursor: Any, quoted: str, table: pa.Table) -> None:
    """Send Arrow rows by COPY: packed by numpy where that can be, as CSV where it says all."""
    import pyarrow.csv as csv

    if table.num_rows == 0:
        return
    packed = _packed(table)
    if packed is not None:
        with cursor.copy(f"COPY {quoted} FROM STDIN (FORMAT binary)") as copy:
            copy.write(packed)
        return
    kinds = [dtype for _, dtype in types_in(table)]
    if all(is_plain(dtype) or dtype.is_decimal() for dtype in kinds):
        with cursor.copy(f"COPY {quoted} FROM STDIN (FORMAT csv)") as copy:
            csv.write_csv(
                table,
                _Sink(copy),
                csv.WriteOptions(include_header=False, quoting_style="all_valid"),
            )
        return
    with cursor.copy(f"COPY {quoted} FROM STDIN") as copy:
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
            copy.write_row(row)


class _Sink(io.RawIOBase):
    """What pyarrow writes CSV to."""

    def __init__(self, copy: Any) -> None:
        self._copy = copy

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._copy.write(bytes(data))
        return len(data)


def _packed(table: pa.Table) -> bytes | None:
    """Return rows in PostgreSQL's binary COPY format; None if a column is not of fixed width."""
    import numpy as np
    import pyarrow as pa

    kinds = {pa.int16(): ">i2", pa.int32(): ">i4", pa.int64(): ">i8", pa.float64(): ">f8"}
    naive = pa.timestamp("us")
    fields: list[tuple[str, str]] = [("count", ">i2")]
    for number, column in enumerate(table.columns):
        kind = ">i8" if column.type == naive else kinds.get(column.type)
        if kind is None or column.null_count:
            return None
        fields += [(f"size_{number}", ">i4"), (f"value_{number}", kind)]
    rows = np.empty(table.num_rows, dtype=fields)
    rows["count"] = table.num_columns
    for number, column in enumerate(table.columns):
        if column.type == naive:
            # PostgreSQL counts from 2000 on.
            column = column.cast(pa.int64())
            rows[f"value_{number}"] = column.to_numpy() - 946_684_800_000_000
        else:
            rows[f"value_{number}"] = column.to_numpy()
        rows[f"size_{number}"] = rows.dtype[f"value_{number}"].itemsize
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"


def copy_out(cursor: Any, statement: str, types: list[tuple[str, dt.DataType]]) -> pa.Table:
    """Run a SELECT by COPY and read its CSV; NULL is what stands without quotes."""
    import pyarrow as pa
    import pyarrow.csv as csv

    buffer = pa.BufferOutputStream()
    with cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)") as copy:
        for data in copy:
            buffer.write(data)
    arrow = {name: dtype.to_pyarrow() for name, dtype in types}
    if not buffer.tell():
        return pa.table({name: pa.array([], kind) for name, kind in arrow.items()})
    try:
        return csv.read_csv(
            pa.BufferReader(buffer.getvalue()),
            csv.ReadOptions(column_names=list(arrow)),
            csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=arrow,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["t"],
                false_values=["f"],
            ),
        )
    except pa.ArrowInvalid as error:
        raise WarehouseError(f"PostgreSQL sent a value that cannot be read: {error}") from None


def rows_to_arrow(rows: list[tuple[Any, ...]], types: list[tuple[str, dt.DataType]]) -> pa.Table:
    """Return rows as Arrow, with what has no Arrow type as text.

    Raises
    ------
    WarehouseError
        A value is wider than its type says.
    """
    import pyarrow as pa

    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(types)
    arrays = {}
    for (name, dtype), values in zip(types, columns, strict=True):
        kind = dtype.to_pyarrow()
        if dtype.is_unknown():
            raise WarehouseError(
                f"PostgreSQL: column {name!r} is {dtype.raw_type}, for which VirtualFS has no data "
                "type; convert it, for example to text, or to seconds by extract(epoch from ...)"
            )
        if dtype.is_array() and "uuid" in str(dtype):
            values = [uuids_as_text(value) for value in values]
        if dtype.is_uuid() or dtype.is_json() or dtype.is_inet():
            kind = pa.string()
            values = [None if value is None else str(value) for value in values]
        if BeyondCalendar in set(map(type, values)):
            arrays[name] = _instants(values, kind)
            continue
        try:
            arrays[name] = pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise WarehouseError(
                f"PostgreSQL: column {name!r} holds a value that does not fit {dtype}: {error}; "
                "cast it, for example to numeric(38, 9)"
            ) from None
    return pa.table(arrays)


def rows_to_columns(
    rows: list[tuple[Any, ...]], types: list[tuple[str, dt.DataType]], schema: Mapping[str, str]
) -> dict[str, list[Any]]:
    """Return rows as :func:`virtualfs.lookups.columns_of` does, without Arrow where that can be."""
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(types)
    found: dict[str, list[Any]] = {}
    for (name, dtype), values in zip(types, columns, strict=True):
        is_beyond = BeyondCalendar in set(map(type, values))
        if name in (EVENT, CREATED):
            found[name] = [
                None
                if value is None
                else value.units
                if is_beyond and isinstance(value, BeyondCalendar)
                else micros_of(value)
                for value in values
            ]
            continue
        if not name.startswith(RESERVED) and not is_same_type(dtype, schema[name]):
            raise changed_type(name, schema[name], str(dtype))
        if _is_native(dtype):
            found[name] = [*values]
            if is_beyond:
                found[name] = [
                    Unreadable(str(value)) if isinstance(value, BeyondCalendar) else value
                    for value in values
                ]
            if dtype.is_string() and bytes in set(map(type, values)):
                # Of types without a loader of their own, as citext, psycopg gives the bytes.
                found[name] = [
                    value.decode() if isinstance(value, bytes) else value for value in values
                ]
        else:
            found[name] = _by_arrow(values, name, dtype, schema[name])
        if _is_other_integer(dtype, schema[name]):
            found[name] = within(found[name], schema[name])
    return marked(found)


@cache
def _is_other_integer(dtype: dt.DataType, stored: str) -> bool:
    return bool(dtype.is_integer() and str(dtype).lstrip("!") != stored)


def _by_arrow(values: Sequence[Any], name: str, dtype: dt.DataType, stored: str) -> list[Any]:
    """Return values in the form that Arrow gives them, those that do not fit as unreadable."""
    try:
        column = rows_to_arrow([(value,) for value in values], [(name, dtype)]).column(name)
    except (WarehouseError, OverflowError) as error:
        if len(values) == 1:
            return [Unreadable(str(error))]
        return [item for value in values for item in _by_arrow([value], name, dtype, stored)]
    return values_of(column, stored)


@cache
def _is_native(dtype: dt.DataType) -> bool:
    """Tell whether psycopg's value is the one that Arrow would give."""
    zoned = dtype.is_timestamp() and dtype.timezone is not None
    return bool(dtype.is_binary() or (is_plain(dtype) and not zoned))


class BeyondCalendar:
    """A date or time of PostgreSQL that Python cannot hold, in days or microseconds since 1970."""

    def __init__(self, units: int) -> None:
        self.units = units

    def __str__(self) -> str:
        return "a time that is infinite, or beyond the years 1 to 9999"


def _instants(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return dates or times, some of them beyond the calendar, as Arrow."""
    import pyarrow as pa

    if pa.types.is_time(kind):
        raise WarehouseError("24:00:00 is no time of day that Python has")
    raw = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    known = [None if isinstance(value, BeyondCalendar) else value for value in values]
    units = pa.array(known, kind).cast(raw).to_pylist()
    beyond = [
        value.units if isinstance(value, BeyondCalendar) else unit
        for value, unit in zip(values, units, strict=True)
    ]
    return pa.array(beyond, raw).cast(kind)


@cache
def _time_loaders() -> dict[str, Any]:
    """Return what reads dates and times, also those beyond the calendar, by type."""
    import struct

    from psycopg import DataError, adapters
    from psycopg.adapt import Loader
    from psycopg.pq import Format

    def tolerant(name: str, form: str, epoch: int) -> Any:
        base: Any = adapters.get_loader(adapters.types[name].oid, Format.BINARY)
        unpack = struct.Struct(form).unpack
        greatest = 2 ** (31 if form == ">i" else 63) - 1

        class Tolerant(Loader):
            format = Format.BINARY

            def __init__(self, oid: int, context: Any = None) -> None:
                super().__init__(oid, context)
                self._load = base(oid, context).load  # in C, which cannot be inherited from

            def load(self, data: Any) -> Any:
                try:
                    return self._load(data)
                except (DataError, OverflowError, ValueError):
                    (units,) = unpack(data)
                    is_infinite = units in (greatest, -greatest - 1)
                    return BeyondCalendar(units if is_infinite else units + epoch)

        return Tolerant

    return {
        "date": tolerant("date", ">i", _DAYS_TO_2000),
        "time": tolerant("time", ">q", 0),
        "timestamp": tolerant("timestamp", ">q", _DAYS_TO_2000 * _DAY),
        "timestamptz": tolerant("timestamptz", ">q", _DAYS_TO_2000 * _DAY),
    }


_DAYS_TO_2000, _DAY = 10_957, 86_400_000_000


@cache
def _text_loaders() -> dict[str, Any]:
    """Return what reads JSON and network addresses as the text that they are, by type."""
    from psycopg.adapt import Loader
    from psycopg.pq import Format

    class Text(Loader):
        format = Format.BINARY

        def load(self, data: Any) -> str:
            return bytes(data).decode()

    class Versioned(Text):
        def load(self, data: Any) -> str:
            return bytes(data)[1:].decode()  # the first byte is the form's version

    return {"json": Text, "jsonb": Versioned}


def read_as_text(cursor: Any, *, tolerant: bool = True) -> None:
    """Have a cursor read values in their binary form, and JSON as the text that it is.

    Parameters
    ----------
    tolerant
        Whether times beyond Python's calendar are :class:`BeyondCalendar`, and no errors; which
        takes longer.
    """
    from psycopg.pq import Format

    cursor.format = Format.BINARY
    loaders = {**_text_loaders(), **_time_loaders()} if tolerant else _text_loaders()
    for kind, loader in loaders.items():
        cursor.adapters.register_loader(kind, loader)
