"""Training datasets: lazy, and run inside the warehouse when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from virtualfs.compiler import latest, sql
from virtualfs.compiler.plan import FeaturePlan
from virtualfs.compiler.program import SPINE, Program, compile_training, fragment
from virtualfs.dtypes import nullable_pandas
from virtualfs.errors import WarehouseError
from virtualfs.provider import Session, Warehouse
from virtualfs.training.spine import ClientSpine, Spine, spine_instant

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["TrainingDataset"]

BATCH_ROWS = 100_000
_ANSWER_ROW = "__answer_row"


@dataclass(frozen=True)
class TrainingDataset:
    """The spine's rows with the features as of each row's instant.

    Nothing runs until a ``to_*`` method is called. Made by
    :meth:`virtualfs.FeatureStore.get_historical_features`.
    """

    warehouse: Warehouse
    spine: Spine
    plan: FeaturePlan
    timestamp: str
    context: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"TrainingDataset({', '.join((*self.spine.columns, *self.plan.columns))})"

    @cached_property
    def _program(self) -> Program:
        capabilities = self.warehouse.capabilities
        if isinstance(self.spine, ClientSpine):
            schema, statement = dict(self.plan.key_columns), None
        else:
            schema = {
                name: str(self.spine.schema[name]).lstrip("!") for name in self.plan.key_columns
            }
            statement = self.spine.statement(self.plan, self.timestamp, capabilities)
        return compile_training(self.plan, schema, capabilities, statement, self.spine.columns)

    def sql(self, *, streamed: bool = False) -> str:
        """Return the SQL that a ``to_*`` method runs, statement by statement.

        Parameters
        ----------
        streamed
            False: what ``to_pyarrow``, ``to_pandas`` and ``to_polars`` run, one statement per view
            whose answers are laid beside each other. True: what ``to_table``, and for a spine in
            the warehouse ``to_pyarrow_batches`` and ``to_parquet``, run instead: the same parts
            joined on the row id by one statement.
        """
        return self._program.text(streamed=streamed)

    def explain(self) -> str:
        """Return, view by view, how the features are found and by which rules."""
        lines = [f"Warehouse {self.warehouse.name!r} ({self.warehouse.capabilities.engine})"]
        where = "sent by the client" if isinstance(self.spine, ClientSpine) else "in the warehouse"
        lines.append(f"Spine: {where}, instants in {self.timestamp!r}")
        lines += [f"{part.view}: {part.strategy}; {part.rules}" for part in self._program.parts]
        return "\n".join(lines)

    @property
    def metadata(self) -> dict[str, Any]:
        """What it takes to reproduce the dataset: names, versions, revision, SQL and its hash."""
        text = self.sql()
        return {
            **self.context,
            "views": {part.view.name: part.view.version or "draft" for part in self.plan.parts},
            "features": list(self.plan.columns),
            "timestamp": self.timestamp,
            "sql": text,
            "sql_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }

    @property
    def expr(self) -> ir.Table:
        """The dataset as one Ibis table of the warehouse's connection, to compose with."""
        import ibis

        connection = self.warehouse.connection
        capabilities = self.warehouse.capabilities
        spine = self.spine.expression(connection)
        at = spine_instant(spine, self.plan, self.timestamp, capabilities)
        numbered = spine.mutate(**{latest.ROW: ibis.row_number(), latest.TIME: at})
        keys = [*dict.fromkeys(self.plan.key_columns)]
        narrow = numbered.select(latest.ROW, latest.TIME, *keys)
        result = numbered
        for part in self.plan.parts:
            rows = connection.sql(part.view.rows_sql, schema=part.view.columns)
            answer = fragment(narrow, rows, part, capabilities)
            answer = answer.rename(**{_ANSWER_ROW: latest.ROW})
            result = result.left_join(answer, result[latest.ROW] == answer[_ANSWER_ROW])
            result = result.drop(_ANSWER_ROW)
        ordered = result.order_by(latest.ROW)
        return ordered.select(*self.spine.columns, *self.plan.columns)

    @contextmanager
    def _session(self, program: Program, keep: tuple[str, ...] = ()) -> Iterator[Session]:
        """Open a session in which the spine's table stands."""
        expr = getattr(self.spine, "expr", None)
        with self.warehouse.session(shared=expr is not None) as session:
            if isinstance(self.spine, ClientSpine):
                narrow = self.spine.narrow(self.plan, self.timestamp, keep)
                session.load_spine(SPINE, narrow)
            else:
                if expr is not None:
                    self.warehouse.connection._run_pre_execute_hooks(expr)
                session.execute(program.spine or "")
            yield session

    def _answers(self, *, with_spine: bool) -> tuple[pa.Table | None, pa.Table]:
        """Return the spine's own columns, if asked for, and the feature columns, row by row."""
        import pyarrow as pa

        program = self._program
        with self._session(program) as session:
            spine = session.query(program.ordered_spine()) if with_spine else None
            tables = [session.query(part.ordered) for part in program.parts]
        columns = {name: table.column(name) for table in tables for name in table.column_names}
        lengths = {table.num_rows for table in (*tables, *([spine] if spine is not None else []))}
        if len(lengths) != 1:
            raise WarehouseError(f"the parts of one answer have different lengths: {lengths}")
        return spine, pa.table({name: columns[name] for name in self.plan.columns})

    def to_pyarrow(self) -> pa.Table:
        """Run and return an Arrow table: the spine's columns, then the features.

        Raises
        ------
        WarehouseError
            The warehouse refuses or cannot be reached.
        """
        if isinstance(self.spine, ClientSpine):
            _, result = self._answers(with_spine=False)
            spine = self.spine.arrow(self.spine.columns)
        else:
            spine, result = self._answers(with_spine=True)
        for name in result.column_names:
            spine = spine.append_column(result.schema.field(name), result.column(name))
        return spine

    def to_pandas(self) -> pd.DataFrame:
        """Run and return a pandas frame; integers and booleans stay whole beside NULLs.

        A pandas spine keeps its own columns and index untouched.
        """
        if isinstance(self.spine, ClientSpine) and _module(self.spine.original) == "pandas":
            _, result = self._answers(with_spine=False)
            features = result.to_pandas(types_mapper=nullable_pandas)
            features.index = self.spine.original.index
            import pandas as pd

            frame: pd.DataFrame = pd.concat([self.spine.original, features], axis=1)
        else:
            frame = self.to_pyarrow().to_pandas(types_mapper=nullable_pandas)
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Run and return a polars frame; needs ``virtualfs[polars]``."""
        try:
            import polars as pl
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "to_polars needs polars; pip install 'virtualfs[polars]'"
            ) from None
        if isinstance(self.spine, ClientSpine) and _module(self.spine.original) == "polars":
            _, result = self._answers(with_spine=False)
            frame: pl.DataFrame = self.spine.original.hstack(pl.DataFrame(pl.from_arrow(result)))
            return frame
        return pl.DataFrame(pl.from_arrow(self.to_pyarrow()))

    def to_pyarrow_batches(self, rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        """Run and return the rows as a stream of batches of about `rows` rows."""
        import pyarrow as pa

        shared = getattr(self.spine, "expr", None) is not None
        if isinstance(self.spine, ClientSpine) or not self.warehouse.can_stream(shared=shared):
            return self.to_pyarrow().to_reader(max_chunksize=rows)
        program = self._program

        def stream() -> Iterator[Any]:
            with self._session(program) as session:
                reader = session.stream(program.joined(), rows)
                yield reader.schema
                yield from reader

        batches = stream()
        schema = next(batches)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def to_parquet(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Run and write a Parquet file, whole or not at all; return its path.

        Raises
        ------
        FileExistsError
            Something stands at `path` and `overwrite` is false.
        """
        import pyarrow.parquet as pq

        target = Path(path)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists; choose another path or pass overwrite=True")
        part = target.with_name(f".{target.name}.part")
        try:
            with (
                self.to_pyarrow_batches() as reader,
                pq.ParquetWriter(part, reader.schema, compression="zstd") as writer,
            ):
                for batch in reader:
                    writer.write_batch(batch)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def to_table(self, name: str, *, overwrite: bool = False) -> str:
        """Run and write a table inside the warehouse; return its name.

        Raises
        ------
        WarehouseError
            The table exists and `overwrite` is false, or the warehouse is read-only.
        """
        dialect = self.warehouse.capabilities.dialect
        create = exp.Create(
            this=sql.table_reference(name, dialect),
            kind="TABLE",
            replace=overwrite,
            expression=exp.maybe_parse(self._program.joined(), dialect=dialect),
        )
        with self._session(self._program, keep=self.spine.columns) as session:
            session.execute(sql.text(create, dialect))
        return name


def _module(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
