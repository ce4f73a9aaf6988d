"""Data types as VirtualFS writes them: Ibis's names, checked and compared.

A type is stored as text (``"int64"``, ``"decimal(12, 2)"``, ``"array<string>"``), so that
definitions stay metadata and importing them stays cheap. Ibis is loaded only to parse a type
that is not one of the plain names, or to compare two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from pydantic import AfterValidator

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import pyarrow as pa

__all__ = [
    "DTypeName",
    "integer_bounds",
    "is_lossless",
    "key_family",
    "normalize",
    "nullable_pandas",
    "type_name",
    "uuids",
]

_PLAIN = frozenset(
    (
        *("boolean", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float32", "float64", "string", "binary", "date", "time", "timestamp", "uuid", "json"),
    )
)
_ALIASES = {
    "bool": "boolean",
    "str": "string",
    "varchar": "string",
    "text": "string",
    "int": "int64",
    "integer": "int32",
    "bigint": "int64",
    "float": "float64",
    "double": "float64",
    "bytes": "binary",
}


def normalize(name: str) -> str:
    """Return the canonical spelling of a data type's name.

    Raises
    ------
    ValueError
        The name is not a type; the message gives examples of what is.

    Examples
    --------
    >>> normalize("bool"), normalize("int64")
    ('boolean', 'int64')
    """
    text = " ".join(name.strip().split())
    text = _ALIASES.get(text.lower(), text)
    if text in _PLAIN:
        return text
    import ibis

    try:
        return str(ibis.dtype(text)).lstrip("!")
    except Exception as error:
        raise ValueError(
            f"{name!r} is not a data type; write for example 'int64', 'float64', 'string', "
            f"'boolean', 'timestamp', 'date', 'decimal(12, 2)' or 'array<float64>'"
        ) from error


DTypeName = Annotated[str, AfterValidator(normalize)]


@lru_cache(maxsize=1024)
def type_name(dtype: dt.DataType) -> str | None:
    """Return a data type as text that reads back; None for one without, or without an Arrow type.

    >>> import ibis.expr.datatypes as dt
    >>> type_name(dt.int64), type_name(dt.Unknown("BIT"))
    ('int64', None)
    """
    import ibis

    text = str(dtype).lstrip("!")
    try:
        dtype.to_pyarrow()
        return text if ibis.dtype(text) == dtype.copy(nullable=True) else None
    except Exception:  # noqa: BLE001 - Ibis raises several kinds for text that it cannot read
        return None


def integer_bounds(dtype: str) -> tuple[int, int] | None:
    """Return the least and the greatest value of an integer type; None for other types.

    >>> integer_bounds("uint8"), integer_bounds("interval('us')")
    ((0, 255), None)
    """
    match = re.fullmatch(r"(u?)int(8|16|32|64)", dtype)
    if match is None:
        return None
    bits = int(match[2])
    return (0, 2**bits - 1) if match[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def uuids(values: Iterable[Any]) -> pa.Array:
    """Return UUIDs, or their text, as an Arrow array of UUIDs.

    Raises
    ------
    ValueError
        A text is no UUID.
    """
    import pyarrow as pa

    held = [
        None if value is None else (value if isinstance(value, UUID) else UUID(str(value))).bytes
        for value in values
    ]
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(held, pa.binary(16)))


def key_family(dtype: dt.DataType) -> str:
    """Name the family in which two types can serve as one join key.

    Keys of one family compare by value without loss: all integers are one family, so an int32
    spine column matches an int64 join key, while ``"7"`` never matches ``7``.
    """
    if dtype.is_integer():
        return "integer"
    if dtype.is_floating():
        return "float"
    if dtype.is_decimal():
        return "decimal"
    if dtype.is_timestamp() and dtype.timezone is not None:
        return "zoned timestamp"  # beside a naive one it would be read by the session's zone
    return re.split(r"[(<]", str(dtype).lstrip("!"))[0]


def is_lossless(source: dt.DataType, target: dt.DataType) -> bool:
    """Tell whether every value of `source` is kept exactly by a cast to `target`.

    Examples
    --------
    >>> import ibis
    >>> is_lossless(ibis.dtype("int32"), ibis.dtype("float64"))
    True
    >>> is_lossless(ibis.dtype("int64"), ibis.dtype("float64"))
    False
    """
    if source.copy(nullable=True) == target.copy(nullable=True) or source.is_null():
        return True
    if source.is_integer() and target.is_integer():
        return bool(
            target.bounds.lower <= source.bounds.lower
            and source.bounds.upper <= target.bounds.upper
        )
    if source.is_integer() and target.is_floating():
        mantissa = 24 if target.nbytes == 4 else 53
        return bool(source.nbytes * 8 - source.is_signed_integer() <= mantissa)
    if source.is_integer() and target.is_decimal():
        digits = len(str(source.bounds.upper))
        return bool((target.precision or 0) - (target.scale or 0) >= digits)
    if source.is_floating() and target.is_floating():
        return bool(source.nbytes <= target.nbytes)
    if source.is_decimal() and target.is_decimal():
        if None in (source.precision, source.scale, target.precision, target.scale):
            return False
        return bool(
            target.scale >= source.scale
            and target.precision - target.scale >= source.precision - source.scale
        )
    if source.is_date() and target.is_timestamp():
        return bool(target.timezone is None)
    if target.is_string():
        return bool(
            source.is_boolean()
            or source.is_integer()
            or source.is_decimal()
            or source.is_uuid()
            or source.is_date()
        )
    if source.is_timestamp() and target.is_timestamp() and source.timezone == target.timezone:
        return (source.scale if source.scale is not None else 6) <= (
            target.scale if target.scale is not None else 6
        )
    if source.is_array() and target.is_array():
        return is_lossless(source.value_type, target.value_type)
    return False


def nullable_pandas(arrow_type: pa.DataType) -> Any:
    """Return the pandas type that keeps integers and booleans whole beside NULLs, if one is needed.

    Meant as the ``types_mapper`` of :meth:`pyarrow.Table.to_pandas`; None leaves pyarrow's choice.
    """
    import pandas as pd
    import pyarrow as pa

    return {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }.get(arrow_type)
