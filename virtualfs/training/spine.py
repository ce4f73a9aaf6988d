"""Spines: the rows whose features are wanted, wherever they live.

A spine that the client holds (pandas, polars, pyarrow, a Parquet file, a record-batch reader) sends
only row ids, instants and keys; its own columns never travel, so they come back unchanged. A spine
in the warehouse (SQL text, an Ibis table) is never downloaded to be sent back: it is evaluated
once, into a temporary table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlglot import exp

from virtualfs.capabilities import Capabilities
from virtualfs.compiler import sql
from virtualfs.compiler.ibis_query import query_table
from virtualfs.compiler.plan import RESERVED, FeaturePlan
from virtualfs.compiler.rows import ROW, TIME
from virtualfs.compiler.user_sql import as_derived_table, check_shape
from virtualfs.dtypes import uuids
from virtualfs.errors import DefinitionError, SpineError, WarehouseError
from virtualfs.provider import DuplicateColumnsError, Warehouse
from virtualfs.training.spine_fit import (
    check_arrow,
    check_types,
    distinct,
    needed_columns,
    request_column,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

__all__ = [
    "ClientSpine",
    "SentSpine",
    "Spine",
    "StreamedSpine",
    "WarehouseSpine",
    "connection_of",
    "is_sql",
    "read_spine",
    "spine_instant",
]


_FILE = re.compile(r"^\S[^\n]*\.(parquet|csv)$", re.IGNORECASE)


@dataclass(frozen=True)
class ClientSpine:
    """Rows that the client holds, as pandas, polars or pyarrow."""

    original: Any
    columns: tuple[str, ...]
    schema: pa.Schema | None = None
    """Types of all columns, where the rows are a piece of more."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.original)

    def arrow(self, columns: Sequence[str]) -> pa.Table:
        """Return some of the columns as Arrow."""
        import pyarrow as pa

        module = type(self.original).__module__.partition(".")[0]
        if module == "pandas":
            try:
                types = None
                if self.schema is not None:
                    types = pa.schema([self.schema.field(name) for name in columns])
                frame = _with_uuids_as_text(self.original[list(columns)])
                return pa.Table.from_pandas(
                    frame, types, preserve_index=False
                ).replace_schema_metadata(None)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise SpineError(
                    f"the spine's columns {', '.join(columns)} cannot be read: "
                    f"{error.args[0]}; give each column one type"
                ) from None
        if module == "polars":
            return self.original.select(list(columns)).to_arrow()
        return self.original.select(list(columns))

    def whole(self) -> ClientSpine:
        """Return the rows as they are."""
        return self

    def pieces(self, rows: int) -> Iterator[ClientSpine]:
        """Yield the rows in pieces of at most `rows`, one empty piece where there are none."""
        module = type(self.original).__module__.partition(".")[0]
        # A piece alone might look like another type: all None, fewer digits.
        several = module == "pandas" and self.rows > rows
        schema = self.arrow(self.columns).schema if several else None
        for start in range(0, max(self.rows, 1), rows):
            if module == "pandas":
                piece = self.original.iloc[start : start + rows]
                yield ClientSpine(piece, self.columns, schema)
            else:
                yield ClientSpine(self.original.slice(start, rows), self.columns)

    def check(self, plan: FeaturePlan, timestamp: str) -> Any:
        """Return the instants' type; raise SpineError unless all that is needed fits."""
        needed = needed_columns(plan, timestamp, self.columns)
        return check_arrow(plan, timestamp, self.arrow(needed).schema)

    def only(self, columns: Sequence[str]) -> ClientSpine:
        """Return the rows with some of their columns."""
        return ClientSpine(self.arrow(columns), tuple(columns))

    def dtype(self, column: str) -> Any:
        """Return a column's data type."""
        import ibis

        kind = self.arrow([column]).schema.field(column).type
        return ibis.dtype(
            getattr(kind, "value_type", kind) if str(kind).startswith("dict") else kind
        )

    def narrow(
        self, plan: FeaturePlan, timestamp: str, instant_type: str, keep: Sequence[str] = ()
    ) -> pa.Table:
        """Return row ids, instants, keys, and the columns in `keep`, as Arrow."""
        import numpy as np
        import pyarrow as pa

        needed = needed_columns(plan, timestamp, self.columns)
        table = self.arrow(distinct([*needed, *keep]))
        columns: dict[str, Any] = {ROW: pa.array(np.arange(self.rows, dtype="int64"))}
        columns[TIME] = (
            _instants(table.column(timestamp))
            if plan.needs_time
            else pa.nulls(self.rows, pa.timestamp("us"))
        )
        if instant_type == "int64":
            columns[TIME] = columns[TIME].cast(pa.int64())
        request = plan.request_columns
        declared = {**plan.key_columns, **request}
        for name in [*dict.fromkeys([*declared, *keep])]:
            column = table.column(name)
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if name in request:
                column = request_column(name, column, request[name])
            elif declared.get(name) == "uuid":
                column = _uuids(name, column)
            elif pa.types.is_null(column.type) and name in declared:
                import ibis

                column = column.cast(ibis.dtype(declared[name]).to_pyarrow())
            columns[name] = column
        return pa.table(columns)

    def expression(self, connection: Any) -> ir.Table:  # noqa: ARG002 - as WarehouseSpine's
        """Return the spine as an Ibis table."""
        import ibis

        return ibis.memtable(self.arrow(distinct(self.columns)))


def _with_uuids_as_text(frame: Any) -> Any:
    for name in frame.columns:
        column = frame[name]
        if column.dtype == object and isinstance(next(iter(column.dropna()), None), UUID):
            frame = frame.assign(**{name: column.map(str, na_action="ignore")})
    return frame


class StreamedSpine:
    """Rows that come in batches and may be more than memory holds: a Parquet file, a reader.

    Parameters
    ----------
    open_reader
        Returns a reader of all rows.
    schema
        Their Arrow schema.
    rows
        How many there are; None when that is not known before they have been read.
    once
        Whether they can be read only once, as those of a reader can.
    """

    def __init__(
        self,
        open_reader: Callable[[], pa.RecordBatchReader],
        schema: pa.Schema,
        rows: int | None,
        *,
        once: bool,
    ) -> None:
        self._open = open_reader
        self._schema = schema
        self._once = once
        self._read = False
        self._kept: ClientSpine | None = None
        self.rows = rows
        self.columns = tuple(schema.names)

    def _reader(self) -> pa.RecordBatchReader:
        if self._once and self._read:
            raise SpineError(
                "the spine is a record-batch reader, which can be streamed only once, and it has "
                "been; keep the first result, or pass a table or a Parquet path"
            )
        self._read = True
        return self._open()

    def whole(self) -> ClientSpine:
        """Read all rows into memory; a reader's are kept, so that they can be used again."""
        if self._kept is not None:
            return self._kept
        whole = ClientSpine(self._reader().read_all(), self.columns)
        if self._once:
            self._kept = whole
        return whole

    def pieces(self, rows: int) -> Iterator[ClientSpine]:
        """Yield the rows in pieces of about `rows`, one empty piece where there are none."""
        import pyarrow as pa

        if self._kept is not None:
            yield from self._kept.pieces(rows)
            return
        waiting: list[pa.RecordBatch] = []
        count, nothing = 0, True
        with self._reader() as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, rows):
                    waiting.append(batch.slice(start, rows))
                    count += waiting[-1].num_rows
                    if count >= rows:
                        nothing = False
                        yield ClientSpine(pa.Table.from_batches(waiting), self.columns)
                        waiting, count = [], 0
        if waiting or nothing:
            yield ClientSpine(pa.Table.from_batches(waiting, self._schema), self.columns)

    def check(self, plan: FeaturePlan, timestamp: str) -> Any:
        """Return the instants' type; raise SpineError unless all that is needed fits."""
        needed_columns(plan, timestamp, self.columns)
        return check_arrow(plan, timestamp, self._schema)

    def expression(self, connection: Any) -> ir.Table:
        """Return the spine as an Ibis table."""
        return self.whole().expression(connection)


@dataclass(frozen=True)
class WarehouseSpine:
    """Rows that live in the warehouse, as SQL text or an Ibis table."""

    sql: str
    schema: dict[str, Any]
    expr: Any = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the spine's columns."""
        return tuple(self.schema)

    def check(self, plan: FeaturePlan, timestamp: str) -> Any:
        """Return the instants' type; raise SpineError unless all that is needed fits."""
        needed = needed_columns(plan, timestamp, self.columns)
        return check_types(plan, timestamp, {name: self.schema[name] for name in needed})

    def select(self, plan: FeaturePlan, timestamp: str, capabilities: Capabilities) -> str:
        """Return the SELECT of the spine with row ids and instants."""
        import ibis

        source = ibis.table(self.schema, name=sql.SPINE)
        at = spine_instant(source, plan, timestamp, capabilities)
        tree = sql.render(
            source.select(capabilities.row_number().name(ROW), at.name(TIME), source), capabilities
        )
        (place,) = (table for table in tree.find_all(exp.Table) if table.name == sql.SPINE)
        query = exp.Subquery(this=sql.verbatim(f"\n{self.sql}"), alias=place.args.get("alias"))
        place.replace(query)
        return sql.text(tree, capabilities.dialect)

    def expression(self, connection: Any) -> ir.Table:
        """Return the spine as an Ibis table."""
        return self.expr if self.expr is not None else query_table(
            connection, self.sql, self.schema
        )


@dataclass(frozen=True)
class SentSpine:
    """Rows that come from another warehouse when it runs, piece by piece."""

    columns: tuple[str, ...]
    estimate: Callable[[], int | None]

    @property
    def rows(self) -> int | None:
        """How many rows the other warehouse expects."""
        return self.estimate()


Spine = ClientSpine | StreamedSpine | WarehouseSpine
"""What a user gives."""


def read_spine(spine: Any, warehouse: Warehouse) -> Spine:
    """Recognise a spine and describe it; nothing is run.

    It is a pandas, polars or pyarrow table, a record-batch reader, the path of a Parquet or CSV
    file, an Ibis table, or SQL text.

    Raises
    ------
    SpineError
        It is none of these, has a column twice or under a reserved name, or lives elsewhere.
    """
    found = _recognised(spine, warehouse)
    names = found.columns
    if not all(isinstance(name, str) for name in names):
        raise SpineError("the spine's column names must be text")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpineError(f"the spine has columns twice: {', '.join(twice)}; rename one of each")
    reserved = [name for name in names if name.startswith(RESERVED)]
    if reserved:
        raise SpineError(f"column names that start with '__' are reserved: {', '.join(reserved)}")
    return found


def is_sql(spine: Any) -> bool:
    """Tell whether a spine is SQL text, or was made of it."""
    is_text = isinstance(spine, str) and not _FILE.search(spine)
    return is_text or isinstance(spine, WarehouseSpine)


def connection_of(spine: Any) -> Any:
    """Return the Ibis connection that an Ibis spine belongs to; None for others."""
    if type(spine).__module__.partition(".")[0] != "ibis" or not hasattr(spine, "_find_backends"):
        return None
    backends, _ = spine._find_backends()
    return backends[0] if len(backends) == 1 else None


def _recognised(spine: Any, warehouse: Warehouse) -> Spine:
    if isinstance(spine, StreamedSpine | WarehouseSpine):
        return spine
    path = Path(spine) if isinstance(spine, Path | str) and _FILE.search(str(spine)) else None
    if path is not None:
        return _csv_spine(path) if path.suffix.lower() == ".csv" else _parquet_spine(path)
    if isinstance(spine, str):
        return _sql_spine(spine, warehouse)
    module, kind = type(spine).__module__.partition(".")[0], type(spine).__name__
    if module == "ibis":
        return _ibis_spine(spine, warehouse)
    if module == "pandas" and kind == "DataFrame":
        return ClientSpine(spine, tuple(spine.columns))
    if module == "polars" and kind in ("DataFrame", "LazyFrame"):
        frame = spine.collect() if kind == "LazyFrame" else spine
        return ClientSpine(frame, tuple(frame.columns))
    if module == "pyarrow" and hasattr(spine, "read_next_batch"):
        return StreamedSpine(lambda: spine, spine.schema, None, once=True)
    if module == "pyarrow" and kind in ("Table", "RecordBatch"):
        import pyarrow as pa

        table = spine if kind == "Table" else pa.Table.from_batches([spine])
        return ClientSpine(table, tuple(table.schema.names))
    raise SpineError(
        "a spine is a pandas, polars or pyarrow table, a record-batch reader, the path of a "
        f"Parquet or CSV file, an Ibis table or SQL text, not {kind}"
    )


def _csv_spine(path: Path) -> ClientSpine:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(path)
    except FileNotFoundError:
        raise SpineError(f"the spine's file {path} does not exist") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise SpineError(f"the spine's file {path} cannot be read as CSV: {error}") from None
    return ClientSpine(table, tuple(table.schema.names))


def _parquet_spine(path: Path) -> StreamedSpine:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow.remove_metadata(), file.metadata.num_rows
    except FileNotFoundError:
        raise SpineError(f"the spine's file {path} does not exist") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise SpineError(f"the spine's file {path} cannot be read as Parquet: {error}") from None

    def batches() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield batch.replace_schema_metadata(None)

    def reader() -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, batches())

    return StreamedSpine(reader, schema, rows, once=False)


def spine_instant(
    spine: ir.Table, plan: FeaturePlan, timestamp: str, capabilities: Capabilities
) -> ir.Value:
    """Return the instants of a spine in the warehouse (rule 9); NULL where no view goes by time."""
    import ibis

    if not plan.needs_time:
        return ibis.null(capabilities.instant_type)
    return capabilities.instant(spine[timestamp], "UTC", "down")


def _sql_spine(text: str, warehouse: Warehouse) -> WarehouseSpine:
    lexis = warehouse.capabilities.lexis
    try:
        check_shape(text, "query", lexis)
    except DefinitionError as error:
        raise SpineError(f"the spine's SQL: {error}") from None
    query = as_derived_table(text, lexis)
    return WarehouseSpine(query, _describe(query, warehouse))


def _describe(text: str, warehouse: Warehouse) -> dict[str, Any]:
    try:
        return dict(warehouse.describe(text))
    except DuplicateColumnsError as error:
        raise SpineError(f"the spine: {error}") from None
    except WarehouseError as error:
        raise type(error)(
            f"the spine's SQL, in warehouse {warehouse.name!r} (say another by warehouse= or "
            f"--warehouse): {error}"
        ) from None


def _ibis_spine(spine: Any, warehouse: Warehouse) -> WarehouseSpine:
    if not hasattr(spine, "schema"):
        raise SpineError("an Ibis spine must be a table")
    backends, _ = spine._find_backends()
    if any(backend is not warehouse.connection for backend in backends):
        raise SpineError(
            f"the Ibis spine belongs to another connection than warehouse {warehouse.name!r}; "
            "hand that connection to FeatureStore(connections=...), or pass spine.to_pyarrow()"
        )
    text = warehouse.connection.compile(spine)
    return WarehouseSpine(text, dict(spine.schema().items()), spine)


def _uuids(name: str, column: pa.ChunkedArray) -> pa.Array:
    try:
        return uuids(column.to_pylist())
    except ValueError as error:
        raise SpineError(f"the spine's join key {name!r} holds what is no UUID: {error}") from None


def _instants(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return instants as naive UTC microseconds; finer times round down (rule 9)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            column = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit))
        if kind.unit == "ns":
            column = pc.floor_temporal(column, unit="microsecond")
    return column.cast(pa.timestamp("us"))
