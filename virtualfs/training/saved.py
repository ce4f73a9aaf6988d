"""Saved training sets: immutable, read back as they were, and asked for again by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from virtualfs.cached import cached_property
from virtualfs.compiler import sql
from virtualfs.compiler.plan import FeaturePlan, OnDemandPart
from virtualfs.compiler.rows import ROW
from virtualfs.compiler.training_set import SavedTrainingSet, fitted_view
from virtualfs.display import Block, Grid, Note, Shown
from virtualfs.dtypes import nullable_pandas
from virtualfs.errors import (
    TrainingSetDamagedError,
    WarehouseError,
    WarehouseUnavailableError,
)
from virtualfs.progress import Progress
from virtualfs.provider import Warehouse
from virtualfs.training.content import ContentHash
from virtualfs.training.run import answers
from virtualfs.training.site import Site
from virtualfs.training.spine import ClientSpine, SentSpine

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["TrainingSet", "file_and_system"]

_WIDE = 60
"""Characters of an expression that are shown in a table."""
_PIECE = 100_000
"""Rows that are read at once."""


def file_and_system(place: str, folder: Path) -> tuple[str, Any]:
    """Return a path and the pyarrow file system that it is a path of.

    Parameters
    ----------
    place
        A URL, or a path from the project's folder.
    """
    from pyarrow import fs

    if "://" in place:
        system, path = fs.FileSystem.from_uri(place)
        return path, system
    return str(folder / place), fs.LocalFileSystem()


@dataclass(frozen=True)
class TrainingSet(Shown):
    """One version of a saved training set.

    What it was saved with cannot change: every way of reading it compares the rows with their hash.
    Wherever features are asked for, in training and online, it stands for its own: the same
    features, transformed by the same expressions with the same parameters.

    Made by :meth:`virtualfs.training.dataset.TrainingDataset.save` and
    :meth:`virtualfs.FeatureStore.training_set`.
    """

    record: SavedTrainingSet
    folder: Path
    warehouse: Callable[[str], Warehouse]
    meeting_place: Callable[[], Warehouse]

    def __repr__(self) -> str:
        return f"TrainingSet({self.name!r}, version={self.version}, rows={self.record.rows})"

    def _blocks(self) -> list[Block]:
        record = self.record
        about = [("rows", f"{record.rows:,}"), ("content", record.content_hash),
                ("kept in", record.place), ("saved", f"{record.created_at:%Y-%m-%d %H:%M} by "
                 f"{record.created_by}"), ("revision", record.metadata.get("revision")),
                ("service", record.metadata.get("service") or ""),
                ("late data", record.metadata.get("late_data") or "")]  # fmt: skip
        heads = ("feature", "nulls", "min", "max", "mean", "std")
        numbers = []
        for column in record.columns:
            found = record.statistics.get(column.name, {})
            numbers.append((column.name, *(found.get(name, "") for name in heads[1:])))
        blocks: list[Block] = [
            Note(f"Training set {record.name}@{record.version}", strong=True),
            *([Note(record.description)] if record.description else []),
            Grid(("", ""), about),
            Grid(heads, numbers),
        ]
        if record.fitted:
            fitted = [
                (
                    item.name,
                    _brief(item.written),
                    ", ".join(f"{name} = {value}" for name, value in item.parameters.items()),
                )
                for item in record.fitted
            ]
            blocks.append(Grid(("transformed", "by", "fitted"), fitted))
        return blocks

    def __str__(self) -> str:
        from virtualfs.display import shown_text

        return shown_text(self)

    @property
    def name(self) -> str:
        """The name that it was saved under."""
        return self.record.name

    @property
    def version(self) -> int:
        """Which save under the name it is, from 1."""
        return self.record.version

    @property
    def reference(self) -> str:
        """How it is asked for by name, as ``training_set:delays@1``."""
        return self.record.reference

    @property
    def content_hash(self) -> str:
        """The hash of its rows."""
        return self.record.content_hash

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of features as a model takes them, transformed ones in their places."""
        return self.record.output_names

    @property
    def metadata(self) -> dict[str, Any]:
        """What it takes to make it again: names, versions, revision, SQL and its hash."""
        return self.record.metadata

    @property
    def statistics(self) -> dict[str, dict[str, Any]]:
        """Of each column the NULLs, and of those with an order the least, greatest and mean."""
        return self.record.statistics

    def verify(self) -> None:
        """Read all rows and compare them with the hash.

        Raises
        ------
        TrainingSetDamagedError
            They are not what was saved, or are gone.
        """
        for _ in self._saved_batches():
            pass

    def to_pyarrow_batches(self, *, raw: bool = False) -> pa.RecordBatchReader:
        """Return the rows as a stream: the spine's columns, then the features.

        Parameters
        ----------
        raw
            Whether features are as they were before any transformation.

        Raises
        ------
        TrainingSetDamagedError
            At the end, when the rows that were read are not what was saved.
        """
        stream = self._saved_batches() if raw or self._site is None else self._transformed()
        return _reader(next(stream), stream)

    def to_pyarrow(self, *, raw: bool = False) -> pa.Table:
        """Return the rows as an Arrow table; see :meth:`to_pyarrow_batches`."""
        return self.to_pyarrow_batches(raw=raw).read_all()

    def to_pandas(self, *, raw: bool = False) -> pd.DataFrame:
        """Return the rows as a pandas frame; see :meth:`to_pyarrow_batches`."""
        frame: pd.DataFrame = self.to_pyarrow(raw=raw).to_pandas(types_mapper=nullable_pandas)
        return frame

    def to_polars(self, *, raw: bool = False) -> pl.DataFrame:
        """Return the rows as a polars frame; needs ``virtualfs[polars]``."""
        try:
            import polars as pl
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "to_polars needs polars; pip install 'virtualfs[polars]'"
            ) from None
        return pl.DataFrame(pl.from_arrow(self.to_pyarrow(raw=raw)))

    # -- reading

    def _saved_batches(self) -> Iterator[pa.Table]:
        """Yield the rows as they were saved, in pieces; the first even if it is empty."""
        content = ContentHash()
        for piece in self.stored():
            content.update(piece)
            yield piece
        found = content.hexdigest()
        if found != self.record.content_hash:
            raise TrainingSetDamagedError(
                f"training set {self.name}@{self.version} is not what was saved: "
                f"{self.record.place} holds {content.rows:,} rows with the hash {found}, expected "
                f"{self.record.rows:,} with {self.record.content_hash}. Restore it from a backup, "
                "or save the dataset again as a new version"
            )

    def stored(self) -> Iterator[pa.Table]:
        """Yield what stands where the set was saved, whatever it is."""
        return self._of_file() if self.record.kind == "parquet" else self._of_table()

    def _of_file(self) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path, system = file_and_system(self.record.place, self.folder)
        try:
            with system.open_input_file(path) as opened, pq.ParquetFile(opened) as file:
                yield file.schema_arrow.remove_metadata().empty_table()
                for batch in file.iter_batches(_PIECE):
                    yield pa.Table.from_batches([batch]).replace_schema_metadata(None)
        except FileNotFoundError:
            raise TrainingSetDamagedError(
                f"training set {self.name}@{self.version} is gone: there is no file {path}; "
                "restore it from a backup, or save the dataset again as a new version"
            ) from None
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, PermissionError) or (
                "://" in self.record.place and not isinstance(error, pa.ArrowInvalid)
            ):
                raise WarehouseError(
                    f"training set {self.name}@{self.version}: {path} is out of reach: {error}"
                ) from None
            raise TrainingSetDamagedError(
                f"training set {self.name}@{self.version}: {path} cannot be read: {error}; "
                "restore it from a backup, or save the dataset again as a new version"
            ) from None

    def _of_table(self) -> Iterator[pa.Table]:
        place = self.warehouse(self.record.warehouse)
        dialect = place.capabilities.dialect
        types = {**self.record.own_columns, **{c.name: c.dtype for c in self.record.columns}}
        table, row = sql.table_reference(self.record.place, dialect), sql.column(ROW)
        rows = exp.select(*(sql.column(name) for name in types)).from_(table)
        counted = exp.select(exp.alias_(exp.Count(this=exp.Star()), "n")).from_(table.copy())
        try:
            with place.session() as session:
                found = session.query(sql.text(counted, dialect), {"n": "int64"})
                if (count := found.column(0)[0].as_py()) != self.record.rows:
                    raise TrainingSetDamagedError(
                        f"training set {self.name}@{self.version} is not what was saved: its table "
                        f"{self.record.place} has {count:,} rows, expected {self.record.rows:,}"
                    )
                for start in range(0, max(self.record.rows, 1), _PIECE):
                    within = exp.and_(row >= start, row < start + _PIECE)
                    piece = rows.where(within).order_by(exp.Ordered(this=row, desc=False))
                    found = session.query(sql.text(piece, dialect), types)
                    yield found.rename_columns([*types])
        except WarehouseUnavailableError:
            raise
        except WarehouseError as error:
            raise TrainingSetDamagedError(
                f"training set {self.name}@{self.version}: its table {self.record.place} cannot be "
                f"read: {error}"
            ) from None

    # -- transforming

    @cached_property
    def _site(self) -> Site | None:
        """What computes the transformations; None if there are none."""
        record = self.record
        if not record.fitted:
            return None
        view = fitted_view(record.fitted, {c.name: c.dtype for c in record.columns}, record.name)
        names = tuple(item.name for item in record.fitted)
        inputs = tuple((name, name) for name in view.request)
        part = OnDemandPart(view, inputs, tuple((name, name) for name in names))
        plan = FeaturePlan((), names, (part,), request=view.request)
        spine = SentSpine(tuple(view.request), lambda: None)
        return Site(self.meeting_place(), plan, spine, record.timestamp, is_alone=False)

    def _transformed(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        site = self._site
        assert site is not None
        own = [*self.record.own_columns]
        with site.session() as session, Progress() as progress:
            for piece in self._saved_batches():
                held = piece.select([*site.plan.request])
                rows = ClientSpine(held, tuple(held.column_names))
                found: Mapping[str, Any] = answers(site, session, rows, None, progress)
                columns = {name: piece.column(name) for name in own}
                for name in self.features:
                    columns[name] = found[name] if name in found else piece.column(name)
                yield pa.table(columns)


def _brief(text: str) -> str:
    return text if len(text) <= _WIDE else f"{text[:_WIDE]}..."


def _reader(first: pa.Table, rest: Iterator[pa.Table]) -> pa.RecordBatchReader:
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        for table in rest:
            yield from table.cast(first.schema).to_batches()

    return pa.RecordBatchReader.from_batches(first.schema, batches())
