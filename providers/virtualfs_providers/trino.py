"""Trino. Compiled and parsed in the suite; not run there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Literal

from virtualfs.capabilities import Capabilities, Lexis, literal_micros, shift_micros
from virtualfs.compiler import sql
from virtualfs.errors import UnsupportedByWarehouseError
from virtualfs_providers.cloud import CloudProvider

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["CAPABILITIES", "PROVIDER"]

_NAIVE, _UTC = "timestamp(6)", "timestamp('UTC', 6)"


def instant(value: ir.Value, timezone: str, rounding: Literal["up", "down"]) -> ir.Value:  # noqa: ARG001
    """Write a time column as microseconds since 1970 in UTC.

    Trino counts milliseconds at the finest, so the last three digits are read from the text.
    """
    import ibis

    kind = value.type()
    if kind.is_timestamp() and (kind.scale or 0) > 6:
        raise UnsupportedByWarehouseError(
            "Trino casts times finer than microseconds by rounding them half up, which could show "
            "the future; truncate the column in a query= source"
        )
    at_utc = sql.builtin("at_timezone", (_UTC, "string"), _UTC)
    if kind.is_timestamp() and kind.timezone is not None:
        value = sql.builtin("at_timezone", (sql.type_text(value), "string"), _UTC)(value, "UTC")
    elif timezone != "UTC":
        zoned = sql.builtin("with_timezone", (_NAIVE, "string"), _UTC)
        value = at_utc(zoned(value.cast(_NAIVE), timezone), "UTC")
    value = value.cast(_NAIVE)
    whole = sql.builtin("date_trunc", ("string", _NAIVE), _NAIVE)("millisecond", value)
    epoch = ibis.literal("1970-01-01").cast(_NAIVE)
    millis = sql.builtin("date_diff", ("string", _NAIVE, _NAIVE), "int64")(
        "millisecond", epoch, whole
    )
    digits = sql.builtin("substr", ("string", "int64", "int64"), "string")
    return millis * 1000 + digits(value.cast("string"), 24, 3).cast("int64")


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Hash the row, its values written as text, with xxHash64; bytes order as well as numbers."""
    for value in values:
        if value.type().is_nested():
            raise UnsupportedByWarehouseError(
                f"Trino: column {value.get_name()!r} is {value.type()}, which has no text to break "
                "ties by; take it apart in a query= source"
            )
    texts = [value.cast("string").fill_null("\\N") for value in values]
    row = reduce(lambda left, right: left + "," + right, texts)
    bytes_of = sql.builtin("to_utf8", ("string",), "binary")
    return sql.builtin("xxhash64", ("binary",), "binary")(bytes_of(row))


CAPABILITIES = Capabilities(
    engine="Trino",
    dialect="trino",
    lexis=Lexis(parameters="?"),
    instant=instant,
    row_hash=row_hash,
    instant_type="int64",
    literal_instant=literal_micros,
    shift=shift_micros,
)
PROVIDER = CloudProvider("trino", "trino", CAPABILITIES, kind="TABLE")
