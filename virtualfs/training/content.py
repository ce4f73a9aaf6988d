"""The hash of what a table holds, whatever file, batches or Arrow buffers hold it.

Each column is hashed by its values in order, from buffers that are made to look the same for the
same values: NULLs are marked beside the values and hold zeros, all NaN are one. So a training set
has one hash whether it was streamed, written or read back, and a changed value, a changed type and
a changed order of rows each give another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from virtualfs.errors import UnsupportedByWarehouseError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ContentHash"]


class ContentHash:
    """Hashes a table, batch by batch."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self.rows = 0

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Add rows; all batches have the same columns."""
        import pyarrow as pa

        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        for name in table.column_names:
            column = table.column(name)
            held = self._columns.setdefault(name, _Column(column.type))
            for chunk in column.chunks:
                held.update(chunk)
        self.rows += table.num_rows

    def hexdigest(self) -> str:
        """Return the hash as text, ``sha256:`` and 64 digits."""
        told = [[name, *column.told()] for name, column in self._columns.items()]
        text = json.dumps([self.rows, told], separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class _Column:
    """Hashes the values of one column, those that make up nested values in columns of their own."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = _plain_type(kind)
        self._streams: dict[str, Any] = {}
        self._inner: dict[str, _Column] = {}

    def told(self) -> list[Any]:
        inner: Mapping[str, Any] = {name: item.told() for name, item in self._inner.items()}
        digests = {name: stream.hexdigest() for name, stream in self._streams.items()}
        return [self._kind, digests, inner]

    def _add(self, name: str, data: Any) -> None:
        self._streams.setdefault(name, hashlib.sha256()).update(data)

    def _nested(self, name: str, array: pa.Array) -> None:
        self._inner.setdefault(name, _Column(array.type)).update(array)

    def update(self, array: pa.Array) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        kind = array.type
        if pa.types.is_dictionary(kind):
            array, kind = array.cast(kind.value_type), kind.value_type
        self._add("valid", pc.is_valid(array).cast(pa.uint8()).to_numpy(zero_copy_only=False).data)
        if pa.types.is_null(kind):
            return
        if _is_list(kind) or pa.types.is_map(kind):
            lengths = pc.fill_null(pc.list_value_length(array).cast(pa.int64()), 0)
            self._add("lengths", lengths.to_numpy(zero_copy_only=False).data)
            if pa.types.is_map(kind):
                entries = array.filter(pc.is_valid(array))
                self._nested("keys", entries.keys)
                self._nested("values", entries.items)
            else:
                self._nested("values", pc.list_flatten(array))
        elif pa.types.is_struct(kind):
            for number, field in enumerate(kind):
                self._nested(field.name, pc.struct_field(array, [number]))
        elif _is_text(kind):
            whole = pc.fill_null(array.cast(_large(kind)), b"" if "binary" in str(kind) else "")
            lengths = pc.binary_length(whole).cast(pa.int64())
            self._add("lengths", lengths.to_numpy(zero_copy_only=False).data)
            offsets = whole.buffers()[1]
            first = int.from_bytes(offsets[8 * whole.offset : 8 * whole.offset + 8], "little")
            size = int(pc.sum(lengths).as_py() or 0)
            data = whole.buffers()[2]
            self._add("data", data[first : first + size] if data is not None else b"")
        else:
            self._fixed(array)

    def _fixed(self, array: pa.Array) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = array.type
        if pa.types.is_boolean(kind):
            array = array.cast(pa.uint8())
        elif pa.types.is_timestamp(kind):
            array = array.cast(pa.timestamp("ns" if kind.unit == "ns" else "us", kind.tz))
            array = array.cast(pa.int64())
        elif pa.types.is_interval(kind):
            raise UnsupportedByWarehouseError(
                f"a column of {kind} cannot be kept; convert it, for example to seconds"
            )
        elif pa.types.is_temporal(kind):
            wide = kind.bit_width == 64
            array = array.view(pa.int64()) if wide else array.cast(pa.int32())
        elif pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
            array = array.cast(pa.string()) if pa.types.is_decimal(kind) else array
            self._nested("text", array.cast(pa.large_string() if pa.types.is_string(array.type)
                                            else pa.large_binary()))  # fmt: skip
            return
        values = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), values.dtype.type("nan"), values)
        self._add("data", np.ascontiguousarray(values).data)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    found: bool = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return found


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    found: bool = (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind) or pa.types.is_string_view(kind)
        or pa.types.is_binary_view(kind)
    )  # fmt: skip
    return found


def _large(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return pa.large_binary() if "binary" in str(kind) else pa.large_string()


def _plain_type(kind: pa.DataType) -> str:
    """Return a type as text, without how its values are held in memory or its parts are called."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_map(kind):
        return f"map<{_plain_type(kind.key_type)}, {_plain_type(kind.item_type)}>"
    if _is_list(kind):
        return f"list<{_plain_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {_plain_type(field.type)}' for field in kind)}>"
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        kind = pa.timestamp("us", kind.tz)
    return str(kind).replace("large_", "").replace("_view", "")
