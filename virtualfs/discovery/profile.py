"""What a sample of a table says: how many values differ, what is missing, which times it spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from virtualfs.catalog import CatalogTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SAMPLE_ROWS", "Profile", "profile"]

SAMPLE_ROWS = 20_000
_FEW = 3
"""Cases before something is taken for a rule."""
_KEY_TYPES = ("int", "uint", "string", "uuid")


@dataclass(frozen=True)
class Profile:
    """A sample's counts.

    Parameters
    ----------
    rows
        Rows in the sample.
    whole
        Whether the sample is the whole table.
    spans
        First and last time of each time column.
    """

    rows: int = 0
    whole: bool = False
    distinct: dict[str, int] = field(default_factory=dict)
    nulls: dict[str, int] = field(default_factory=dict)
    spans: dict[str, tuple[date | datetime, date | datetime]] = field(default_factory=dict)
    _table: Any = None

    def is_unique(self, columns: Sequence[str]) -> bool:
        """Tell whether these columns tell all sampled rows apart, and none is NULL."""
        return self.different(columns) == self.rows and not any(
            self.nulls[column] for column in columns
        )

    def groups(self, columns: Sequence[str]) -> int:
        """Return how many combinations of values these columns have in the sample."""
        if len(columns) == 1:
            return self.distinct[columns[0]] + (self.nulls[columns[0]] > 0)
        names = [f"c{number}" for number in range(len(columns))]
        narrow = self._table.select(list(columns)).rename_columns(names)
        return int(narrow.group_by(names).aggregate([]).num_rows)

    def different(self, columns: Sequence[str]) -> int | None:
        """Return :meth:`groups`; None where a column was not sampled, as its type is no key's."""
        sampled = self.rows > 0 and all(column in self.distinct for column in columns)
        return self.groups(columns) if sampled else None

    def example(self, keys: Mapping[str, str]) -> dict[str, Any]:
        """Return the last sampled row that has all of some key columns, under their keys' names."""
        if self.rows == 0 or not all(column in self.distinct for column in keys):
            return {}
        found = self._table.select(list(keys)).rename_columns(list(keys.values())).drop_null()
        rows: list[dict[str, Any]] = found.slice(max(found.num_rows - 1, 0)).to_pylist()
        return rows[0] if rows else {}

    def epoch_unit(self, column: str) -> str | None:
        """Return in which unit a column's numbers may count the time since 1970 (2000 to 2100)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if column not in self.distinct or self.nulls[column] == self.rows:
            return None
        values = self._table.column(column)
        if not pa.types.is_integer(values.type):
            return None
        least, most = pc.min_max(values).as_py().values()
        for unit, per_second in (("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6)):
            if least >= 946_684_800 * per_second and most < 4_102_444_800 * per_second:
                return unit
        return None

    def grain(self, column: str) -> Literal["day", "hour"] | None:
        """Return what a column's times are whole numbers of, if there is such a thing."""
        if column not in self.distinct or self.distinct[column] < _FEW:
            return None
        values = [value for value in self._table.column(column).to_pylist() if value is not None]
        if all(_is_midnight(value) for value in values):
            return "day"
        whole = all(
            (value.minute, value.second, value.microsecond) == (0, 0, 0) for value in values
        )
        return "hour" if whole else None

    def are_versions(self, keys: Sequence[str], start: str, end: str) -> bool:
        """Tell whether rows of the same keys follow each other without gap, as versions do."""
        import pyarrow.compute as pc

        if not all(column in self.distinct for column in (*keys, start, end)):
            return False
        named = [f"k{number}" for number in range(len(keys))]
        rows = self._table.select([*keys, start, end]).rename_columns([*named, "start", "end"])
        rows = rows.filter(pc.is_valid(rows["start"]))
        rows = rows.sort_by([(name, "ascending") for name in (*named, "start")])
        *groups, starts, ends = (column.to_pylist() for column in rows.columns)
        least = timedelta(seconds=1)
        if all(_is_midnight(end) for end in ends if end is not None):
            least = timedelta(days=1)  # the last day that holds may be written, or the first not
        followed = touching = 0
        for row in range(1, len(starts)):
            if all(group[row] == group[row - 1] for group in groups):
                followed += 1
                before = ends[row - 1]
                gap = starts[row] - before if before is not None else -least
                touching += timedelta(0) <= gap <= least
        return followed >= _FEW and touching >= 0.9 * followed

    def share_in(self, column: str, other: Profile, key: str) -> float:
        """Return which share of a column's values are among another sample's."""
        import pyarrow.compute as pc

        values = self._table.column(column).drop_null().unique()
        known = other._table.column(key)
        if not len(values) or values.type != known.type:
            return 0.0
        return float(pc.sum(pc.is_in(values, value_set=known.combine_chunks())).as_py()) / len(
            values
        )


def _is_midnight(value: date | datetime) -> bool:
    if not isinstance(value, datetime):
        return True
    return (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)


def key_columns(table: CatalogTable) -> list[str]:
    """Return the columns whose types may name something."""
    return [
        column.name
        for column in table.columns
        if column.dtype is not None and column.dtype.startswith(_KEY_TYPES)
    ]


def sampled_columns(table: CatalogTable) -> list[str]:
    """Return the columns worth a sample: what may be a key, and times."""
    times = [column.name for column in table.columns if column.is_time]
    return [*key_columns(table), *times]


def profile(table: CatalogTable, sample: pa.Table) -> Profile:
    """Count what a sample holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    distinct, nulls, spans = {}, {}, {}
    arrays = {}
    for name, column in zip(sample.column_names, sample.columns, strict=True):
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        elif pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        arrays[name] = column
        distinct[name] = pc.count_distinct(column).as_py()
        nulls[name] = column.null_count
        if table.column(name).is_time and column.null_count < len(column):
            ends = pc.min_max(column)
            try:
                spans[name] = (ends["min"].as_py(), ends["max"].as_py())
            except (OverflowError, ValueError):  # a year that Python has no dates for
                continue
    # An estimate of the catalog is rarely exact, so only a sample that was not full is whole.
    whole = sample.num_rows < SAMPLE_ROWS and (
        table.is_view or table.rows is None or table.rows < SAMPLE_ROWS * 4
    )
    return Profile(sample.num_rows, whole, distinct, nulls, spans, pa.table(arrays))
