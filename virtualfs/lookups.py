"""What goes to a warehouse when a few keys are looked up, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from virtualfs.compiler.rows import CREATED, EVENT, ROW, TIME
from virtualfs.dtypes import uuids
from virtualfs.errors import SpineError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Columns", "KeySpine", "columns_of", "micros_of"]

Columns = Mapping[str, list[Any]]
"""An answer's columns as Python values; ``__event`` and ``__created`` are microseconds
since 1970."""
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
    """Return an answer's columns as Python values.

    Parameters
    ----------
    schema
        Columns and data types that the compiler expects.
    """
    import pyarrow as pa

    return {
        name: _plain_values(table.column(name).cast(pa.int64()), "int64")
        if name in (EVENT, CREATED)
        else _plain_values(table.column(name), dtype)
        for name, dtype in schema.items()
    }


def _plain_values(column: pa.ChunkedArray, dtype: str) -> list[Any]:
    """Return a column's values as the cache gives them back: zoned times in UTC, UUIDs as such."""
    if dtype in ("int64", "float64") and column.null_count == 0:
        numbers: list[Any] = column.to_numpy().tolist()  # in a fifth of the time
        return numbers
    values: list[Any] = column.to_pylist()
    if dtype.startswith("timestamp("):
        return [
            value.astimezone(UTC) if value is not None and value.tzinfo else value
            for value in values
        ]
    if dtype == "uuid":
        return [UUID(value) if isinstance(value, str) else value for value in values]
    return values
