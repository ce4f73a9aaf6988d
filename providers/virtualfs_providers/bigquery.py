"""BigQuery. Compiled and parsed in the suite; not run there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from virtualfs.capabilities import Capabilities, Lexis, literal_micros, shift_micros
from virtualfs.compiler import sql
from virtualfs_providers.cloud import CloudProvider

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["CAPABILITIES", "PROVIDER"]

_UTC = "timestamp('UTC')"


def instant(value: ir.Value, timezone: str, rounding: Literal["up", "down"]) -> ir.Value:  # noqa: ARG001
    """Write a TIMESTAMP, DATETIME or DATE as microseconds since 1970 in UTC."""
    kind = value.type()
    if not (kind.is_timestamp() and kind.timezone is not None):
        value = sql.builtin("timestamp", (sql.type_text(value), "string"), _UTC)(value, timezone)
    return sql.builtin("unix_micros", (sql.type_text(value),), "int64")(value)


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Hash the row, written as JSON, with FARM_FINGERPRINT."""
    types = tuple(sql.type_text(value) for value in values)
    row = sql.builtin("struct", types, "json")(*values)
    text = sql.builtin("to_json_string", ("json",), "string")(row)
    return sql.builtin("farm_fingerprint", ("string",), "int64")(text)


LEXIS = Lexis(
    name_quotes={"`": "`"},
    names_escape=True,
    string_quotes="'\"",
    string_escapes=True,
    string_prefixes={"r": True, "b": True, "rb": True, "br": True},
    line_comments=("#",),
    parameters="?@",
)
CAPABILITIES = Capabilities(
    engine="BigQuery",
    dialect="bigquery",
    lexis=LEXIS,
    instant=instant,
    row_hash=row_hash,
    instant_type="int64",
    literal_instant=literal_micros,
    shift=shift_micros,
    replace_table=True,
    max_identifier=300,
)
PROVIDER = CloudProvider(
    "bigquery", "bigquery", CAPABILITIES, kind="TEMP TABLE", read_through=False
)
