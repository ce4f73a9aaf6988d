"""A training set as rows to ask questions of: in its warehouse, or where parts of several meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.provider import Session, temporary_name

if TYPE_CHECKING:
    from virtualfs.training.dataset import TrainingDataset

__all__ = ["Rows", "rows_of_dataset"]


@dataclass(frozen=True)
class Rows:
    """A temporary table of a training set, and the session that it lives in."""

    session: Session
    capabilities: Capabilities
    select: str

    def first(self, timestamp: str) -> datetime | None:
        """Return the least instant in a column, naive and in UTC."""
        quoted = sql.quoted(timestamp, self.capabilities.dialect)
        found = self.session.query(
            f"SELECT min({quoted}) AS first FROM ({self.select}) AS rows",  # noqa: S608 - names
            {"first": "timestamp"},
        )
        try:
            value = found.column(0)[0].as_py()
        except (OverflowError, ValueError):  # before all years, or an instant for ever
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return datetime(value.year, value.month, value.day) if isinstance(value, date) else None


@contextmanager
def rows_of_dataset(dataset: TrainingDataset) -> Iterator[Rows]:
    """Compute a training set into a temporary table, whose columns are the spine's and its own."""
    site = dataset.sites[0]
    in_query = all(item.view.function is None for item in dataset.plan.on_demand)
    alone = len(dataset.sites) == 1 and site.warehouse.capabilities.temporary_tables
    if alone and in_query:
        with site.session() as session:
            spine, made = site.whole_spine(session), temporary_name()
            session.keep(made, site.statement(session, site.program.joined(), spine))
            dialect = site.warehouse.capabilities.dialect
            yield Rows(session, site.warehouse.capabilities, _select(made, dialect))
        return
    place = dataset.shelf.meeting_place()
    with place.session() as session, dataset.to_pyarrow_batches() as reader:
        made, piece = temporary_name(), temporary_name()
        dialect = place.capabilities.dialect
        session.load(made, reader.schema.empty_table())
        import pyarrow as pa

        for batch in reader:
            session.load(piece, pa.Table.from_batches([batch]))
            target = sql.quoted(made, dialect)
            session.execute(f"INSERT INTO {target} {_select(piece, dialect)}")
            session.drop(piece)
        yield Rows(session, place.capabilities, _select(made, dialect))


def _select(table: str, dialect: str) -> str:
    return f"SELECT * FROM {sql.quoted(table, dialect)}"  # noqa: S608 - a name of ours
