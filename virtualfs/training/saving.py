"""Saving training sets: written once, counted and fitted where they lie, then remembered."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from virtualfs.capabilities import Files
from virtualfs.compiler import sql
from virtualfs.compiler.fitting import Fitting, categories_of, numbers_of, over_rows
from virtualfs.compiler.training_set import (
    Column,
    Fitted,
    SavedTrainingSet,
    Use,
    check_transformable,
    uses_of,
)
from virtualfs.definitions.feature_view import Feature
from virtualfs.definitions.transformation import Encoding, Transformation
from virtualfs.dtypes import type_name
from virtualfs.errors import DefinitionError, SpineError, UnsupportedByWarehouseError
from virtualfs.files import temporary
from virtualfs.functions import PythonFunctions
from virtualfs.provider import Warehouse, bounded
from virtualfs.training.content import ContentHash
from virtualfs.training.saved import TrainingSet, file_and_system
from virtualfs.training.spine_fit import distinct

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

    from virtualfs.training.dataset import TrainingDataset

__all__ = ["Memory", "Shelf"]

_STAND_INS: dict[str, Any] = {
    "string": "a", "boolean": True, "date": date(2000, 1, 1), "timestamp": datetime(2000, 1, 1),
}  # fmt: skip
"""Values that stand for parameters until they are known; of numbers it is 1."""


class Memory(Protocol):
    """Where training sets are remembered."""

    def add(self, record: SavedTrainingSet) -> SavedTrainingSet:
        """Remember a training set as the next version of its name, which is returned with it."""


@dataclass(frozen=True)
class Shelf:
    """Where training sets are kept, and what is needed to make and to read them.

    Parameters
    ----------
    memory
        Remembers what there is.
    author
        Who is recorded.
    place
        Folder of the files, from the project's folder, or a URL of object storage.
    """

    memory: Memory
    author: str
    folder: Path
    place: str
    warehouse: Callable[[str], Warehouse]
    meeting_place: Callable[[], Warehouse]
    functions: PythonFunctions

    def opened(self, record: SavedTrainingSet) -> TrainingSet:
        """Return a training set that is remembered."""
        return TrainingSet(record, self.folder, self.warehouse, self.meeting_place)

    def save(
        self,
        dataset: TrainingDataset,
        name: str,
        kind: Literal["parquet", "table"],
        transformations: Sequence[Transformation],
        description: str,
        tags: Mapping[str, str],
    ) -> TrainingSet:
        """Run a dataset and keep what comes of it, whole or not at all.

        Raises
        ------
        DefinitionError
            A transformation does not fit the features.
        UnsupportedByWarehouseError
            A table cannot be made where the features lie.
        """
        columns = dataset.plan.dtypes()
        distinct([*dataset.spine.columns, *columns], "the columns")
        folder = str(self.folder.resolve())
        uses, features = uses_of(dataset.selections, columns, folder)
        record = SavedTrainingSet(
            name=name,
            description=description,
            tags=dict(tags),
            created_at=datetime.now(UTC),
            created_by=self.author,
            kind=kind,
            place="",
            rows=0,
            content_hash="",
            own_columns={},
            timestamp=dataset.timestamp,
            uses=uses,
            columns=features,
            request=dict(dataset.plan.request),
        )
        _checked(transformations, columns, features, uses)
        metadata = dict(dataset.metadata)
        if kind == "parquet":
            kept, forget = self._to_file(dataset, record)
        else:
            kept, forget = self._to_table(dataset, record)
        try:
            where, rows_sql = self._relation(kept)
            dtypes = {**kept.own_columns, **columns}
            statistics = _statistics(where, rows_sql, dtypes)
            fitted = _fitted(where, rows_sql, columns, transformations)
            _check_names(fitted, kept)
            whole = kept.model_copy(
                update={"statistics": statistics, "fitted": fitted, "metadata": metadata}
            )
            return self.opened(self.memory.add(whole))
        except BaseException:
            forget()
            raise

    def _to_file(
        self, dataset: TrainingDataset, record: SavedTrainingSet
    ) -> tuple[SavedTrainingSet, Callable[[], None]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        safe = re.sub(r"[^\w.\-]", "_", record.name)
        place = f"{self.place.rstrip('/')}/{safe}/{uuid.uuid4().hex}.parquet"
        path, system = file_and_system(place, self.folder)
        local = "://" not in place
        if local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        content = ContentHash()
        writing = str(temporary(Path(path))) if local else path

        def forget() -> None:
            for file in {path, writing}:
                with suppress(OSError):
                    system.delete_file(file)

        try:
            with (
                dataset.to_pyarrow_batches() as reader,
                pq.ParquetWriter(writing, reader.schema, filesystem=system, compression="zstd",
                                 store_schema=True) as writer,
            ):  # fmt: skip
                for batch in reader:
                    writer.write_batch(batch)
                    content.update(batch)
                if not content.rows:
                    content.update(reader.schema.empty_table())
                schema = reader.schema
            if local:
                Path(writing).chmod(0o444)
                Path(writing).replace(path)
        except pa.ArrowNotImplementedError as error:
            forget()
            raise UnsupportedByWarehouseError(
                f"Parquet cannot hold one of the columns: {error}; convert it, an interval for "
                "example to seconds, in the feature's expr="
            ) from None
        except BaseException:
            forget()
            raise
        own = {name: _dtype(schema.field(name)) for name in dataset.spine.columns}
        update = {"place": place, "rows": content.rows, "content_hash": content.hexdigest(),
                  "own_columns": own}  # fmt: skip
        return record.model_copy(update=update), forget

    def _to_table(
        self, dataset: TrainingDataset, record: SavedTrainingSet
    ) -> tuple[SavedTrainingSet, Callable[[], None]]:
        safe = re.sub(r"\W", "_", record.name)[:40].lower()
        table = f"training_{safe}_{uuid.uuid4().hex[:8]}"
        dataset.write_table(table, overwrite=False, numbered=True)
        site = dataset.sites[0]
        dialect = site.warehouse.capabilities.dialect
        target = sql.text(sql.table_reference(table, dialect), dialect)

        def forget() -> None:
            with site.warehouse.session() as session:
                session.execute(f"DROP TABLE IF EXISTS {target}")

        try:
            with site.warehouse.session() as session:
                described = site.warehouse.describe(f"SELECT * FROM {target}")  # noqa: S608
                counted = session.query(f"SELECT count(*) AS n FROM {target}", {"n": "int64"})  # noqa: S608
            own = {
                name: type_name(described[name]) or str(described[name]).lstrip("!")
                for name in dataset.spine.columns
            }
            kept = record.model_copy(
                update={"place": table, "warehouse": site.warehouse.name, "own_columns": own,
                        "rows": int(counted.column(0)[0].as_py())}
            )  # fmt: skip
            content = ContentHash()
            for piece in self.opened(kept).stored():
                content.update(piece)
        except BaseException:
            forget()
            raise
        return kept.model_copy(update={"content_hash": content.hexdigest()}), forget

    def _relation(self, record: SavedTrainingSet) -> tuple[Warehouse, str]:
        """Return where a training set lies, and the SELECT of its rows there."""
        if record.kind == "table":
            where = self.warehouse(record.warehouse)
            dialect = where.capabilities.dialect
            table = sql.text(sql.table_reference(record.place, dialect), dialect)
            return where, f"SELECT * FROM {table}"  # noqa: S608
        where = self.meeting_place()
        assert where.capabilities.read_files is not None
        path = record.place if "://" in record.place else str(self.folder / record.place)
        return where, where.capabilities.read_files(Files(path, "parquet", folders=False))


def _checked(
    transformations: Sequence[Transformation],
    columns: Mapping[str, str],
    features: Sequence[Column],
    uses: Sequence[Use],
) -> None:
    """Refuse, before anything runs, what cannot be fitted whatever the rows are."""
    read = set()
    for item in transformations:
        if isinstance(item, Encoding):
            categories_of(columns, item.column, item.most)
            read.add(item.column)
        elif not isinstance(item, Feature):
            raise DefinitionError(
                "transformations are Feature(name, expression), standardize(...), min_max(...), "
                f"impute(...), one_hot(...) and ordinal(...), not {type(item).__name__}"
            )
    fitting = Fitting.of([item for item in transformations if isinstance(item, Feature)], columns)
    fitting.trees([_STAND_INS.get(kind, 1) for kind in fitting.kinds])
    check_transformable(features, uses, read | fitting.read)


def _check_names(fitted: Sequence[Fitted], record: SavedTrainingSet) -> None:
    replaced = {item.replaces for item in fitted}
    kept = (column.name for column in record.columns if column.name not in replaced)
    taken = {name.casefold(): name for name in (*record.own_columns, *kept)}
    for item in fitted:
        other = taken.setdefault(item.name.casefold(), item.name)
        if other != item.name or item.name in record.own_columns:
            raise DefinitionError(
                f"transformation {item.name!r}: the training set has a column {other!r}; give the "
                "transformation another name, not one that differs in case alone"
            )


def _row(where: Warehouse, rows_sql: str, table: ir.Table) -> list[Any]:
    """Return the values of an aggregate over a training set, where it lies."""
    text = over_rows(table, rows_sql, where.capabilities)
    types = {name: str(dtype).lstrip("!") for name, dtype in table.schema().items()}
    with where.session() as session, bounded(session):
        found = session.query(text, types)
    return [column[0].as_py() for column in found.columns]


def _statistics(
    where: Warehouse, rows_sql: str, dtypes: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    counts = numbers_of(dtypes)
    found = counts.told(_row(where, rows_sql, counts.table))
    return {
        column: {
            what: int(value or 0) if what in ("nulls", "not_finite") else _plain(value)
            for what, value in held.items()
        }
        for column, held in found.items()
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    return value


def _fitted(
    where: Warehouse,
    rows_sql: str,
    columns: Mapping[str, str],
    transformations: Sequence[Transformation],
) -> tuple[Fitted, ...]:
    """Compute the parameters of transformations, where the training set lies."""
    features: list[Feature] = []
    replaces: dict[str, str | None] = {}
    told: dict[str, dict[str, Any]] = {}
    for item in transformations:
        if isinstance(item, Feature):
            features.append(item)
            replaces.setdefault(item.name, item.name if item.name in columns else None)
            continue
        table = categories_of(columns, item.column, item.most)
        text = over_rows(table, rows_sql, where.capabilities)
        with where.session() as session, bounded(session):
            found = session.query(text, {"category": columns[item.column], "times": "int64"})
        categories = sorted(found.column(0).to_pylist())
        if not categories:
            raise DefinitionError(
                f"{item.column!r} is NULL in every row: there are no categories to fit"
            )
        made = item.features(categories)
        features += made
        replaces |= dict.fromkeys((feature.name for feature in made), item.column)
        if item.how == "one_hot":
            pairs = zip(made, categories, strict=True)
            told |= {feature.name: {"category": category} for feature, category in pairs}
        else:
            told |= {feature.name: {"categories": categories} for feature in made}
    fitting = Fitting.of(features, columns)
    table = fitting.aggregates()
    row = [] if table is None else _row(where, rows_sql, table)
    trees = fitting.trees(row)
    numbers = dict(zip(fitting.parameters.values(), row, strict=True))
    return tuple(
        Fitted(
            name=feature.name,
            written=feature.expr.text if feature.expr else "",
            dtype=trees[feature.name].dtype,
            tree=trees[feature.name].to_json(),
            replaces=replaces[feature.name],
            parameters=told.get(
                feature.name,
                {name: _plain(numbers[name]) for name in fitting.named(feature.name)},
            ),
        )
        for feature in features
    )


def _dtype(field: pa.Field) -> str:
    import ibis

    kind = field.type
    try:
        found = ibis.dtype(kind.value_type if str(kind).startswith("dictionary") else kind)
    except Exception:  # noqa: BLE001 - Ibis raises several kinds for types it lacks
        raise SpineError(
            f"the spine's column {field.name!r} has type {kind}, which cannot be kept; convert it, "
            "for example to text"
        ) from None
    return type_name(found) or str(found).lstrip("!")
