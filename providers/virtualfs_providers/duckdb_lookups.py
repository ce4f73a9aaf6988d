"""Look-ups of a few keys in DuckDB: keys written into the statement, plain values read as they are.

A temporary table for the keys would take as long as the look-up itself, and so would Arrow for the
rows that come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from virtualfs.compiler.rows import CREATED, EVENT, ROW, TIME
from virtualfs.compiler.sql import SPINE
from virtualfs.lookups import KeySpine, micros_of
from virtualfs_providers.duckdb_sql import quoted_text

__all__ = ["has_plain_columns", "inline_spine", "plain_columns"]

_MOST_KEYS = 100
"""Keys that are written into a statement; parsing more would take longer than a table."""
_NATIVE = {
    "boolean": "BOOLEAN", "string": "VARCHAR", "float32": "FLOAT", "float64": "DOUBLE",
    "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "uint8": "UTINYINT", "uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT",
    "date": "DATE", "timestamp": "TIMESTAMP", "timestamp(6)": "TIMESTAMP", "binary": "BLOB",
}  # fmt: skip
"""Types of which Python's values are DuckDB's, by DuckDB's names."""


def inline_spine(spine: KeySpine) -> str | None:
    """Return what a statement begins with to hold the keys; None where a table is to hold them."""
    writers = [_writer(dtype) for dtype in spine.types.values()]
    if len(spine.keys) > _MOST_KEYS or None in writers or not spine.keys:
        return None
    at = f"make_timestamp({spine.instant}::BIGINT)"
    rows = []
    for number, key in enumerate(spine.keys):
        values = [write(value) for write, value in zip(writers, key, strict=True) if write]
        if None in values:
            return None
        rows.append(f"({', '.join([f'{number}::BIGINT', at, *map(str, values)])})")
    names = ", ".join(map(_quoted, (ROW, TIME, *spine.types)))
    return f"WITH {_quoted(SPINE)}({names}) AS MATERIALIZED (VALUES {', '.join(rows)})\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'  # sqlglot takes longer to load than a look-up


def _writer(dtype: str) -> Any:
    """Return the function that writes a key of a type; it returns None for one that it cannot."""
    if dtype == "string":
        return lambda value: None if "\0" in value else f"{quoted_text(value)}::VARCHAR"
    if dtype != "boolean" and not dtype.startswith(("int", "uint")):
        return None
    return lambda value: f"CAST({value} AS {_NATIVE[dtype]})"


def has_plain_columns(cursor: Any, schema: Mapping[str, str]) -> bool:
    """Tell whether the answer of a statement that was executed has plain columns alone.

    Parameters
    ----------
    schema
        Columns and data types that the compiler expects.
    """
    found = {column[0]: str(column[1]) for column in cursor.description}
    return all(
        found.get(name) == ("TIMESTAMP" if name in (EVENT, CREATED) else _native(dtype))
        for name, dtype in schema.items()
    )


def plain_columns(cursor: Any, schema: Mapping[str, str]) -> dict[str, list[Any]]:
    """Return plain columns as Python values.

    Raises
    ------
    ValueError
        Python cannot hold one of them: DuckDB gives text for times beyond the calendar, and the
        last day for infinite ones.
    """
    rows = cursor.fetchall()
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    found: dict[str, list[Any]] = {}
    for (name, kind, *_), values in zip(cursor.description, columns, strict=True):
        if str(kind) in ("TIMESTAMP", "DATE") and not _BEYOND.isdisjoint(map(_or_text, values)):
            raise ValueError(f"{name} holds a time beyond the calendar")
        found[name] = [*values]
        if name in (EVENT, CREATED):
            found[name] = [None if value is None else micros_of(value) for value in values]
    return found


_BEYOND = frozenset((str, date.min, date.max, datetime.min, datetime.max))


def _or_text(value: Any) -> Any:
    return str if type(value) is str else value


def _native(dtype: str) -> str | None:
    """Return what DuckDB calls a type of which Python's values are DuckDB's; None for others."""
    if dtype.startswith("decimal("):
        return dtype.upper().replace(" ", "")
    return _NATIVE.get(dtype)
