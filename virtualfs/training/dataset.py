"""Training datasets: lazy, and run inside the warehouse when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtualfs.capabilities import Statistics, round_up
from virtualfs.compiler import quality, sql
from virtualfs.compiler.operations import value_of
from virtualfs.compiler.plan import GIVEN, FeaturePlan, Part
from virtualfs.compiler.program import Program, compile_training, spine_relation, with_head
from virtualfs.compiler.rows import ROW, TIME
from virtualfs.compiler.strategy import fragment
from virtualfs.display import Block, Code, Grid, Note, Shown
from virtualfs.dtypes import nullable_pandas
from virtualfs.errors import UnsupportedByWarehouseError, WarehouseError
from virtualfs.functions import PythonFunctions
from virtualfs.progress import Progress
from virtualfs.provider import Session, Warehouse, bounded, temporary_name
from virtualfs.training.diagnosis import Diagnosis, ViewDiagnosis
from virtualfs.training.spine import (
    ClientSpine,
    Spine,
    WarehouseSpine,
    request_column,
    spine_instant,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["TrainingDataset"]

BATCH_ROWS = 100_000
_CELLS = 30_000_000
"""Values of features that a stream holds at once: about 250 MB of numbers."""
_ANSWER_ROW = "__answer_row"


@dataclass(frozen=True)
class TrainingDataset(Shown):
    """The spine's rows with the features as of each row's instant.

    Nothing runs until a ``to_*`` method is called. Made by
    :meth:`virtualfs.FeatureStore.get_historical_features`.
    """

    warehouse: Warehouse
    spine: Spine
    plan: FeaturePlan
    timestamp: str
    context: Mapping[str, Any]
    functions: PythonFunctions

    def __repr__(self) -> str:
        return f"TrainingDataset({', '.join((*self.spine.columns, *self.plan.columns))})"

    def _blocks(self) -> list[Block]:
        """Show what is known without asking the warehouse anything."""
        program = self.__dict__.get("_program")
        heads = ("view", "strategy", "rules")
        if program is None:
            unknown = {part.view.fingerprint: Statistics() for part in self.plan.parts}
            program = self._compiled(unknown)
            heads = ("view", "strategy, unless the tables' sizes speak for another", "rules")
        views = [
            (part.view.label, str(compiled.strategy).partition(" (")[0], part.rules())
            for part, compiled in zip(self.plan.parts, program.parts, strict=True)
        ]
        views += [(part.view.label, "on demand", part.rules()) for part in self.plan.on_demand]
        owners = {output: part.view.label for part in self.plan.uses for _, output in part.outputs}
        dtypes = self.plan.dtypes()
        features = [(name, dtypes[name], owners[name]) for name in self.plan.columns]
        held = "in the warehouse" if isinstance(self.spine, WarehouseSpine) else "of the client"
        rows = getattr(self.spine, "rows", None)
        size = f"{rows:,} rows " if isinstance(rows, int) else ""
        return [
            Note("Training dataset, not run until a to_* method is called", strong=True),
            Note(f"Spine: {size}{held}, with {', '.join(self.spine.columns)}"),
            *(Note(f"DOUBT: {doubt}.") for doubt in self.context["doubts"]),
            Grid(("feature", "type", "view"), features),
            Grid(heads, views),
            Code(program.text(), "SQL"),
        ]

    @cached_property
    def _statistics(self) -> dict[str, Statistics]:
        """What the catalog knows, asked for once, when first needed."""
        if isinstance(self.spine, WarehouseSpine):
            rows = self.warehouse.estimate_rows(self.spine.sql)
        else:
            rows = self.spine.rows
        return {
            part.view.fingerprint: replace(
                self.warehouse.statistics(part.view), spine_rows=round_up(rows)
            )
            for part in self.plan.parts
        }

    @cached_property
    def _program(self) -> Program:
        return self._compiled(self._statistics)

    def _compiled(self, statistics: Mapping[str, Statistics]) -> Program:
        capabilities = self.warehouse.capabilities
        schema, select = {**self.plan.key_columns, **self.plan.request_columns}, None
        if isinstance(self.spine, WarehouseSpine):
            schema = {name: str(self.spine.schema[name]).lstrip("!") for name in schema}
            select = self.spine.select(self.plan, self.timestamp, capabilities)
        return compile_training(
            self.plan,
            schema,
            capabilities,
            statistics,
            spine_sql=select,
            spine_columns=self.spine.columns,
        )

    def sql(self) -> str:
        """Return the SQL that a ``to_*`` method runs, statement by statement.

        ``__virtualfs_spine`` stands for the spine's temporary table, which has another name on
        each run. ``to_table`` joins the same parts on the row id, in one statement.
        """
        return self._program.text()

    def explain(self, *, engine: bool = True) -> str:
        """Return, view by view, how the features are found, by which rules, and why so.

        Parameters
        ----------
        engine
            Whether the engine's own plan of each statement follows. For that a spine that the
            client holds is sent to the warehouse; no statement is run.
        """
        capabilities = self.warehouse.capabilities
        lines = [f"Warehouse {self.warehouse.name!r} ({capabilities.engine})"]
        where = "in the warehouse"
        if not isinstance(self.spine, WarehouseSpine):
            where = "sent by the client"
        lines.append(f"Spine: {where}, instants in {self.timestamp!r}")
        lines += [f"DOUBT: {doubt}" for doubt in self.context["doubts"]]
        parts = self._program.parts
        lines += [f"{part.view}: {part.strategy}; {part.rules}" for part in parts]
        lines += [f"{part.view.label}: {part.rules()}" for part in self.plan.on_demand]
        if engine:
            for answer, plan in zip(self._program.answers, self._engine_plans(), strict=True):
                lines.append(f"\n-- {answer.view}\n{plan}")
        return "\n".join(lines)

    def _engine_plans(self) -> list[str]:
        program = self._program
        capabilities = self.warehouse.capabilities
        name = temporary_name()
        with self._session() as session:
            if isinstance(self.spine, WarehouseSpine):
                spine = f"WITH {sql.quoted(name, program.dialect)} AS (\n{program.spine}\n)\n"
                heads = ["" if program.head else spine] * len(program.answers)
            else:
                rows = self.spine.whole() if self.spine.rows is not None else None
                if rows is None:
                    return ["the plan of a reader's rows is not asked for"] * len(program.answers)
                narrow = rows.narrow(self.plan, self.timestamp, capabilities.instant_type)
                session.load(name, narrow)
                heads = [""] * len(program.answers)
            return [
                session.explain(with_head(head, program.statement(answer.select, name)))
                for head, answer in zip(heads, program.answers, strict=True)
            ]

    def diagnose(self, *, samples: int = 3) -> Diagnosis:
        """Count, view by view and in the warehouse, why values are missing.

        Parameters
        ----------
        samples
            How many spine rows to show of each reason.
        """
        program = self._program
        capabilities = self.warehouse.capabilities
        with self._session() as session:
            if program.is_one_statement:
                raise UnsupportedByWarehouseError(
                    f"{capabilities.engine}: a diagnosis of a spine in SQL needs temporary tables; "
                    "pass the spine as a table"
                )
            name, rows = self._spine_table(session)
            views = tuple(
                self._diagnose(session, part, name, rows, samples) for part in self.plan.parts
            )
        return Diagnosis(views)

    def _spine_table(self, session: Session) -> tuple[str, pa.Table]:
        """Put the spine into a temporary table; return its name and the spine's own columns."""
        program, name = self._program, temporary_name()
        if isinstance(self.spine, WarehouseSpine):
            session.keep(name, program.spine or "")
            return name, self._own_columns(session, name)
        whole = self.spine.whole()
        instants = self.warehouse.capabilities.instant_type
        session.load(name, whole.narrow(self.plan, self.timestamp, instants))
        return name, whole.arrow(self.spine.columns)

    def _diagnose(
        self, session: Session, part: Part, spine: str, rows: pa.Table, samples: int
    ) -> ViewDiagnosis:
        capabilities = self.warehouse.capabilities
        types = dict(zip(part.key_columns, part.view.join_keys.values(), strict=True))
        relation = spine_relation(types, capabilities)
        program = self._program
        selects = [
            program.statement(select, spine)
            for select in quality.reasons(relation, part, capabilities, samples)
        ]
        outputs = [output for _, output in part.outputs]
        schema = {"__reason": "string", quality.COUNT: "int64"}
        schema |= {f"__nulls_{number}": "int64" for number in range(len(outputs))}
        counts = session.query(selects[0], schema).to_pylist()
        some = session.query(selects[1], {"__reason": "string", ROW: "int64"}).to_pylist()
        shown = [*part.key_columns, *([self.timestamp] if self.plan.needs_time else [])]
        by_reason: dict[str, list[dict[str, Any]]] = {}
        for row in some:
            if row["__reason"] != "present":
                values = rows.select(shown).slice(row[ROW], 1).to_pylist()
                by_reason.setdefault(row["__reason"], []).extend(values)
        found = {row["__reason"]: row[quality.COUNT] for row in counts}
        nulls = {
            feature if output.startswith(GIVEN) else output: sum(
                row[f"__nulls_{number}"] for row in counts
            )
            for number, (feature, output) in enumerate(part.outputs)
        }
        ordered = {reason: found[reason] for reason in quality.REASONS if reason in found}
        return ViewDiagnosis(part.view.label, ordered, nulls, by_reason)

    @property
    def metadata(self) -> dict[str, Any]:
        """What it takes to reproduce the dataset: names, versions, revision, SQL and its hash."""
        text = self.sql()
        parts = self.plan.parts
        blind = [
            part.view.name
            for part in parts
            if part.late_data == "exclude" and not part.judges_arrival
        ]
        return {
            **self.context,
            "views": {part.view.name: part.view.version or "draft" for part in self.plan.uses},
            "features": list(self.plan.columns),
            "timestamp": self.timestamp,
            "late_data": parts[0].late_data if parts else "include",
            "judged_by_event_time_alone": blind,
            "sql": text,
            "sql_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }

    @property
    def expr(self) -> ir.Table:
        """The dataset as one Ibis table of the warehouse's connection, to compose with."""
        connection = self.warehouse.connection
        capabilities = self.warehouse.capabilities
        spine = self.spine.expression(connection)
        at = spine_instant(spine, self.plan, self.timestamp, capabilities)
        numbered = spine.mutate(**{ROW: capabilities.row_number(), TIME: at})
        keys = [*dict.fromkeys(self.plan.key_columns)]
        narrow = numbered.select(ROW, TIME, *keys)
        result = numbered
        for part in self.plan.parts:
            rows = connection.sql(part.view.rows_sql, schema=part.view.columns)
            answer = fragment(narrow, rows, part, capabilities)
            answer = answer.rename(**{_ANSWER_ROW: ROW})
            result = result.left_join(answer, result[ROW] == answer[_ANSWER_ROW])
            result = result.drop(_ANSWER_ROW)
        self._check_in_query()
        for item in self.plan.on_demand:
            for output, tree in item.trees:
                values = {
                    name: result[column].cast(item.view.dtypes[name])
                    for name, column in item.inputs
                }
                result = result.mutate(**{output: value_of(tree, values, capabilities)})
        return result.order_by(ROW).select(*self.spine.columns, *self.plan.columns)

    def _check_in_query(self) -> None:
        for part in self.plan.on_demand:
            if part.view.function is not None:
                raise UnsupportedByWarehouseError(
                    f"on-demand feature view {part.view.label} is computed by the Python function "
                    f"{part.view.function}, which no query can hold; use to_pandas(), to_pyarrow() "
                    "or to_parquet()"
                )

    @contextmanager
    def _session(self) -> Iterator[Any]:
        expr = getattr(self.spine, "expr", None)
        if expr is not None:  # what Ibis holds for an expression is registered with its connection
            self.warehouse.connection._run_pre_execute_hooks(expr)
        with self.warehouse.session(shared=expr is not None) as session, bounded(session):
            yield session

    def _pieces(self, rows: int | None) -> Iterator[tuple[ClientSpine | None, pa.Table, pa.Table]]:
        """Run, and yield the result in pieces of at most `rows` spine rows; None is all at once.

        Yields the client's own rows (None for a spine in the warehouse), the spine's columns, and
        the features' columns, all of one length.
        """
        program = self._program
        with self._session() as session, Progress() as progress:
            if program.is_one_statement:
                yield from self._streamed(session, rows)
                return
            if isinstance(self.spine, WarehouseSpine):
                for own, name in self._warehouse_pieces(session, rows):
                    yield None, own, self._features(session, name, own, progress)
                return
            instants = self.warehouse.capabilities.instant_type
            pieces = [self.spine.whole()] if rows is None else self.spine.pieces(rows)
            for piece in pieces:
                name = temporary_name()
                session.load(name, piece.narrow(self.plan, self.timestamp, instants))
                own = piece.arrow(self.spine.columns)
                features = self._features(session, name, own, progress)
                session.drop(name)
                yield piece, own, features

    def _warehouse_pieces(
        self, session: Session, rows: int | None
    ) -> Iterator[tuple[pa.Table, str]]:
        """Evaluate the spine once, and yield its columns and the name of a table that has them."""
        program = self._program
        name = temporary_name()
        session.keep(name, program.spine or "")
        if rows is not None:
            counted = session.query(program.statement(program.count(), name), {"n": "int64"})
            count = counted.column(0)[0].as_py()
            if count > rows:
                for start in range(0, count, rows):
                    part = temporary_name()
                    within = program.slice(start, start + rows)
                    session.keep(part, program.statement(within, name))
                    yield self._own_columns(session, part), part
                    session.drop(part)
                return
        yield self._own_columns(session, name), name

    def _own_columns(self, session: Session, name: str) -> pa.Table:
        statement = self._program.statement(self._program.ordered_spine(), name)
        return session.query(statement, self._spine_types).rename_columns([*self.spine.columns])

    def _features(
        self, session: Session, spine: str, own: pa.Table, progress: Progress
    ) -> pa.Table:
        """Answer each view on a spine table and lay the answers beside each other."""
        import pyarrow as pa

        program = self._program
        columns: dict[str, Any] = {}
        lengths = {own.num_rows}
        dtypes = self.plan.all_dtypes()
        for answer in progress.over(program.answers):
            types = {name: dtypes[name] for name in answer.outputs}
            table = session.query(program.statement(answer.select, spine), types)
            lengths.add(table.num_rows)
            columns |= dict(zip(answer.outputs, table.columns, strict=True))
        if len(lengths) != 1:
            raise WarehouseError(f"the parts of one answer have different lengths: {lengths}")
        self._call_functions(columns, own)
        return pa.table({name: columns[name] for name in self.plan.columns})

    def _call_functions(self, columns: dict[str, Any], own: pa.Table) -> None:
        """Add the features that Python functions compute, of columns and the spine's own."""
        import pyarrow as pa

        for part in self.plan.on_demand:
            if part.view.function is None:
                continue
            request, inputs = self.plan.request, {}
            for name, column in part.inputs:
                inputs[name] = columns.get(column)
                if inputs[name] is None:
                    inputs[name] = request_column(column, own.column(column), request[column])
            found = self.functions.compute(part.view, pa.table(inputs))
            columns |= {output: found.column(feature) for feature, output in part.outputs}

    def _streamed(
        self, session: Session, rows: int | None
    ) -> Iterator[tuple[None, pa.Table, pa.Table]]:
        program = self._program
        self._check_in_query()
        statement = program.statement(program.joined(), "")
        schema = {**self._spine_types, **self.plan.dtypes()}
        if rows is None:
            tables = iter([session.query(statement, schema)])
        else:
            tables = session.stream(statement, schema, rows)
        for table in tables:
            named = table.rename_columns([*self.spine.columns, *self.plan.columns])
            yield None, named.select(self.spine.columns), named.select(self.plan.columns)

    @property
    def _spine_types(self) -> dict[str, str]:
        assert isinstance(self.spine, WarehouseSpine)
        return {name: str(dtype).lstrip("!") for name, dtype in self.spine.schema.items()}

    def _all(self) -> tuple[ClientSpine | None, pa.Table, pa.Table]:
        (result,) = self._pieces(None)
        return result

    def to_pyarrow(self) -> pa.Table:
        """Run and return an Arrow table: the spine's columns, then the features.

        Raises
        ------
        WarehouseError
            The warehouse refuses or cannot be reached.
        """
        _, spine, features = self._all()
        return _beside(spine, features)

    def to_pandas(self) -> pd.DataFrame:
        """Run and return a pandas frame; integers and booleans stay whole beside NULLs.

        A pandas spine keeps its own columns and index untouched.
        """
        client, spine, features = self._all()
        if client is not None and _module(client.original) == "pandas":
            import pandas as pd

            found = features.to_pandas(types_mapper=nullable_pandas)
            found.index = client.original.index
            frame: pd.DataFrame = pd.concat([client.original, found], axis=1)
            return frame
        return _beside(spine, features).to_pandas(types_mapper=nullable_pandas)

    def to_polars(self) -> pl.DataFrame:
        """Run and return a polars frame; needs ``virtualfs[polars]``."""
        try:
            import polars as pl
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "to_polars needs polars; pip install 'virtualfs[polars]'"
            ) from None
        client, spine, features = self._all()
        if client is not None and _module(client.original) == "polars":
            frame: pl.DataFrame = client.original.hstack(pl.DataFrame(pl.from_arrow(features)))
            return frame
        return pl.DataFrame(pl.from_arrow(_beside(spine, features)))

    def to_pyarrow_batches(self, rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        """Run and return the rows as a stream of batches of at most `rows` rows.

        The work is done piece by piece, so a result larger than memory needs little of it. The
        session in the warehouse stays open until the reader is read to its end or let go of
        (``del``; closing a reader does not reach Python).
        """
        import pyarrow as pa

        most = max(BATCH_ROWS, _CELLS // max(len(self.plan.columns), 1))

        def stream() -> Iterator[Any]:
            for _, spine, features in self._pieces(most):
                table = _beside(spine, features)
                yield table.schema
                yield from table.to_batches(max_chunksize=rows)

        batches = stream()
        schema = next(batches)
        return pa.RecordBatchReader.from_batches(
            schema, (item for item in batches if isinstance(item, pa.RecordBatch))
        )

    def to_parquet(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Run and write a Parquet file, whole or not at all; return its path.

        Raises
        ------
        FileExistsError
            Something stands at `path` and `overwrite` is false.
        UnsupportedByWarehouseError
            A column has a type that Parquet lacks.
        """
        import pyarrow as pa
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
        except pa.ArrowNotImplementedError as error:
            raise UnsupportedByWarehouseError(
                f"Parquet cannot hold one of the columns: {error}; convert it, an interval for "
                "example to seconds, in the feature's expr="
            ) from None
        finally:
            part.unlink(missing_ok=True)
        return target

    def to_table(self, name: str, *, overwrite: bool = False) -> str:
        """Run and write a table inside the warehouse, without a round trip; return its name.

        Raises
        ------
        WarehouseError
            The table exists and `overwrite` is false, or the warehouse is read-only.
        """
        program = self._program
        self._check_in_query()
        capabilities = self.warehouse.capabilities
        target = sql.text(sql.table_reference(name, capabilities.dialect), capabilities.dialect)
        spine = temporary_name()
        with self._session() as session:
            if isinstance(self.spine, WarehouseSpine):
                if not program.head:
                    session.keep(spine, program.spine or "")
            elif program.head:
                raise UnsupportedByWarehouseError(
                    f"{capabilities.engine}: without temporary tables only a spine in the "
                    "warehouse can become a table; pass the spine as SQL"
                )
            else:
                whole = self.spine.whole()
                session.load(
                    spine,
                    whole.narrow(
                        self.plan, self.timestamp, capabilities.instant_type, self.spine.columns
                    ),
                )
            create = "CREATE OR REPLACE TABLE" if overwrite else "CREATE TABLE"
            if overwrite and not capabilities.replace_table:
                session.execute(f"DROP TABLE IF EXISTS {target}")
                create = "CREATE TABLE"
            statement = program.statement(program.joined(), spine)
            session.execute(f"{create} {target} AS\n{statement}")
        return name


def _beside(spine: pa.Table, features: pa.Table) -> pa.Table:
    for field, column in zip(features.schema, features.columns, strict=True):
        spine = spine.append_column(field, column)
    return spine


def _module(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
