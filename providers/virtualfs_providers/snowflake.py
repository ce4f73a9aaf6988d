"""Snowflake. Run in the suite on an emulator alone, never on Snowflake itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from virtualfs import config
from virtualfs.capabilities import Capabilities, Lexis, literal_micros, shift_micros
from virtualfs.compiler import sql
from virtualfs.definitions.duration import setting_seconds
from virtualfs_providers.cloud import CloudProvider

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["CAPABILITIES", "PROVIDER"]


def instant(value: ir.Value, timezone: str, rounding: Literal["up", "down"]) -> ir.Value:
    """Write a time column as microseconds since 1970 in UTC; Snowflake keeps nanoseconds."""
    kind = value.type()
    if kind.is_date():
        value = value.cast("timestamp(6)")
    if timezone != "UTC" and not (kind.is_timestamp() and kind.timezone is not None):
        convert = sql.builtin(
            "convert_timezone", ("string", "string", sql.type_text(value)), "timestamp(9)"
        )
        value = convert(timezone, "UTC", value)
    nanos = sql.builtin("date_part", ("string", sql.type_text(value)), "int64")(
        "epoch_nanosecond", value
    )
    micros = nanos / 1000
    return (micros.ceil() if rounding == "up" else micros.floor()).cast("int64")


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Hash columns with Snowflake's 64-bit hash."""
    types = tuple(sql.type_text(value) for value in values)
    return sql.builtin("hash", types, "int64")(*values)


LEXIS = Lexis(
    string_escapes=True,
    string_prefixes={"x": False},
    line_comments=("//",),
    dollar_quotes=True,
    dollar_tags=False,
    folds_to="upper",
    parameters="?",
)
CAPABILITIES = Capabilities(
    engine="Snowflake",
    dialect="snowflake",
    lexis=LEXIS,
    instant=instant,
    row_hash=row_hash,
    instant_type="int64",
    literal_instant=literal_micros,
    shift=shift_micros,
    replace_table=True,
    max_identifier=255,
    folds_case=False,
)


def session_settings(settings: config.Warehouse) -> list[str]:
    """Return the statements that name our queries, and bound them."""
    found = [f"ALTER SESSION SET QUERY_TAG = '{settings.application_name}'"]
    if settings.statement_timeout is not None:
        seconds = math.ceil(setting_seconds(settings.statement_timeout))
        found.append(f"ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = {seconds}")
    return found


PROVIDER = CloudProvider(
    "snowflake", "snowflake", CAPABILITIES, read_through=False, prepare=session_settings
)
