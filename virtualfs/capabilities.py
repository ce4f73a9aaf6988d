"""What a warehouse can do and what it knows, as frozen values that its provider hands over.

The compiler chooses by these alone; it knows no engine by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from virtualfs.cached import cached_property
from virtualfs.definitions.aggregate import FUNCTIONS

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir

__all__ = [
    "UNKNOWN",
    "Capabilities",
    "Files",
    "Lexis",
    "Statistics",
    "literal_micros",
    "round_up",
    "same_micros",
    "shift_interval",
    "shift_micros",
]

Rounding = Literal["up", "down"]
"""Which way times finer than the instant's own precision go (rule 9)."""


def shift_interval(instant: ir.Value, micros: int) -> ir.Value:
    """Move an instant that is a timestamp by microseconds, negative ones into the past."""
    import ibis

    if micros == 0:
        return instant
    if micros < 0:
        return instant - ibis.interval(microseconds=-micros)
    return instant + ibis.interval(microseconds=micros)


def shift_micros(instant: ir.Value, micros: int) -> ir.Value:
    """Move an instant that is an integer of microseconds since 1970."""
    return instant + micros if micros else instant


def same_micros(instant: ir.Value) -> ir.Value:
    """Return an instant that is an integer of microseconds since 1970 as it is."""
    return instant


def literal_micros(moment: datetime) -> ir.Value:
    """Write a naive UTC datetime as an integer of microseconds since 1970."""
    import ibis

    return ibis.literal((moment - datetime(1970, 1, 1)) // timedelta(microseconds=1), type="int64")


def _naive(moment: datetime) -> ir.Value:
    import ibis

    return ibis.literal(moment, type="timestamp(6)")


def _bare(value: ir.Value, timezone: str, bound: ir.Value) -> ir.Value | None:  # noqa: ARG001
    return None


def _row_number() -> ir.Value:
    import ibis

    return ibis.row_number()


def _collect(value: ir.Value, place: ir.Value, where: ir.Value) -> ir.Value:
    return value.collect(where=where, order_by=place.desc())


def _variance(value: ir.Value, how: Literal["sample", "pop"], where: ir.Value | None) -> ir.Value:
    return value.var(how=how, where=where)


@dataclass(frozen=True)
class Files:
    """Files that are read as one table.

    Parameters
    ----------
    path
        A file, a glob, or the folder of a table; local or a URL.
    format
        What they are.
    version, as_of
        Which state of a table that keeps its history; the newest when both are None.
    folders
        Whether names of folders as ``day=2024-05-01`` are columns.
    """

    path: str
    format: Literal["parquet", "csv", "delta"]
    version: int | None = None
    as_of: datetime | None = None
    folders: bool = True


@dataclass(frozen=True)
class Lexis:
    """How an engine divides SQL text into tokens. The defaults are those of standard SQL.

    Parameters
    ----------
    name_quotes
        What opens a quoted name, and what closes it.
    names_escape
        Whether a backslash escapes inside of quoted names.
    string_quotes
        What opens and closes a string.
    string_escapes
        Whether a backslash escapes the character after it, inside of strings.
    string_prefixes
        Prefixes of strings, in lower case, and whether it then has escapes.
    line_comments
        What begins a comment that the line ends, beside ``--``.
    nested_comments
        Whether comments may be nested.
    dollar_quotes
        Whether ``$$...$$`` is a string.
    dollar_tags
        Whether ``$tag$...$tag$`` is one too.
    folds_to
        The case that names without quotes are read in, where cases are told apart.
    parameters
        Characters that stand for a parameter, alone (``?``) or before a name.
    refused
        Texts that a definition may not hold anywhere, strings and comments included.
    """

    name_quotes: Mapping[str, str] = field(default_factory=lambda: {'"': '"'})
    names_escape: bool = False
    string_quotes: str = "'"
    string_escapes: bool = False
    string_prefixes: Mapping[str, bool] = field(default_factory=dict)
    line_comments: tuple[str, ...] = ()
    nested_comments: bool = False
    dollar_quotes: bool = False
    dollar_tags: bool = True
    folds_to: Literal["lower", "upper"] = "lower"
    parameters: str = ""
    refused: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.string_quotes, self.line_comments, self.parameters, self.refused))


STANDARD_SQL = Lexis()


@dataclass(frozen=True)
class Capabilities:
    """What one engine can do, and how it writes what has no portable form.

    Only the first four have no default: an engine that gives these gets the portable strategies.

    Parameters
    ----------
    engine
        Name for messages.
    dialect
        Name of sqlglot's dialect.
    lexis
        How the engine divides text into tokens.
    instant
        Turns a time column into an instant: takes the column, the zone that naive values are meant
        in, and the way to round finer times. An instant is a naive UTC timestamp of microseconds,
        or what `instant_type` says; two of them compare in time.
    row_hash
        Turns some columns of a row into one value that can be ordered and is the same on each run.
    compiler
        Name of Ibis's SQL compiler, where it is not that of the dialect.
    instant_type
        Type of instants.
    literal_instant
        Writes a naive UTC datetime as an instant.
    shift
        Moves an instant by microseconds.
    micros
        Writes an instant as an integer of microseconds, whose differences are compared faster than
        instants are; None where they are not.
    row_number
        Numbers the rows of an ordered query in its order, from 0 without gaps.
    time_zones
        Whether naive times of other zones than UTC can be read.
    asof_join
        Whether ``ASOF LEFT JOIN`` exists, with one inequality.
    lateral_limit
        Whether ``LEFT JOIN LATERAL (... ORDER BY ... LIMIT 1)`` exists and can follow an index.
    seek
        Writes ``event <= bound`` with the column left bare, so that an index on it serves; None
        where the column cannot be.
    temporary_tables
        Whether a session can make temporary tables. Without, the spine is part of each statement.
    inline_spine
        The SELECT that gives the spine without a temporary table, from column names and types; the
        session binds the columns in that order.
    materialized
        Whether ``WITH ... AS MATERIALIZED`` is written, so that a query is run once.
    replace_table
        Whether ``CREATE OR REPLACE TABLE`` exists.
    read_files
        How the engine reads files as one SELECT; None where it reads none.
    aggregates
        The aggregate functions that it computes inside a query.
    prefix_sums
        Whether running sums of decimals of 38 digits are exact, and fast enough to be worth it.
    exact
        Writes a float64 that is a whole number below 2^99 as a decimal(38, 0) without loss; None
        where there is no such way.
    collect
        Collects values into an array, NULL when there are none: takes the values, the place of each
        (the newest at 0, which stands last) and the condition. None where there are no arrays.
    variance
        Writes the variance of numbers, NaN where one of them is: takes the numbers, whether they
        are a sample or all there are, and the condition.
    max_identifier
        Longest column name in bytes; longer ones are refused when planned.
    folds_case
        Whether quoted names that differ only in case are one name.
    """

    engine: str
    dialect: str
    instant: Callable[[ir.Value, str, Rounding], ir.Value]
    row_hash: Callable[[Sequence[ir.Value]], ir.Value]
    compiler: str = ""
    lexis: Lexis = STANDARD_SQL
    instant_type: str = "timestamp(6)"
    literal_instant: Callable[[datetime], ir.Value] = _naive
    shift: Callable[[ir.Value, int], ir.Value] = shift_interval
    micros: Callable[[ir.Value], ir.Value] | None = None
    row_number: Callable[[], ir.Value] = _row_number
    time_zones: bool = True
    asof_join: bool = False
    lateral_limit: bool = False
    seek: Callable[[ir.Value, str, ir.Value], ir.Value | None] = _bare
    temporary_tables: bool = True
    inline_spine: Callable[[Mapping[str, dt.DataType]], str] | None = None
    materialized: bool = False
    replace_table: bool = False
    read_files: Callable[[Files], str] | None = None
    aggregates: frozenset[str] = frozenset(FUNCTIONS)
    prefix_sums: bool = False
    exact: Callable[[ir.Value], ir.Value] | None = None
    collect: Callable[[ir.Value, ir.Value, ir.Value], ir.Value] | None = _collect
    variance: Callable[[ir.Value, Literal["sample", "pop"], ir.Value | None], ir.Value] = _variance
    max_identifier: int | None = None
    folds_case: bool = True

    @cached_property
    def for_lookups(self) -> Capabilities:
        """Return what to compile look-ups of a few keys for: with these bound, where that can be.

        A temporary table would cost more than the look-up.
        """
        return self if self.inline_spine is None else replace(self, temporary_tables=False)


@dataclass(frozen=True)
class Statistics:
    """What the engine's catalog knows of a view's rows, and of the spine. None is unknown.

    Numbers are rounded up to powers of two, so that the same data gives the same plan tomorrow.

    Parameters
    ----------
    rows
        Source rows.
    keys
        Distinct join keys among them.
    spine_rows
        Rows of the spine.
    indexed
        Whether an index leads with the join keys and then the event timestamp.
    unique
        Whether a constraint says that no two rows share join keys and event timestamp.
    """

    rows: int | None = None
    keys: int | None = None
    spine_rows: int | None = None
    indexed: bool = False
    unique: bool = False

    def __str__(self) -> str:
        words = []
        for name, value in (
            ("source rows", self.rows), ("keys", self.keys), ("spine rows", self.spine_rows)
        ):  # fmt: skip
            words.append(f"{'?' if value is None else f'~{value:,}'} {name}")
        words += ["indexed"] * self.indexed + ["unique"] * self.unique
        return ", ".join(words)


UNKNOWN = Statistics()


def round_up(count: float | None) -> int | None:
    """Round a count up to a power of two; what is unknown stays so.

    >>> round_up(1000), round_up(0), round_up(None)
    (1024, 1, None)
    """
    if count is None or count < 0:
        return None
    return 1 << max(0, int(count) - 1).bit_length()
