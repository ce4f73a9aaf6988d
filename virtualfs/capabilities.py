"""What a warehouse can do, as frozen values that its provider hands to the compiler.

The compiler chooses by these alone; it knows no engine by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["Capabilities", "Instant", "RowHash"]

Instant = Callable[["ir.Value", str, Literal["up", "down"]], "ir.Value"]
"""Turn a time column into a naive UTC timestamp of microseconds.

Takes the column, the zone in which naive values are meant, and the way to round finer times.
"""

RowHash = Callable[["Sequence[ir.Value]"], "ir.Value"]
"""Hash some columns of a row into an unsigned 64-bit integer, the same on each run."""


@dataclass(frozen=True)
class Capabilities:
    """What one engine can do.

    Parameters
    ----------
    engine
        Name for messages.
    dialect
        Name of Ibis's SQL compiler and of sqlglot's dialect.
    instant, row_hash
        How the engine writes instants and row hashes.
    asof_join
        Whether ``ASOF LEFT JOIN`` exists.
    read_files
        How the engine reads a path as one SELECT; None where it reads no files.
    """

    engine: str
    dialect: str
    instant: Instant
    row_hash: RowHash
    asof_join: bool = False
    read_files: Callable[[str], str] | None = None
